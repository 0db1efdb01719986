/* A TLS session in OpenSSL as Python sends and receives by it: the library's own calls, once per operation, as hot.c makes
 * the ring's. The addresses of the calls are pyOpenSSL's library's (tls/traffic.py), so nothing is linked here.
 *
 * OpenSSL has the socket itself, or two memory BIOs, whose bytes go through a ring or, where the kernel makes the records of
 * the other direction, through the socket. Memory BIOs force two copies each way: out of OpenSSL's records into the BIO,
 * and out of the BIO into what is sent; what was received into the BIO, and out of the BIO into OpenSSL's record. (The
 * second copy of a send is forced by what pyOpenSSL exports: BIO_get_mem_data shows the bytes where they lie, but only
 * BIO_read takes them away.)
 *
 * What is rare is left to Python, as methods of the class that inherits from this one (stages/transfer/userspace.py):
 *   held(data, flags)                 a send with MSG_MORE, or the first after one
 *   unsent()                          part of the records was sent; `carry` sends on
 *   incomplete(buffer)                part of a record came; `pull_once` goes on
 *   suspected()                       a record that came may ask for new keys, for who has to be told
 *   ended()                           TCP ended; raises
 *   failed(answer, errno, receives)   OpenSSL failed; raises what pyOpenSSL would
 *
 * Only one thread at a time may be in OpenSSL (openssl-threads(7)): a second one gets EBUSY, and has done nothing. The
 * exception is `tell`, by which a thread that receives from the kernel passes on what it got: it waits.
 */
#include "hot.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <unistd.h>

#define RECORD_BYTES (1 << 14)
#define SEAL_BYTES (1 << 20) /* OpenSSL makes all records of a send before the first is sent; the rest waits its turn */
#define OVERHEAD_BYTES 64    /* header, explicit nonce, tag and inner type never take more */
#define WIRE_BYTES (1 << 17) /* of received records at once */
#define HEADER_BYTES 5
#define KEY_UPDATE_BYTES 22 /* encrypted, in TLS 1.3: 5 of message, 1 of type, 16 of tag */
#define REFUSED (-65537)     /* OpenSSL did not do it, and `reason` says why; no errno has this value */

enum { WANT_READ = 2, WANT_WRITE = 3, ZERO_RETURN = 6 }; /* SSL_get_error(3); part of OpenSSL's ABI */

/* In the order in which Python gives them. */
struct functions {
  int (*write)(void *ssl, const void *data, int bytes);
  int (*read)(void *ssl, void *buffer, int bytes);
  int (*pending)(const void *ssl);
  int (*get_error)(const void *ssl, int answer);
  unsigned long (*peek_error)(void);
  void (*clear_error)(void);
  int (*bio_write)(void *bio, const void *data, int bytes);
  int (*bio_read)(void *bio, void *buffer, int bytes);
  long (*bio_memory)(void *bio, char **at);
};
#define FUNCTIONS (sizeof(struct functions) / sizeof(void *))

typedef struct {
  PyObject_HEAD
  struct functions openssl;
  void *ssl, *incoming, *outgoing; /* without the BIOs, OpenSSL has the socket */
  Calls *calls;                    /* of the ring that carries; NULL: the socket does */
  char *wire;                      /* what was received */
  char *records;                   /* what is being sent */
  int records_bytes, filled, sent;
  int fd, tells, held, busy;
  int inside;                      /* a thread is in OpenSSL: for `tell`, and who meets it */
  unsigned char header[HEADER_BYTES]; /* of the next record that comes, as far as it has come */
  int header_bytes, suspect;          /* a record that came has the size of a KeyUpdate */
  Py_ssize_t skip;                    /* bytes until that header */
  pid_t process;
  int64_t timeout_ns;
} Tls;

/* One call: what it moves, and what became of it. */
struct work {
  char *data;
  Py_ssize_t bytes, done;
  int64_t pause_ns;            /* a long send comes back then, with what it has done */
  int answer, reason, error;   /* of OpenSSL's last call */
  struct kl_wait wait;
};

/* Without the GIL: steps, each of which gives a number of bytes, -errno, KL_INTERRUPTED or REFUSED. */

static int few(Py_ssize_t bytes) { return bytes > INT_MAX ? INT_MAX : (int)bytes; }

/* What another user of OpenSSL has left behind in this thread would be taken for this call's error: SSL_get_error(3). */
static void prepare(const struct functions *openssl) {
  if (openssl->peek_error()) openssl->clear_error();
  errno = 0;
}

static int64_t refused(Tls *self, struct work *work, int answer) {
  work->error = errno;
  work->answer = answer;
  work->reason = self->openssl.get_error(self->ssl, answer);
  int waits = work->reason == WANT_READ || work->reason == WANT_WRITE;
  return waits && work->error == EINTR && !self->incoming ? KL_INTERRUPTED : REFUSED;
}

/* pyOpenSSL's contexts write one record per call (SSL_MODE_ENABLE_PARTIAL_WRITE). */
static int64_t write_records(Tls *self, struct work *work) {
  while (work->done < work->bytes) {
    prepare(&self->openssl);
    int answer = self->openssl.write(self->ssl, work->data + work->done, few(work->bytes - work->done));
    if (answer <= 0) return refused(self, work, answer);
    work->done += answer;
    if (work->pause_ns && work->done < work->bytes && kl_deadline(0) > work->pause_ns) break;
  }
  return work->done;
}

static int64_t read_record(Tls *self, struct work *work) {
  prepare(&self->openssl);
  int answer = self->openssl.read(self->ssl, work->data, few(work->bytes));
  return answer > 0 ? answer : refused(self, work, answer);
}

/* Carry bytes by the ring or the socket: how many the kernel took or gave. */
KL_INLINE int64_t carried(Tls *self, int opcode, char *at, int bytes) {
  int flags = opcode == IORING_OP_SEND ? MSG_NOSIGNAL : 0;
  if (self->calls) {
    struct kl_operation operation = {.opcode = opcode, .fd = self->fd, .addr = (uintptr_t)at, .len = (uint32_t)bytes,
                                     .op_flags = (uint32_t)flags};
    return kl_run(self->calls->ring, &operation, kl_limited(self->calls, self->timeout_ns));
  }
  ssize_t count = flags ? send(self->fd, at, (size_t)bytes, flags) : recv(self->fd, at, (size_t)bytes, 0);
  return count >= 0 ? count : errno == EINTR ? KL_INTERRUPTED : -errno;
}

/* What is in OpenSSL for a moment, and whom no EBUSY may turn away. */
static void go_in(Tls *self) {
  while (__atomic_exchange_n(&self->inside, 1, __ATOMIC_ACQUIRE)) sched_yield();
}

static void come_out(Tls *self) { __atomic_store_n(&self->inside, 0, __ATOMIC_RELEASE); }

/* Send more of the records that are made. */
static int64_t send_records(Tls *self, struct work *work) {
  if (self->sent == self->filled) return 0;
  return carried(self, IORING_OP_SEND, self->records + self->sent, self->filled - self->sent);
}

static int64_t seal_and_send(Tls *self, struct work *work) {
  go_in(self);
  int64_t result = write_records(self, work);
  if (result >= 0 && self->sent == self->filled) {
    self->sent = 0;
    self->filled = self->openssl.bio_read(self->outgoing, self->records, self->records_bytes);
    if (self->filled < 0) self->filled = 0;
  }
  come_out(self);
  return result < 0 ? result : send_records(self, work);
}

/* Look at the headers of the records that have come. */
static void scan(Tls *self, Py_ssize_t received) {
  Py_ssize_t at = self->skip;
  while (at < received) {
    const unsigned char *header = (const unsigned char *)self->wire + at;
    if (!self->header_bytes && received - at >= HEADER_BYTES) {
      at += HEADER_BYTES;
    } else {
      while (self->header_bytes < HEADER_BYTES && at < received)
        self->header[self->header_bytes++] = (unsigned char)self->wire[at++];
      if (self->header_bytes < HEADER_BYTES) break;
      header = self->header;
      self->header_bytes = 0;
    }
    int bytes = header[3] << 8 | header[4];
    self->suspect |= bytes == KEY_UPDATE_BYTES;
    at += bytes;
  }
  self->skip = at - received;
}

static int64_t feed(Tls *self, struct work *work, int64_t received) {
  if (received <= 0) return received; /* 0: the end of TCP */
  if (self->tells) scan(self, (Py_ssize_t)received);
  self->openssl.bio_write(self->incoming, self->wire, (int)received);
  return read_record(self, work);
}

static int64_t receive_and_open(Tls *self, struct work *work) {
  return feed(self, work, carried(self, IORING_OP_RECV, self->wire, WIRE_BYTES));
}

/* Receive, unless OpenSSL still has something. */
static int64_t open_what_comes(Tls *self, struct work *work) {
  if (self->openssl.pending(self->ssl) || self->openssl.bio_memory(self->incoming, NULL) > 0) {
    int64_t result = read_record(self, work);
    if (result != REFUSED || work->reason != WANT_READ) return result;
  }
  return receive_and_open(self, work);
}

/* With the GIL again. */

static int interrupted(Tls *self, struct work *work) {
  if (!self->calls) return kl_interrupted(&work->wait);
  return PyErr_CheckSignals() || kl_check_open(self->calls);
}

typedef int64_t (*step)(Tls *, struct work *);

static int64_t resume_send(Tls *self, struct work *work) {
  return self->calls ? kl_resume(self->calls->ring) : send_records(self, work);
}

static int64_t resume_receive(Tls *self, struct work *work) {
  return self->calls ? feed(self, work, kl_resume(self->calls->ring)) : receive_and_open(self, work);
}

/* Take a step without the GIL, and go on with it after each signal: -1 and an exception, or 0 and the result. */
static int take(Tls *self, struct work *work, step begin, step go_on, int64_t *result) {
  int raised = 0;
  self->busy = 1;
  if (self->calls) self->calls->inside++;
  Py_BEGIN_ALLOW_THREADS
  *result = begin(self, work);
  while (*result == KL_INTERRUPTED && !raised) {
    Py_BLOCK_THREADS
    raised = interrupted(self, work);
    Py_UNBLOCK_THREADS
    if (!raised) *result = go_on(self, work);
    else if (self->calls && self->calls->ring) kl_abandon(self->calls->ring);
  }
  Py_END_ALLOW_THREADS
  if (self->calls) self->calls->inside--;
  kl_waited(&work->wait);
  self->busy = 0;
  return raised;
}

/* Whether the call may begin. */
static int enter(Tls *self) {
  if (!self->ssl) {
    PyErr_SetString(PyExc_ValueError, "no session");
    return -1;
  }
  if (!self->calls) {
    if (!self->busy) return 0;
  } else if (!self->calls->ring) {
    PyObject *said = PyObject_CallFunction(self->calls->blame, "sii", "transfer", 0, self->fd);
    Py_XDECREF(said);
    return said ? kl_check_open(self->calls) : -1;
  } else if (!self->busy && !self->calls->inside) {
    return 0;
  }
  kl_failed(-EBUSY);
  return -1;
}

/* What a step that gave no number of bytes has come to; `receives` decides who is told. */
static PyObject *concluded(Tls *self, const struct work *work, int64_t result, int receives) {
  if (result != REFUSED) return kl_failed(result);
  if (receives && work->reason == ZERO_RETURN) return PyLong_FromLong(0);
  if (work->reason == WANT_READ || (work->reason == WANT_WRITE && !receives)) return kl_failed(-ETIMEDOUT);
  return PyObject_CallMethod((PyObject *)self, "failed", "iii", work->answer, work->error, receives);
}

static int called(Tls *self, const char *name) {
  PyObject *done = PyObject_CallMethod((PyObject *)self, name, NULL);
  Py_XDECREF(done);
  return done ? 0 : -1;
}

static int make_room(Tls *self, Py_ssize_t plaintext) {
  int needed = (int)plaintext + (int)(plaintext / RECORD_BYTES + 4) * OVERHEAD_BYTES;
  if (needed <= self->records_bytes) return 0;
  char *grown = PyMem_Realloc(self->records, (size_t)needed);
  if (!grown) {
    PyErr_NoMemory();
    return -1;
  }
  self->records = grown;
  self->records_bytes = needed;
  return 0;
}

static struct work work_of(Tls *self, const Py_buffer *view, int option) {
  return (struct work){.data = view->buf, .bytes = view->len,
                       .wait = {.fd = self->fd, .option = option, .process = self->process}};
}

static PyObject *pushed(Tls *self, struct work *work) {
  int64_t result;
  if (!self->outgoing) {
    if (work->bytes > RECORD_BYTES && self->timeout_ns != KL_FOREVER) work->pause_ns = kl_deadline(self->timeout_ns / 4);
    if (take(self, work, write_records, write_records, &result)) return NULL;
    return result < 0 ? concluded(self, work, result, 0) : PyLong_FromSsize_t(work->done);
  }
  if (work->bytes > SEAL_BYTES) work->bytes = SEAL_BYTES;
  if (make_room(self, work->bytes) || take(self, work, seal_and_send, resume_send, &result)) return NULL;
  if (result < 0) return concluded(self, work, result, 0);
  self->sent += (int)result;
  int rest = self->sent < self->filled || self->filled == self->records_bytes;
  return rest && called(self, "unsent") ? NULL : PyLong_FromSsize_t(work->done);
}

/* push(data, flags=0): how many bytes were taken, like send(2). */
static PyObject *tls_push(PyObject *object, PyObject *const *args, Py_ssize_t given) {
  Tls *self = (Tls *)object;
  if (given < 1 || given > 2) return PyErr_Format(PyExc_TypeError, "expected data and flags, not %zd arguments", given);
  long flags = given > 1 ? PyLong_AsLong(args[1]) : 0;
  if (flags == -1 && PyErr_Occurred()) return NULL;
  Py_buffer view;
  if (enter(self) || PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE)) return NULL;
  PyObject *answer;
  if (flags || self->held) { /* only now: a wrong argument leaves what is held back as it is */
    self->held = (flags & MSG_MORE) != 0;
    answer = PyObject_CallMethod(object, "held", "Ol", args[0], flags);
  } else {
    struct work work = work_of(self, &view, SO_SNDTIMEO);
    answer = view.len ? pushed(self, &work) : PyLong_FromLong(0);
  }
  PyBuffer_Release(&view);
  return answer;
}

/* carry(): send more of what OpenSSL has made: how many bytes are left, at least. */
static PyObject *tls_carry(PyObject *object, PyObject *unused) {
  Tls *self = (Tls *)object;
  Py_buffer nothing = {0};
  struct work work = work_of(self, &nothing, SO_SNDTIMEO);
  int64_t result;
  if (enter(self) || make_room(self, RECORD_BYTES)) return NULL;
  if (!self->outgoing) return PyLong_FromLong(0);
  if (take(self, &work, seal_and_send, resume_send, &result)) return NULL;
  if (result < 0) return kl_failed(result);
  self->sent += (int)result;
  return PyLong_FromLong(self->filled == self->records_bytes ? 1 : self->filled - self->sent);
}

static PyObject *pulled(Tls *self, struct work *work, PyObject *buffer, int once) {
  int64_t result;
  if (!self->incoming) {
    if (take(self, work, read_record, read_record, &result)) return NULL;
    return result < 0 ? concluded(self, work, result, 1) : PyLong_FromLongLong(result);
  }
  if (!self->wire && !(self->wire = PyMem_Malloc(WIRE_BYTES))) return PyErr_NoMemory();
  if (take(self, work, open_what_comes, resume_receive, &result)) return NULL;
  if (result > 0) return PyLong_FromLongLong(result);
  if (!result) return called(self, "ended") ? NULL : PyLong_FromLong(0);
  if (result != REFUSED || work->reason != WANT_READ) return concluded(self, work, result, 1);
  if (once) Py_RETURN_NONE;
  return PyObject_CallMethod((PyObject *)self, "incomplete", "O", buffer);
}

static PyObject *receive(Tls *self, PyObject *buffer, int once) {
  Py_buffer view;
  if (enter(self) || PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)) return NULL;
  struct work work = work_of(self, &view, SO_RCVTIMEO);
  PyObject *answer = view.len ? pulled(self, &work, buffer, once) : PyLong_FromLong(0); /* OpenSSL would read first */
  PyBuffer_Release(&view);
  return answer;
}

/* pull(buffer): how many bytes of one record came, like recv(2); 0 at close_notify. */
static PyObject *tls_pull(PyObject *object, PyObject *buffer) {
  Tls *self = (Tls *)object;
  PyObject *answer = receive(self, buffer, 0);
  if (!self->suspect || !answer) return answer;
  self->suspect = self->openssl.bio_memory(self->incoming, NULL) > 0; /* OpenSSL may not have read it yet */
  if (called(self, "suspected")) Py_CLEAR(answer);
  return answer;
}

/* pull_once(buffer): the same, or None where more of the record has to come. */
static PyObject *tls_pull_once(PyObject *self, PyObject *buffer) { return receive((Tls *)self, buffer, 1); }

/* tell(record): let OpenSSL read a record that carries no data, also while another thread sends. */
static PyObject *tls_tell(PyObject *object, PyObject *record) {
  Tls *self = (Tls *)object;
  Py_buffer view;
  char none;
  if (!self->incoming) return PyErr_Format(PyExc_ValueError, "no session in memory");
  if (PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)) return NULL;
  struct work work = {.data = &none, .bytes = sizeof none};
  int64_t result;
  Py_BEGIN_ALLOW_THREADS
  go_in(self);
  self->openssl.bio_write(self->incoming, view.buf, few(view.len));
  result = read_record(self, &work);
  come_out(self);
  Py_END_ALLOW_THREADS
  PyBuffer_Release(&view);
  if (result != REFUSED || work.reason == WANT_READ) Py_RETURN_NONE;
  return concluded(self, &work, result, 1);
}

/* check_free(): OSError EBUSY while another thread is in OpenSSL. */
static PyObject *tls_check_free(PyObject *self, PyObject *unused) {
  if (((Tls *)self)->busy) return kl_failed(-EBUSY);
  Py_RETURN_NONE;
}

static void release(Tls *self) {
  Py_CLEAR(self->calls);
  self->ssl = self->incoming = self->outgoing = NULL;
}

/* Tls(addresses of the functions, of the SSL, of its memory BIOs or 0 and 0, a ring's Calls or None, descriptor, time-out,
   tells). May be called again. */
static int tls_init(PyObject *object, PyObject *args, PyObject *keywords) {
  Tls *self = (Tls *)object;
  PyObject *functions, *calls, *timeout;
  unsigned long long ssl, incoming, outgoing;
  int fd, tells;
  if (!PyArg_ParseTuple(args, "O!KKKOiOp", &PyTuple_Type, &functions, &ssl, &incoming, &outgoing, &calls, &fd, &timeout,
                        &tells))
    return -1;
  if (calls != Py_None && !PyObject_TypeCheck(calls, kl_calls_type)) {
    PyErr_SetString(PyExc_TypeError, "expected a ring's calls or None");
    return -1;
  }
  void *addresses[FUNCTIONS];
  if (PyTuple_Size(functions) != FUNCTIONS) {
    PyErr_Format(PyExc_TypeError, "expected %zu functions", FUNCTIONS);
    return -1;
  }
  for (size_t i = 0; i < FUNCTIONS; i++) addresses[i] = PyLong_AsVoidPtr(PyTuple_GetItem(functions, (Py_ssize_t)i));
  int64_t timeout_ns = kl_nanoseconds(timeout);
  if (PyErr_Occurred()) return -1;
  if (self->busy) {
    kl_failed(-EBUSY);
    return -1;
  }
  release(self);
  if (calls != Py_None) self->calls = (Calls *)Py_NewRef(calls);
  memcpy(&self->openssl, addresses, sizeof addresses);
  self->ssl = (void *)(uintptr_t)ssl;
  self->incoming = (void *)(uintptr_t)incoming;
  self->outgoing = (void *)(uintptr_t)outgoing;
  self->fd = fd;
  self->tells = tells;
  self->timeout_ns = timeout_ns;
  self->process = getpid();
  return 0;
}

static void tls_free(PyObject *object) {
  PyTypeObject *type = Py_TYPE(object);
  release((Tls *)object);
  PyMem_Free(((Tls *)object)->records);
  PyMem_Free(((Tls *)object)->wire);
  ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
  Py_DECREF(type);
}

static PyMethodDef tls_methods[] = {
    {"push", (PyCFunction)(void (*)(void))tls_push, METH_FASTCALL, NULL},
    {"carry", tls_carry, METH_NOARGS, NULL},
    {"pull", tls_pull, METH_O, NULL},
    {"pull_once", tls_pull_once, METH_O, NULL},
    {"tell", tls_tell, METH_O, NULL},
    {"check_free", tls_check_free, METH_NOARGS, NULL},
    {NULL}};

static PyType_Slot tls_slots[] = {{Py_tp_doc, "A TLS session in OpenSSL, sent and received by in C."},
                                  {Py_tp_init, tls_init},
                                  {Py_tp_dealloc, tls_free},
                                  {Py_tp_methods, tls_methods},
                                  {0, NULL}};

PyType_Spec kl_tls_spec = {.name = "ktlslab.linux._hot.Tls",
                           .basicsize = sizeof(Tls),
                           .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                           .slots = tls_slots};
