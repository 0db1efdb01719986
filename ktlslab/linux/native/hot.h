/* What the files of the _hot module share. */
#ifndef KTLSLAB_HOT_H
#define KTLSLAB_HOT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h> /* the limited API alone: Py_LIMITED_API is set by the build, and one file serves all Pythons */

#include <string.h>
#include <sys/time.h>

#include "batch.h"
#include "inside.h"
#include "multishot.h"

typedef struct {
  PyObject_HEAD
  kl_ring *ring; /* NULL once closed */
  int inside;    /* calls under way: the ring must not be freed under them */
  int64_t max_ns; /* the longest wait of a call, whatever its time-out; 0: no limit */
  PyTypeObject *completion;
  allocfunc new_completion;
  PyObject *blame; /* says in Python what was wrong with a bound call's arguments */
} Calls;

int64_t kl_nanoseconds(PyObject *timeout); /* or an exception: look for it */
PyObject *kl_failed(int64_t result);       /* OSError of minus that errno */
int kl_check_open(Calls *self);
int64_t kl_limited(const Calls *self, int64_t timeout_ns); /* the time-out of a call */
extern PyTypeObject *kl_calls_type;

/* Begin something, and go on with it after each signal, while the GIL is free: nonzero where a handler raised, and then it
   is given up; or where it forked and this is the child, which leaves all of it to the parent. */
#define UNINTERRUPTED(self, result, begin, go_on, give_up)           \
  ({                                                                 \
    int raised = 0;                                                  \
    (self)->inside++;                                                \
    Py_BEGIN_ALLOW_THREADS                                           \
    result = (begin);                                                \
    while (result == KL_INTERRUPTED && !raised) {                    \
      Py_BLOCK_THREADS                                               \
      raised = PyErr_CheckSignals() || kl_check_open(self);          \
      Py_UNBLOCK_THREADS                                             \
      if (!raised) result = (go_on);                                 \
      else if ((self)->ring) give_up;                                \
    }                                                                \
    Py_END_ALLOW_THREADS                                             \
    (self)->inside--;                                                \
    raised;                                                          \
  })

int64_t kl_send_bound(PyObject *callable, PyObject *items, Py_ssize_t max_bytes, Py_ssize_t *total);

/* flight.c */
#define KL_TOO_LONG (-2)
int64_t kl_send_items(Calls *self, int fd, PyObject *items, int flags, int64_t timeout_ns, Py_ssize_t max_bytes,
                      Py_ssize_t *total);
PyObject *kl_pack(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *kl_total(PyObject *module, PyObject *buffers);
PyObject *kl_pin(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *kl_start_all(PyObject *self, PyObject *const *args, Py_ssize_t count);
PyObject *kl_reap_all(PyObject *self, PyObject *const *args, Py_ssize_t count);
PyObject *kl_take(PyObject *self, PyObject *const *args, Py_ssize_t count);

/* socket.c */
PyObject *kl_watched(PyObject *module, PyObject *const *args, Py_ssize_t count);
/* A wait of a socket's own, whose time-out is that of `option` (SO_RCVTIMEO, SO_SNDTIMEO) */
struct kl_wait {
  int fd, option;
  pid_t process;          /* that may go on with it */
  struct timeval before;  /* the time-out as it was, where a signal has shortened it: then `until_ns` is not 0 */
  int64_t until_ns;
};
int kl_interrupted(struct kl_wait *wait);
void kl_waited(const struct kl_wait *wait); /* when it is over */
extern PyType_Spec kl_socket_spec;

/* tls.c */
extern PyType_Spec kl_tls_spec;

/* stream.c */
int kl_add_streams(PyObject *module); /* nonzero and an exception */

#endif
