/* What a stream's user calls once per operation: in Python bytecode it would cost more than io_uring's system call.
 *
 * `Flow` is the part of a stream's state that every operation reads and writes; stages/transfer/condition.py inherits from
 * it. `Stream` has the calls; the class of that name in stages/transfer/stream.py inherits from it, and does what is rare:
 *   _send_on(data, more, sent, error)   a send that is not one push, or whose push sent a part or failed
 *   _send_many_on(buffers, sent, began, error)   many sends that are not one submission, or of which it sent a part or failed
 *   _recv_on(buffer, count, error)      a receive that got nothing, or failed
 *   _fill(buffer, have, got, began, error)   a receive of all that takes long, whose last one got nothing, or failed
 *   _look()                             the count of receives is used up
 */
#include "hot.h"

#include <math.h>
#include <netinet/tcp.h>
#include <structmember.h>

typedef struct {
  PyObject_HEAD
  PyObject *push, *pull;
  PyObject *push_many; /* a ring's bound send_many, or NULL or None */
  PyObject *watched; /* the arguments of kl_watched, the first one as a call; or NULL, if Python is to check up */
  Py_ssize_t until_check_up, until_look, record_bytes;
  Py_ssize_t check_every, free_records; /* that one key may protect before Python has to care */
  double fill_s; /* for so long a receive of all need not look at how long its waits are: see stages/bound.py */
  char unconfirmed;
} Flow;

typedef struct {
  PyObject_HEAD
  Flow *flow;
} Stream;

static PyTypeObject *flow_type;

/* Call with one argument. The compiled part's own calls are made without the detour that the limited API forces. */
static PyObject *call(PyObject *callable, PyObject *argument) {
  PyObject *answer;
  Py_INCREF(callable); /* which may be replaced meanwhile */
  int flags = Py_TYPE(callable) == &PyCFunction_Type ? PyCFunction_GetFlags(callable) : 0;
  if (flags == METH_FASTCALL) {
    typedef PyObject *(*fast)(PyObject *, PyObject *const *, Py_ssize_t);
    answer = ((fast)(void (*)(void))PyCFunction_GetFunction(callable))(PyCFunction_GetSelf(callable), &argument, 1);
  } else if (flags == METH_O) {
    answer = PyCFunction_GetFunction(callable)(PyCFunction_GetSelf(callable), argument);
  } else {
    answer = PyObject_CallFunctionObjArgs(callable, argument, NULL);
  }
  Py_DECREF(callable);
  return answer;
}

/* Call `pull` or `push`: how many bytes it moved, or -1 and an exception. A signal's handler runs now: if it ran once the
   call is over, what it raises would look like the call's, and the stream would not know that bytes are lost. */
static Py_ssize_t moved(PyObject *callable, PyObject *buffer) {
  if (!callable) {
    PyErr_SetString(PyExc_ValueError, "no session");
    return -1;
  }
  PyObject *count = call(callable, buffer);
  if (!count) return -1;
  Py_ssize_t bytes = PyLong_AsSsize_t(count);
  Py_DECREF(count);
  return PyErr_CheckSignals() ? -1 : bytes;
}

/* What was raised, which the methods above get as their `error`, or None. */
static PyObject *error_raised(void) {
  PyObject *type, *error, *trace;
  PyErr_Fetch(&type, &error, &trace);
  if (!type) Py_RETURN_NONE;
  PyErr_NormalizeException(&type, &error, &trace);
  if (trace) PyException_SetTraceback(error, trace);
  Py_DECREF(type);
  Py_XDECREF(trace);
  return error;
}

/* The arguments as Python functions of these names take them: 0, or -1 and an exception. */
static int parse(PyObject *const *args, Py_ssize_t given, PyObject *names, const char *format, char **known,
                 PyObject **buffer, PyObject **more) {
  PyObject *plain = PyTuple_New(given), *named = PyDict_New();
  int parsed = plain && named;
  for (Py_ssize_t i = 0; parsed && i < given; i++) PyTuple_SetItem(plain, i, Py_NewRef(args[i]));
  for (Py_ssize_t i = 0; parsed && names && i < PyTuple_Size(names); i++)
    parsed = !PyDict_SetItem(named, PyTuple_GetItem(names, i), args[given + i]);
  parsed = parsed && PyArg_ParseTupleAndKeywords(plain, named, format, known, buffer, more);
  Py_XDECREF(plain); /* the caller still holds what was in them */
  Py_XDECREF(named);
  return parsed ? 0 : -1;
}

/* The check-up of stages/transfer/watch.py before sends of a record each. 0: there is something for Python to do. */
static int checked_up(Flow *flow) {
  int state;
  Py_ssize_t sent, received, more = -1 - flow->until_check_up; /* records than the one that made it due */
  PyObject *with = flow->watched, *fd, *seen;
  if (!with || !PyTuple_Check(with) || PyTuple_Size(with) != 3) return 0;
  if (!flow->push || Py_TYPE(flow->push) != &PyCFunction_Type) return 0; /* it checks something itself */
  fd = PyObject_CallNoArgs(PyTuple_GetItem(with, 0));
  PyObject *const args[] = {fd, PyTuple_GetItem(with, 1), PyTuple_GetItem(with, 2)};
  seen = fd ? kl_watched(NULL, args, 3) : NULL;
  int well = seen && PyArg_ParseTuple(seen, "inn", &state, &sent, &received) &&
             (state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT) && sent < flow->free_records - more &&
             received < flow->free_records;
  Py_XDECREF(fd);
  Py_XDECREF(seen);
  if (!well) {
    PyErr_Clear(); /* Python will see the same */
    return 0;
  }
  flow->until_check_up = flow->check_every;
  flow->unconfirmed = 0;
  return 1;
}

static int ready(const Stream *self) {
  if (!self->flow) PyErr_SetString(PyExc_ValueError, "the stream was not made");
  return self->flow != NULL;
}

static PyObject *stream_send(PyObject *object, PyObject *const *args, Py_ssize_t given, PyObject *names) {
  static char *known[] = {"data", "more", NULL};
  Stream *self = (Stream *)object;
  Flow *flow = self->flow;
  PyObject *data, *more = Py_False;
  if (!ready(self)) return NULL;
  if (given == 1 && !names) data = args[0];
  else if (parse(args, given, names, "O|$O:send", known, &data, &more)) return NULL;
  Py_ssize_t size = PyObject_Size(data), sent = 0;
  int due = --flow->until_check_up < 0;
  if (more == Py_False && size >= 0 && size <= flow->record_bytes && (!due || checked_up(flow)))
    if ((sent = moved(flow->push, data)) == size) {
      flow->unconfirmed = 1;
      Py_RETURN_NONE;
    }
  return PyObject_CallMethod(object, "_send_on", "OOnN", data, more, sent, error_raised());
}

/* Without a time-out nobody reads the clock: that would cost as much as a small record. */
static int64_t began_now(const Flow *flow) { return isinf(flow->fill_s) ? 0 : kl_deadline(0); }

/* `push` is replaced where something has to be looked at first: see stages/transfer/condition.py. */
static int may_push_many(const Flow *flow, PyObject *buffers) {
  return (PyList_Check(buffers) || PyTuple_Check(buffers)) && flow->push && Py_TYPE(flow->push) == &PyCFunction_Type &&
         flow->push_many && flow->push_many != Py_None;
}

static PyObject *stream_send_many(PyObject *object, PyObject *const *args, Py_ssize_t given, PyObject *names) {
  static char *known[] = {"buffers", NULL};
  Stream *self = (Stream *)object;
  Flow *flow = self->flow;
  PyObject *buffers;
  if (!ready(self)) return NULL;
  if (given == 1 && !names) buffers = args[0];
  else if (parse(args, given, names, "O:send_many", known, &buffers, NULL)) return NULL;
  Py_ssize_t total = 0;
  int64_t began_ns = 0, sent = 0;
  if (may_push_many(flow, buffers)) {
    Py_ssize_t records = PySequence_Size(buffers);
    flow->until_check_up -= records;
    if (flow->until_check_up >= 0 || checked_up(flow)) {
      began_ns = began_now(flow);
      PyObject *callable = Py_NewRef(flow->push_many); /* which may be replaced meanwhile */
      sent = kl_send_bound(callable, buffers, flow->record_bytes, &total);
      Py_DECREF(callable);
      if (sent >= 0 && PyErr_CheckSignals()) sent = -1;
      if (sent >= 0 && sent == total) {
        flow->unconfirmed = 1;
        Py_RETURN_NONE;
      }
    }
    if (sent <= 0) flow->until_check_up += records; /* Python counts them */
  }
  return PyObject_CallMethod(object, "_send_many_on", "OndN", buffers, (Py_ssize_t)(sent < 0 ? 0 : sent),
                             (double)began_ns / 1e9, error_raised());
}

static PyObject *buffer_of(PyObject *const *args, Py_ssize_t given, PyObject *names, const char *format) {
  static char *known[] = {"buffer", NULL};
  PyObject *buffer;
  if (given == 1 && !names) return args[0];
  return parse(args, given, names, format, known, &buffer, NULL) ? NULL : buffer;
}

static PyObject *stream_recv_into(PyObject *object, PyObject *const *args, Py_ssize_t given, PyObject *names) {
  Stream *self = (Stream *)object;
  Flow *flow = self->flow;
  PyObject *buffer = buffer_of(args, given, names, "O:recv_into");
  if (!buffer || !ready(self)) return NULL;
  if (--flow->until_look < 0) {
    PyObject *looked = PyObject_CallMethod(object, "_look", NULL);
    if (!looked) return NULL;
    Py_DECREF(looked);
  }
  Py_ssize_t count = moved(flow->pull, buffer);
  if (count <= 0) return PyObject_CallMethod(object, "_recv_on", "OnN", buffer, count, error_raised());
  flow->unconfirmed = 0;
  return PyLong_FromSsize_t(count);
}

/* Release a part of the caller's buffer, unless something still has it: linux/views.py says why. */
static void let_go(PyObject *view) {
  PyObject *type, *error, *trace;
  PyErr_Fetch(&type, &error, &trace);
  PyObject *released = PyObject_CallMethod(view, "release", NULL);
  if (released) Py_DECREF(released);
  else PyErr_Clear();
  Py_DECREF(view);
  PyErr_Restore(type, error, trace);
}

static int in_time(const Flow *flow, int64_t began_ns) {
  return isinf(flow->fill_s) || (double)(kl_deadline(0) - began_ns) < flow->fill_s * 1e9;
}

/* Receive the rest of a buffer that has its first bytes: how many it has then, maybe not all, and maybe an exception.
   `got`: by the last receive. */
static Py_ssize_t filled(Flow *flow, PyObject *buffer, Py_ssize_t have, Py_ssize_t size, Py_ssize_t *got, int64_t began_ns) {
  Py_buffer bytes;
  if (PyObject_GetBuffer(buffer, &bytes, PyBUF_SIMPLE)) return have;
  int counts_bytes = bytes.len == size; /* and not items */
  PyBuffer_Release(&bytes);
  PyObject *whole = counts_bytes ? PyMemoryView_FromObject(buffer) : NULL;
  if (!whole) return have;
  while (have < size && --flow->until_look >= 0 && in_time(flow, began_ns)) {
    PyObject *rest = PySequence_GetSlice(whole, have, size);
    *got = rest ? moved(flow->pull, rest) : -1;
    if (rest) let_go(rest);
    if (*got <= 0) break;
    have += *got;
  }
  let_go(whole);
  return have;
}

static PyObject *stream_recv_exactly_into(PyObject *object, PyObject *const *args, Py_ssize_t given, PyObject *names) {
  Stream *self = (Stream *)object;
  Flow *flow = self->flow;
  PyObject *buffer = buffer_of(args, given, names, "O:recv_exactly_into");
  if (!buffer || !ready(self)) return NULL;
  Py_ssize_t got = moved(flow->pull, buffer), size = got < 0 ? 0 : PyObject_Size(buffer), have = got;
  int64_t began_ns = 0;
  if (0 < have && have < size) {
    began_ns = began_now(flow);
    have = filled(flow, buffer, have, size, &got, began_ns);
  }
  if (have < 0 || have != size)
    return PyObject_CallMethod(object, "_fill", "OnndN", buffer, have < 0 ? 0 : have, got, (double)began_ns / 1e9,
                               error_raised());
  flow->unconfirmed = 0;
  Py_RETURN_NONE;
}

/* Stream(flow) */
static int stream_init(PyObject *object, PyObject *args, PyObject *keywords) {
  PyObject *flow;
  if (!PyArg_ParseTuple(args, "O!", flow_type, &flow)) return -1;
  PyObject *before = (PyObject *)((Stream *)object)->flow;
  ((Stream *)object)->flow = (Flow *)Py_NewRef(flow);
  Py_XDECREF(before);
  return 0;
}

/* Both are in cycles: the flow's calls may be methods of what has the stream. */

static int stream_traverse(PyObject *object, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(((Stream *)object)->flow);
  return 0;
}

static int stream_clear(PyObject *object) {
  Py_CLEAR(((Stream *)object)->flow);
  return 0;
}

static int flow_traverse(PyObject *object, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(((Flow *)object)->push);
  Py_VISIT(((Flow *)object)->pull);
  Py_VISIT(((Flow *)object)->push_many);
  Py_VISIT(((Flow *)object)->watched);
  return 0;
}

static int flow_clear(PyObject *object) {
  Py_CLEAR(((Flow *)object)->push);
  Py_CLEAR(((Flow *)object)->pull);
  Py_CLEAR(((Flow *)object)->push_many);
  Py_CLEAR(((Flow *)object)->watched);
  return 0;
}

static void free_by(PyObject *object, inquiry clear) {
  PyTypeObject *type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  clear(object);
  ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
  Py_DECREF(type);
}

static void stream_free(PyObject *object) { free_by(object, stream_clear); }
static void flow_free(PyObject *object) { free_by(object, flow_clear); }

#define CALL(name) {#name, (PyCFunction)(void (*)(void))stream_##name, METH_FASTCALL | METH_KEYWORDS, name##_doc}

static const char send_doc[] =
    "send($self, data, *, more=False)\n--\n\n"
    "Send all of `data`. With `more` (MSG_MORE), the last record is held back until a send without it.\n\n"
    "Raises StreamClosedError after `close`, after a failure, or once the peer is known to be gone.";
static const char send_many_doc[] =
    "send_many($self, buffers)\n--\n\n"
    "Send buffers in order, each in its own records. With io_uring this takes one submission for all of them.\n\n"
    "Raises what `send` raises.";
static const char recv_into_doc[] =
    "recv_into($self, buffer)\n--\n\n"
    "Receive at least one byte into `buffer` and return how many; 0 only at a clean end.\n\n"
    "Raises TruncatedError, AlertError, KeyUpdateError, StreamError, PeerTimeoutError. Every later call raises the\n"
    "same error again, except after a time-out, when the call can be repeated.";
static const char recv_exactly_into_doc[] =
    "recv_exactly_into($self, buffer)\n--\n\n"
    "Fill all of `buffer`. Raises what `recv_into` raises, and TruncatedError if the stream ends before that.\n\n"
    "After PeerTimeoutError the bytes that came are received next: nothing is lost by trying again.";

static PyMethodDef stream_methods[] = {CALL(send), CALL(send_many), CALL(recv_into), CALL(recv_exactly_into), {NULL}};

static PyType_Slot stream_slots[] = {{Py_tp_doc, "The calls of a stream, made in C."},
                                     {Py_tp_init, stream_init},
                                     {Py_tp_dealloc, stream_free},
                                     {Py_tp_traverse, stream_traverse},
                                     {Py_tp_clear, stream_clear},
                                     {Py_tp_methods, stream_methods},
                                     {0, NULL}};

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC)

static PyType_Spec stream_spec = {
    .name = "ktlslab.linux._hot.Stream", .basicsize = sizeof(Stream), .flags = FLAGS, .slots = stream_slots};

#define MEMBER(name, type) {#name, type, offsetof(Flow, name), 0, NULL}

static PyMemberDef flow_members[] = {MEMBER(push, T_OBJECT_EX),
                                     MEMBER(pull, T_OBJECT_EX),
                                     MEMBER(push_many, T_OBJECT),
                                     MEMBER(watched, T_OBJECT),
                                     MEMBER(until_check_up, T_PYSSIZET),
                                     MEMBER(until_look, T_PYSSIZET),
                                     MEMBER(record_bytes, T_PYSSIZET),
                                     MEMBER(check_every, T_PYSSIZET),
                                     MEMBER(free_records, T_PYSSIZET),
                                     MEMBER(fill_s, T_DOUBLE),
                                     MEMBER(unconfirmed, T_BOOL),
                                     {NULL}};

static PyType_Slot flow_slots[] = {{Py_tp_doc, "What every operation of a stream reads and writes."},
                                   {Py_tp_dealloc, flow_free},
                                   {Py_tp_traverse, flow_traverse},
                                   {Py_tp_clear, flow_clear},
                                   {Py_tp_members, flow_members},
                                   {0, NULL}};

static PyType_Spec flow_spec = {
    .name = "ktlslab.linux._hot.Flow", .basicsize = sizeof(Flow), .flags = FLAGS, .slots = flow_slots};

int kl_add_streams(PyObject *module) {
  flow_type = (PyTypeObject *)PyType_FromSpec(&flow_spec);
  PyObject *stream_type = PyType_FromSpec(&stream_spec);
  int failed = !flow_type || !stream_type || PyModule_AddType(module, flow_type) ||
               PyModule_AddType(module, (PyTypeObject *)stream_type);
  Py_XDECREF(stream_type);
  return failed;
}
