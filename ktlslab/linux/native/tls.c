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
#include "tls.h"

#include <errno.h>
#include <unistd.h>

static int interrupted(Tls *self, struct work *work) {
  if (!self->calls) return kl_interrupted(&work->wait);
  return PyErr_CheckSignals() || kl_check_open(self->calls);
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
    if (take(self, work, kl_tls_write, kl_tls_write, &result)) return NULL;
    return result < 0 ? concluded(self, work, result, 0) : PyLong_FromSsize_t(work->done);
  }
  if (work->bytes > SEAL_BYTES) work->bytes = SEAL_BYTES;
  if (make_room(self, work->bytes) || take(self, work, kl_tls_seal_and_send, kl_tls_send_on, &result)) return NULL;
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
  if (take(self, &work, kl_tls_seal_and_send, kl_tls_send_on, &result)) return NULL;
  if (result < 0) return kl_failed(result);
  self->sent += (int)result;
  return PyLong_FromLong(self->filled == self->records_bytes ? 1 : self->filled - self->sent);
}

static PyObject *pulled(Tls *self, struct work *work, PyObject *buffer, int once) {
  int64_t result;
  if (!self->incoming) {
    if (take(self, work, kl_tls_read, kl_tls_read, &result)) return NULL;
    return result < 0 ? concluded(self, work, result, 1) : PyLong_FromLongLong(result);
  }
  if (!self->wire && !(self->wire = PyMem_Malloc(WIRE_BYTES))) return PyErr_NoMemory();
  if (take(self, work, kl_tls_receive, kl_tls_receive_on, &result)) return NULL;
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
  result = kl_tls_feed(self, &work, &view);
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
