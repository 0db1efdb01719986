/* send(2) and recv(2) on Python's socket, by C of the same shape as the ring's and OpenSSL's: what is compared is then not
 * the weight of Python's socket module. Where the socket does not block, its own methods wait, as its time-out says.
 *
 * A wait that signals interrupt goes on for as long as the socket's time-out once more, in all (Python would begin a wait of
 * that length after each signal: PEP 475).
 */
#include "hot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tls.h>
#include <netinet/tcp.h>
#include <sys/time.h>
#include <unistd.h>

#define MAX_STRUCT_BYTES 128 /* of a cipher's struct in linux/tls.h; the largest has 60 */

/* Let the signal's handler run, then wait on: nonzero and an exception where it raises, or where the time is up. */
int kl_interrupted(struct kl_wait *wait) {
  if (PyErr_CheckSignals()) return -1;
  if (getpid() != wait->process) { /* the handler forked, and the parent goes on */
    kl_failed(-EBADF);
    return -1;
  }
  socklen_t size = sizeof wait->before;
  int64_t now_ns = kl_deadline(0);
  if (!wait->until_ns) {
    if (getsockopt(wait->fd, SOL_SOCKET, wait->option, &wait->before, &size)) return 0;
    if (!wait->before.tv_sec && !wait->before.tv_usec) return 0; /* it waits for ever */
    wait->until_ns = now_ns + wait->before.tv_sec * 1000000000LL + wait->before.tv_usec * 1000LL;
  }
  int64_t left_us = (wait->until_ns - now_ns) / 1000;
  if (left_us <= 0) {
    kl_failed(-EAGAIN);
    return -1;
  }
  struct timeval left = {left_us / 1000000, left_us % 1000000};
  setsockopt(wait->fd, SOL_SOCKET, wait->option, &left, sizeof left);
  return 0;
}

void kl_waited(const struct kl_wait *wait) {
  if (wait->until_ns) setsockopt(wait->fd, SOL_SOCKET, wait->option, &wait->before, sizeof wait->before);
}

static uint64_t sequence_number(int fd, int direction, socklen_t bytes, unsigned at) {
  unsigned char keys[MAX_STRUCT_BYTES];
  uint64_t number = 0;
  if (!getsockopt(fd, SOL_TLS, direction, keys, &bytes))
    for (unsigned i = 0; i < 8; i++) number = number << 8 | keys[at + i];
  explicit_bzero(keys, sizeof keys);
  return number;
}

/* watched(descriptor, bytes of the cipher's struct or 0, where its rec_seq begins): (TCP's state, the sequence number of TX,
   that of RX), each 0 where the kernel does not tell. In one call, because a stream looks at them between its sends. */
PyObject *kl_watched(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  if (count != 3) return PyErr_Format(PyExc_TypeError, "expected 3 numbers, not %zd", count);
  int fd = (int)PyLong_AsLong(args[0]);
  unsigned long bytes = PyLong_AsUnsignedLong(args[1]), at = PyLong_AsUnsignedLong(args[2]);
  if (PyErr_Occurred()) return NULL;
  if (bytes > MAX_STRUCT_BYTES || (bytes && at + 8 > bytes)) return PyErr_Format(PyExc_ValueError, "no struct of linux/tls.h");
  unsigned char state = 0; /* tcpi_state, the first byte of struct tcp_info */
  socklen_t one = 1;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &one)) state = 0;
  uint64_t sent = bytes ? sequence_number(fd, TLS_TX, (socklen_t)bytes, (unsigned)at) : 0;
  uint64_t received = bytes ? sequence_number(fd, TLS_RX, (socklen_t)bytes, (unsigned)at) : 0;
  return Py_BuildValue("(iKK)", state, (unsigned long long)sent, (unsigned long long)received);
}

typedef struct {
  PyObject_HEAD
  PyObject *fileno, *send, *recv_into; /* the Python socket's own */
  pid_t process;
} Socket;

/* The descriptor as it is now: a closed socket's number may be another's. */
static int descriptor(Socket *self) {
  PyObject *number = PyObject_CallNoArgs(self->fileno);
  if (!number) return -1;
  int fd = (int)PyLong_AsLong(number);
  Py_DECREF(number);
  if (fd < 0 && !PyErr_Occurred()) kl_failed(-EBADF);
  return fd;
}

static PyObject *moved(Socket *self, PyObject *buffer, long flags, int receives) {
  struct kl_wait wait = {.fd = descriptor(self), .option = receives ? SO_RCVTIMEO : SO_SNDTIMEO, .process = self->process};
  Py_buffer view;
  ssize_t count = -1;
  int error, raised = 0;
  if (wait.fd < 0 || PyObject_GetBuffer(buffer, &view, receives ? PyBUF_WRITABLE : PyBUF_SIMPLE)) return NULL;
  if (receives && !view.len) { /* nothing is asked for: recv(2) would tell a reset, or wait */
    PyBuffer_Release(&view);
    return PyLong_FromLong(0);
  }
  do {
    Py_BEGIN_ALLOW_THREADS
    count = receives ? recv(wait.fd, view.buf, (size_t)view.len, (int)flags)
                     : send(wait.fd, view.buf, (size_t)view.len, (int)flags | MSG_NOSIGNAL);
    error = errno;
    Py_END_ALLOW_THREADS
  } while (count < 0 && error == EINTR && !(raised = kl_interrupted(&wait)));
  kl_waited(&wait);
  PyBuffer_Release(&view);
  if (count >= 0) return PyLong_FromSsize_t(count);
  if (raised) return NULL;
  if (error == EAGAIN && fcntl(wait.fd, F_GETFL) & O_NONBLOCK)
    return PyObject_CallFunction(receives ? self->recv_into : self->send, receives ? "O" : "Ol", buffer, flags);
  return kl_failed(-error);
}

/* send(data, flags=0) */
static PyObject *socket_send(PyObject *self, PyObject *const *args, Py_ssize_t given) {
  if (given < 1 || given > 2) return PyErr_Format(PyExc_TypeError, "expected data and flags, not %zd arguments", given);
  long flags = given > 1 ? PyLong_AsLong(args[1]) : 0;
  return flags == -1 && PyErr_Occurred() ? NULL : moved((Socket *)self, args[0], flags, 0);
}

/* recv_into(buffer) */
static PyObject *socket_recv_into(PyObject *self, PyObject *buffer) { return moved((Socket *)self, buffer, 0, 1); }

/* Socket(a Python socket) */
static PyObject *socket_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
  PyObject *given;
  if (!PyArg_ParseTuple(args, "O", &given)) return NULL;
  Socket *self = (Socket *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
  if (!self) return NULL;
  self->process = getpid();
  self->fileno = PyObject_GetAttrString(given, "fileno");
  self->send = PyObject_GetAttrString(given, "send");
  self->recv_into = PyObject_GetAttrString(given, "recv_into");
  if (!self->fileno || !self->send || !self->recv_into) Py_CLEAR(self);
  return (PyObject *)self;
}

static void socket_free(PyObject *object) {
  Socket *self = (Socket *)object;
  PyTypeObject *type = Py_TYPE(object);
  Py_XDECREF(self->fileno);
  Py_XDECREF(self->send);
  Py_XDECREF(self->recv_into);
  ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
  Py_DECREF(type);
}

static PyMethodDef socket_methods[] = {{"send", (PyCFunction)(void (*)(void))socket_send, METH_FASTCALL, NULL},
                                       {"recv_into", socket_recv_into, METH_O, NULL},
                                       {NULL}};

static PyType_Slot socket_slots[] = {{Py_tp_doc, "A Python socket's send and recv_into, made in C."},
                                     {Py_tp_new, socket_new},
                                     {Py_tp_dealloc, socket_free},
                                     {Py_tp_methods, socket_methods},
                                     {0, NULL}};

PyType_Spec kl_socket_spec = {.name = "ktlslab.linux._hot.Socket",
                              .basicsize = sizeof(Socket),
                              .flags = Py_TPFLAGS_DEFAULT,
                              .slots = socket_slots};
