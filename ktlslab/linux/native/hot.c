/* The ring's calls as Python makes them, once per operation: no cffi, no Python code in between.
 *
 * A Calls object stands for an open ring; `bind` makes a callable with the descriptor and the time-out already in it.
 * Each call holds its buffer, releases the GIL while the kernel works, lets a signal's handler run, and cancels what is
 * in flight before it passes on what that handler raised. ring.c has the rules; ../ring.py has the words for users.
 */
#include "hot.h"

#include <errno.h>

int64_t kl_nanoseconds(PyObject *timeout) {
  if (timeout == Py_None) return KL_FOREVER;
  double seconds = PyFloat_AsDouble(timeout);
  if (!(seconds > 0)) { /* an error as well: it is looked for */
    if (seconds != 0 && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "no time to wait");
    return 0;
  }
  return seconds < 9e9 ? (int64_t)(seconds * 1e9) : KL_FOREVER;
}

/* As PyLong_AsLong, for what C has an int for: -1 and an exception where it is none. */
static int int_of(PyObject *number) {
  long value = PyLong_AsLong(number);
  if (value == (int)value) return (int)value;
  PyErr_SetString(PyExc_OverflowError, "the number is too large");
  return -1;
}

PyObject *kl_failed(int64_t result) {
  errno = (int)-result;
  return PyErr_SetFromErrno(PyExc_OSError);
}

static uint32_t bytes_of(const Py_buffer *view) {
  return view->len > INT32_MAX ? INT32_MAX : (uint32_t)view->len; /* io_uring takes no more at once */
}

int kl_check_open(Calls *self) {
  if (self->ring) return 0;
  PyErr_SetString(PyExc_ValueError, "the ring is closed");
  return -1;
}

int64_t kl_limited(const Calls *self, int64_t timeout_ns) {
  if (!self->max_ns || (timeout_ns != KL_FOREVER && timeout_ns < self->max_ns)) return timeout_ns;
  return self->max_ns;
}

KL_INLINE PyObject *run(Calls *self, const struct kl_operation *operation, int64_t timeout_ns) {
  timeout_ns = kl_limited(self, timeout_ns);
  int result;
  if (UNINTERRUPTED(self, result, kl_run(self->ring, operation, timeout_ns), kl_resume(self->ring),
                    kl_abandon(self->ring)))
    return NULL;
  return result < 0 ? kl_failed(result) : PyLong_FromLong(result);
}

static PyObject *send_bytes(Calls *self, int fd, PyObject *data, int flags, int64_t timeout_ns) {
  Py_buffer view;
  if (kl_check_open(self) || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)) return NULL;
  struct kl_operation operation = {
      .opcode = IORING_OP_SEND, .fd = fd, .addr = (uintptr_t)view.buf, .len = bytes_of(&view),
      .op_flags = (uint32_t)flags | MSG_NOSIGNAL};
  PyObject *sent = run(self, &operation, timeout_ns);
  PyBuffer_Release(&view);
  return sent;
}

static PyObject *recv_bytes(Calls *self, int fd, PyObject *buffer, int flags, int64_t timeout_ns) {
  Py_buffer view;
  if (kl_check_open(self) || PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)) return NULL;
  if (!view.len) { /* recv(2) does not wait for nothing, io_uring would */
    PyBuffer_Release(&view);
    return PyLong_FromLong(0);
  }
  struct kl_operation operation = {
      .opcode = IORING_OP_RECV, .fd = fd, .addr = (uintptr_t)view.buf, .len = bytes_of(&view),
      .op_flags = (uint32_t)flags};
  PyObject *received = run(self, &operation, timeout_ns);
  PyBuffer_Release(&view);
  return received;
}

static PyObject *send_record(Calls *self, int fd, PyObject *data, int record_type, int64_t timeout_ns) {
  Py_buffer view;
  if (record_type < 0 || record_type > 255)
    return PyErr_Format(PyExc_ValueError, "no record type: %d", record_type);
  if (kl_check_open(self) || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)) return NULL;
  struct kl_message message;
  kl_message_prepare(&message, view.buf, (size_t)view.len, record_type);
  struct kl_operation operation = {
      .opcode = IORING_OP_SENDMSG, .fd = fd, .addr = (uintptr_t)&message, .len = 1, .op_flags = MSG_NOSIGNAL};
  PyObject *sent = run(self, &operation, timeout_ns);
  PyBuffer_Release(&view);
  return sent;
}

static PyObject *recv_record(Calls *self, int fd, PyObject *buffer, int flags, int64_t timeout_ns) {
  Py_buffer view;
  if (kl_check_open(self) || PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)) return NULL;
  struct kl_message message;
  kl_message_prepare(&message, view.buf, (size_t)view.len, -1);
  struct kl_operation operation = {
      .opcode = IORING_OP_RECVMSG, .fd = fd, .addr = (uintptr_t)&message, .len = 1, .op_flags = (uint32_t)flags};
  PyObject *count = run(self, &operation, timeout_ns);
  PyBuffer_Release(&view);
  return count ? Py_BuildValue("(Ni)", count, kl_message_type(&message)) : NULL;
}

static PyObject *send_many(Calls *self, int fd, PyObject *buffers, int flags, int64_t timeout_ns) {
  if (kl_check_open(self)) return NULL;
  PyObject *items = PySequence_Tuple(buffers);
  if (!items) return NULL;
  Py_ssize_t total;
  int64_t sent = kl_send_items(self, fd, items, flags, timeout_ns, PY_SSIZE_T_MAX, &total);
  Py_DECREF(items);
  return sent < 0 ? NULL : PyLong_FromLongLong(sent);
}

/* The five calls have one shape, so that one table serves the methods and the bound callables. */
typedef PyObject *(*call)(Calls *, int fd, PyObject *, int, int64_t);

static PyObject *method(call function, Calls *self, PyObject *const *args, Py_ssize_t count) {
  if (count != 4) return PyErr_Format(PyExc_TypeError, "expected 4 arguments, not %zd", count);
  int fd = int_of(args[0]), number = int_of(args[2]);
  int64_t timeout_ns = kl_nanoseconds(args[3]);
  return PyErr_Occurred() ? NULL : function(self, fd, args[1], number, timeout_ns);
}

#define METHOD(name)                                                                             \
  static PyObject *name##_method(PyObject *self, PyObject *const *args, Py_ssize_t count) { \
    return method(name, (Calls *)self, args, count);                                        \
  }
METHOD(send_bytes)
METHOD(recv_bytes)
METHOD(send_record)
METHOD(recv_record)
METHOD(send_many)

/* run(opcode, fd, data or None, len, off, op_flags, timeout): any one operation by the fields of its sqe. */
static PyObject *run_any(PyObject *object, PyObject *const *args, Py_ssize_t count) {
  Calls *self = (Calls *)object;
  if (count != 7) return PyErr_Format(PyExc_TypeError, "expected 7 arguments, not %zd", count);
  Py_buffer view = {0};
  struct kl_operation operation = {
      .opcode = int_of(args[0]), .fd = int_of(args[1]),
      .len = (uint32_t)PyLong_AsUnsignedLong(args[3]), .off = PyLong_AsUnsignedLongLong(args[4]),
      .op_flags = (uint32_t)PyLong_AsUnsignedLong(args[5])};
  int64_t timeout_ns = kl_nanoseconds(args[6]);
  if (PyErr_Occurred() || kl_check_open(self)) return NULL;
  if (args[2] != Py_None && PyObject_GetBuffer(args[2], &view, PyBUF_SIMPLE)) return NULL;
  operation.addr = (uintptr_t)view.buf;
  PyObject *result = run(self, &operation, timeout_ns);
  PyBuffer_Release(&view);
  return result;
}

/* Callables with everything but the data in them: built-in functions whose `self` is a Bound. */

typedef struct {
  PyObject_HEAD
  Calls *calls;
  call function;
  const char *name;
  int fd, takes_number; /* the second argument is not optional */
  int64_t timeout_ns;
} Bound;

static PyTypeObject *bound_type;

/* Let Python say which argument was at fault, where one was; else what was raised stands. */
static PyObject *blamed(Bound *self, PyObject *data, PyObject *number) {
  if (PyErr_ExceptionMatches(PyExc_OSError)) return NULL;
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyObject *said = PyObject_CallFunction(self->calls->blame, number ? "siiOO" : "siiO", self->name,
                                         self->calls->ring != NULL, self->fd, data, number);
  if (said) {
    Py_DECREF(said);
    PyErr_Restore(type, value, trace);
  } else {
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
  }
  return NULL;
}

static PyObject *bound_call(PyObject *object, PyObject *const *args, Py_ssize_t given) {
  Bound *self = (Bound *)object;
  if (given < 1 + self->takes_number || given > 2)
    return PyErr_Format(PyExc_TypeError, "expected data and a number, by position, not %zd arguments", given);
  int number = given > 1 ? int_of(args[1]) : 0;
  PyObject *result = NULL;
  if (number != -1 || !PyErr_Occurred())
    result = self->function(self->calls, self->fd, args[0], number, self->timeout_ns);
  return result ? result : blamed(self, args[0], given > 1 ? args[1] : NULL);
}

/* What a bound send_many does, for C: as kl_send_items. */
int64_t kl_send_bound(PyObject *callable, PyObject *items, Py_ssize_t max_bytes, Py_ssize_t *total) {
  PyObject *object = Py_TYPE(callable) == &PyCFunction_Type ? PyCFunction_GetSelf(callable) : NULL;
  Bound *self = (Bound *)object;
  if (!object || Py_TYPE(object) != bound_type || self->function != send_many) {
    PyErr_SetString(PyExc_TypeError, "not a bound send_many");
    return -1;
  }
  if (kl_check_open(self->calls)) return -1;
  return kl_send_items(self->calls, self->fd, items, 0, self->timeout_ns, max_bytes, total);
}

static void bound_free(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  Py_DECREF(((Bound *)self)->calls);
  PyObject_Free(self);
  Py_DECREF(type);
}

static PyType_Slot bound_slots[] = {
    {Py_tp_doc, "The ring, the descriptor and the time-out of a bound call."}, {Py_tp_dealloc, bound_free}, {0, NULL}};

static PyType_Spec bound_spec = {.name = "ktlslab.linux._hot.Bound",
                                 .basicsize = sizeof(Bound),
                                 .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                 .slots = bound_slots};
#define FAST(function) ((PyCFunction)(void (*)(void))(function))

/* bind(name, fd, timeout) */
static PyObject *bind_call(PyObject *object, PyObject *const *args, Py_ssize_t count) {
  static struct {
    PyMethodDef method;
    call function;
    int takes_number;
  } calls[] = {{{"send", FAST(bound_call), METH_FASTCALL, NULL}, send_bytes, 0},
               {{"recv_into", FAST(bound_call), METH_FASTCALL, NULL}, recv_bytes, 0},
               {{"send_record", FAST(bound_call), METH_FASTCALL, NULL}, send_record, 1},
               {{"recv_record", FAST(bound_call), METH_FASTCALL, NULL}, recv_record, 0},
               {{"send_many", FAST(bound_call), METH_FASTCALL, NULL}, send_many, 0}};
  if (count != 3) return PyErr_Format(PyExc_TypeError, "expected a name, a descriptor and a time-out");
  const char *name = PyUnicode_AsUTF8AndSize(args[0], NULL);
  int fd = int_of(args[1]);
  int64_t timeout_ns = kl_nanoseconds(args[2]);
  if (PyErr_Occurred() || kl_check_open((Calls *)object)) return NULL;
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    if (strcmp(name, calls[i].method.ml_name)) continue;
    Bound *bound = PyObject_New(Bound, bound_type);
    if (!bound) return NULL;
    bound->calls = (Calls *)Py_NewRef(object);
    bound->function = calls[i].function;
    bound->name = calls[i].method.ml_name;
    bound->fd = fd;
    bound->takes_number = calls[i].takes_number;
    bound->timeout_ns = timeout_ns;
    PyObject *callable = PyCFunction_NewEx(&calls[i].method, (PyObject *)bound, NULL);
    Py_DECREF(bound);
    return callable;
  }
  return PyErr_Format(PyExc_ValueError, "no call %R", args[0]);
}

/* leave(blame): in a forked process, forget the ring; what this then says is `blame`'s. */
static PyObject *calls_leave(PyObject *object, PyObject *blame) {
  Calls *self = (Calls *)object;
  PyObject *before = self->blame;
  self->ring = NULL;
  self->blame = Py_NewRef(blame);
  Py_DECREF(before);
  Py_RETURN_NONE;
}

/* limit(seconds or None) */
static PyObject *calls_limit(PyObject *object, PyObject *timeout) {
  int64_t timeout_ns = kl_nanoseconds(timeout);
  if (PyErr_Occurred()) return NULL;
  ((Calls *)object)->max_ns = timeout_ns == KL_FOREVER ? 0 : timeout_ns;
  Py_RETURN_NONE;
}

/* After this the ring may be freed. */
static PyObject *calls_close(PyObject *object, PyObject *unused) {
  Calls *self = (Calls *)object;
  if (self->inside) return kl_failed(-EBUSY);
  self->ring = NULL;
  Py_RETURN_NONE;
}

/* Calls(address of the ring, type of the completions: a named tuple of three, blame)

   blame(name, whether the ring is open, descriptor, data, number if one was given) is called where a bound call has
   failed, and raises what is then raised if an argument was at fault. */
static PyObject *calls_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
  unsigned long long address;
  PyTypeObject *completion;
  PyObject *blame;
  if (!PyArg_ParseTuple(args, "KO!O", &address, &PyType_Type, &completion, &blame)) return NULL;
  if (!PyType_IsSubtype(completion, &PyTuple_Type))
    return PyErr_Format(PyExc_TypeError, "a completion has to be a named tuple");
  Calls *self = (Calls *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
  if (!self) return NULL;
  self->ring = (kl_ring *)(uintptr_t)address;
  self->completion = (PyTypeObject *)Py_NewRef((PyObject *)completion);
  self->blame = Py_NewRef(blame);
  self->new_completion = (allocfunc)PyType_GetSlot(completion, Py_tp_alloc);
  return (PyObject *)self;
}

static void calls_free(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  Py_DECREF(((Calls *)self)->completion);
  Py_DECREF(((Calls *)self)->blame);
  ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
  Py_DECREF(type);
}

static PyMethodDef calls_methods[] = {
    {"send", FAST(send_bytes_method), METH_FASTCALL, NULL},
    {"recv_into", FAST(recv_bytes_method), METH_FASTCALL, NULL},
    {"send_record", FAST(send_record_method), METH_FASTCALL, NULL},
    {"recv_record", FAST(recv_record_method), METH_FASTCALL, NULL},
    {"send_many", FAST(send_many_method), METH_FASTCALL, NULL},
    {"run", FAST(run_any), METH_FASTCALL, NULL},
    {"start", FAST(kl_start_all), METH_FASTCALL, NULL},
    {"reap", FAST(kl_reap_all), METH_FASTCALL, NULL},
    {"take", FAST(kl_take), METH_FASTCALL, NULL},
    {"bind", FAST(bind_call), METH_FASTCALL, NULL},
    {"limit", calls_limit, METH_O, NULL},
    {"close", calls_close, METH_NOARGS, NULL},
    {"leave", calls_leave, METH_O, NULL},
    {NULL}};

static PyType_Slot calls_slots[] = {{Py_tp_doc, "A ring's calls, made in C."},
                                    {Py_tp_new, calls_new},
                                    {Py_tp_dealloc, calls_free},
                                    {Py_tp_methods, calls_methods},
                                    {0, NULL}};

static PyType_Spec calls_spec = {.name = "ktlslab.linux._hot.Calls",
                                 .basicsize = sizeof(Calls),
                                 .flags = Py_TPFLAGS_DEFAULT,
                                 .slots = calls_slots};

static PyMethodDef functions[] = {{"pack", FAST(kl_pack), METH_FASTCALL, NULL},
                                  {"pin", FAST(kl_pin), METH_FASTCALL, NULL},
                                  {"total", kl_total, METH_O, NULL},
                                  {"watched", FAST(kl_watched), METH_FASTCALL, NULL},
                                  {NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "ktlslab.linux._hot", .m_size = -1,
                                    .m_doc = "The ring's calls without cffi.", .m_methods = functions};

PyTypeObject *kl_calls_type;

static int add_type(PyObject *module, PyType_Spec *spec) {
  PyObject *type = PyType_FromSpec(spec);
  int failed = !type || PyModule_AddType(module, (PyTypeObject *)type);
  Py_XDECREF(type);
  return failed;
}

PyMODINIT_FUNC PyInit__hot(void) {
  PyObject *made = PyModule_Create(&module);
  kl_calls_type = (PyTypeObject *)PyType_FromSpec(&calls_spec);
  bound_type = (PyTypeObject *)PyType_FromSpec(&bound_spec);
  if (!made || !kl_calls_type || !bound_type || PyModule_AddType(made, kl_calls_type) ||
      add_type(made, &kl_socket_spec) || add_type(made, &kl_tls_spec) ||
      kl_add_streams(made))
    Py_CLEAR(made);
  return made;
}
