/* Many operations in flight, and multishot receives, as Python starts and takes them: the rest of what hot.c describes. */
#include "hot.h"

#include <errno.h>

static PyObject *completed(Calls *self, const struct kl_completion *came) {
  PyObject *completion = self->new_completion(self->completion, 3);
  if (!completion) return NULL;
  PyTuple_SetItem(completion, 0, PyLong_FromUnsignedLongLong(came->token));
  PyTuple_SetItem(completion, 1, PyLong_FromLong(came->res));
  PyTuple_SetItem(completion, 2, PyLong_FromUnsignedLong(came->flags));
  if (PyErr_Occurred()) Py_CLEAR(completion);
  return completion;
}

/* reap(wait_for, timeout, done, held): append what came to the list `done`, and let go in `held` of what is complete. */
PyObject *kl_reap_all(PyObject *object, PyObject *const *args, Py_ssize_t count) {
  Calls *self = (Calls *)object;
  if (count != 4 || !PyList_Check(args[2]) || !PyDict_Check(args[3]))
    return PyErr_Format(PyExc_TypeError, "expected wait_for, timeout, a list and a dict");
  unsigned long wait_for = PyLong_AsUnsignedLong(args[0]);
  int64_t timeout_ns = kl_nanoseconds(args[1]);
  if (PyErr_Occurred() || kl_check_open(self)) return NULL;
  int64_t deadline_ns = kl_deadline(timeout_ns); /* one for all attempts, or signals would put it off for ever */
  int result;
  if (UNINTERRUPTED(self, result, kl_reap(self->ring, (unsigned)wait_for, deadline_ns),
                    kl_reap(self->ring, (unsigned)wait_for, deadline_ns), (void)0))
    return NULL;
  int entered = kl_enter(self->ring);
  if (entered) return kl_failed(entered);
  if (result > (int)kl_reaped_count(self->ring)) result = (int)kl_reaped_count(self->ring);
  Py_ssize_t taken = 0, before = PyList_Size(args[2]);
  for (; taken < result; taken++) {
    PyObject *completion = completed(self, kl_reaped(self->ring) + taken);
    int error = completion ? PyList_Append(args[2], completion) : -1;
    Py_XDECREF(completion);
    if (error) break;
  }
  kl_reaped_drop(self->ring, (unsigned)taken);
  kl_leave(self->ring);
  if (PyErr_Occurred()) return NULL;
  for (Py_ssize_t i = before; i < before + taken && i < PyList_Size(args[2]); i++) {
    PyObject *completion = PyList_GetItem(args[2], i);
    unsigned long flags = PyLong_AsUnsignedLong(PyTuple_GetItem(completion, 2));
    if (!(flags & IORING_CQE_F_MORE) && PyDict_DelItem(args[3], PyTuple_GetItem(completion, 0))) PyErr_Clear();
  }
  return result < 0 ? kl_failed(result == -ETIME ? -ETIMEDOUT : result) : PyLong_FromSsize_t(taken);
}

/* pack(opcode, fd, addr, len, off, op_flags, sqe_flags, buf_index, splice_fd_in, addr3): a struct kl_operation as bytes. */
PyObject *kl_pack(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  if (count != 10) return PyErr_Format(PyExc_TypeError, "expected 10 numbers, not %zd", count);
  long long number[10];
  for (int i = 0; i < 10; i++) {
    number[i] = (long long)PyLong_AsUnsignedLongLongMask(args[i]);
    if (PyErr_Occurred()) return NULL;
  }
  struct kl_operation operation;
  memset(&operation, 0, sizeof operation); /* the padding as well */
  operation.opcode = (int)number[0], operation.fd = (int)number[1], operation.addr = (uint64_t)number[2];
  operation.len = number[3] > INT32_MAX ? INT32_MAX : (uint32_t)number[3], operation.off = (uint64_t)number[4];
  operation.op_flags = (uint32_t)number[5], operation.sqe_flags = (uint8_t)number[6];
  operation.buf_index = (uint16_t)number[7], operation.splice_fd_in = (int32_t)number[8];
  operation.addr3 = (uint64_t)number[9];
  return PyBytes_FromStringAndSize((const char *)&operation, sizeof operation);
}

/* total(buffers): the bytes of all in a list or tuple. The length of an array or of a cast view counts its items. */
PyObject *kl_total(PyObject *module, PyObject *buffers) {
  Py_ssize_t count = PySequence_Size(buffers), total = 0;
  for (Py_ssize_t i = 0; i < count; i++) {
    PyObject *item = PySequence_GetItem(buffers, i);
    Py_buffer view;
    int error = !item || PyObject_GetBuffer(item, &view, PyBUF_SIMPLE);
    Py_XDECREF(item);
    if (error) return NULL;
    total += view.len;
    PyBuffer_Release(&view);
  }
  return count < 0 ? NULL : PyLong_FromSsize_t(total);
}

static void unpin(PyObject *capsule) {
  Py_buffer *view = PyCapsule_GetPointer(capsule, NULL);
  PyBuffer_Release(view);
  PyMem_Free(view);
}

/* pin(buffer, writable): (what holds it until it is freed, address, bytes). A capsule, which the garbage collector does not
   enter: it would clear a memoryview that is exported from within the same cycle (../views.py). */
PyObject *kl_pin(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  if (count != 2) return PyErr_Format(PyExc_TypeError, "expected a buffer and whether it is written to");
  Py_buffer *view = PyMem_Malloc(sizeof *view);
  if (!view) return PyErr_NoMemory();
  if (PyObject_GetBuffer(args[0], view, args[1] == Py_True ? PyBUF_WRITABLE : PyBUF_SIMPLE)) {
    PyMem_Free(view);
    return NULL;
  }
  PyObject *capsule = PyCapsule_New(view, NULL, unpin);
  if (!capsule) {
    PyBuffer_Release(view);
    PyMem_Free(view);
    return NULL;
  }
  return Py_BuildValue("(NKn)", capsule, (unsigned long long)(uintptr_t)view->buf, view->len);
}

/* start(operations, held): put them in flight, each by its `packed`; the tokens. What is in flight is in the dict `held`
   even where an error is raised. */
PyObject *kl_start_all(PyObject *object, PyObject *const *args, Py_ssize_t count) {
  Calls *self = (Calls *)object;
  if (count != 2 || !PyTuple_Check(args[0]) || !PyDict_Check(args[1]))
    return PyErr_Format(PyExc_TypeError, "expected a tuple of operations and a dict");
  if (kl_check_open(self)) return NULL;
  Py_ssize_t size = PyTuple_Size(args[0]);
  struct kl_operation few[16], *operations = size > 16 ? PyMem_New(struct kl_operation, (size_t)size) : few;
  if (!operations) return PyErr_NoMemory();
  static PyObject *packed_name;
  if (!packed_name && !(packed_name = PyUnicode_InternFromString("packed"))) return NULL;
  PyObject *tokens = PyList_New(0);
  for (Py_ssize_t i = 0; tokens && i < size; i++) {
    PyObject *packed = PyObject_GetAttr(PyTuple_GetItem(args[0], i), packed_name);
    if (!packed || !PyBytes_Check(packed) || PyBytes_Size(packed) != sizeof *operations) {
      if (packed) PyErr_SetString(PyExc_TypeError, "not an operation");
      Py_CLEAR(tokens);
    } else {
      memcpy(&operations[i], PyBytes_AsString(packed), sizeof *operations);
    }
    Py_XDECREF(packed);
  }
  if (!tokens) goto done;
  int result;
  self->inside++;
  Py_BEGIN_ALLOW_THREADS /* a submission may take long: the kernel does what it can at once */
  result = kl_start(self->ring, operations, (unsigned)size);
  Py_END_ALLOW_THREADS
  self->inside--;
  for (Py_ssize_t i = 0; i < size && operations[i].token; i++) {
    PyObject *token = PyLong_FromUnsignedLongLong(operations[i].token);
    if (!token || PyDict_SetItem(args[1], token, PyTuple_GetItem(args[0], i)) || PyList_Append(tokens, token))
      Py_FatalError("no memory left to hold what the kernel works on"); /* going on would corrupt it */
    Py_DECREF(token);
  }
  if (result < 0) {
    Py_CLEAR(tokens);
    kl_failed(result);
  }
done:
  if (operations != few) PyMem_Free(operations);
  return tokens;
}

/* Send what is in a list or tuple: how many bytes were sent, and what `total` they are; or -1 and an exception.
   KL_TOO_LONG, and nothing was sent, where one has more than `max_bytes`. */
int64_t kl_send_items(Calls *self, int fd, PyObject *items, int flags, int64_t timeout_ns, Py_ssize_t max_bytes,
                      Py_ssize_t *total) {
  Py_ssize_t count = PySequence_Size(items), held = 0;
  Py_buffer few_views[16], *views = count > 16 ? PyMem_New(Py_buffer, (size_t)count) : few_views;
  struct iovec few_parts[16], *parts = count > 16 ? PyMem_New(struct iovec, (size_t)count) : few_parts;
  int64_t sent = -1;
  *total = 0;
  if (!views || !parts) {
    PyErr_NoMemory();
    goto done;
  }
  struct kl_batch batch;
  batch.fd = fd, batch.flags = (uint32_t)flags, batch.timeout_ns = kl_limited(self, timeout_ns), batch.parts = parts;
  batch.count = batch.next = batch.chain = 0;
  batch.offset = 0, batch.sent = 0;
  for (; held < count; held++) {
    PyObject *item = PyList_Check(items) ? PyList_GetItem(items, held) : PyTuple_GetItem(items, held);
    if (!item) goto done; /* of a list that became shorter */
    Py_INCREF(item);
    int error = PyObject_GetBuffer(item, &views[held], PyBUF_SIMPLE);
    Py_DECREF(item);
    if (error) goto done;
    Py_ssize_t bytes = views[held].len;
    if (bytes) parts[batch.count++] = (struct iovec){views[held].buf, (size_t)bytes};
    *total += bytes;
    if (bytes > max_bytes) {
      held++;
      sent = KL_TOO_LONG;
      goto done;
    }
  }
  if (kl_check_open(self)) goto done; /* a buffer's own code may have closed it */
  if (UNINTERRUPTED(self, sent, kl_send_many(self->ring, &batch), kl_send_many(self->ring, &batch),
                    kl_abandon(self->ring))) {
    sent = -1;
  } else if (sent < 0) {
    kl_failed(sent);
    sent = -1;
  }
done:
  while (held) PyBuffer_Release(&views[--held]);
  if (views != few_views) PyMem_Free(views);
  if (parts != few_parts) PyMem_Free(parts);
  return sent;
}

/* Append what has come to the list `out` as (record type or -1, bytes): how many, or -1 with an exception. */
static Py_ssize_t take_pieces(kl_ring *ring, kl_multishot *shot, PyObject *out) {
  struct kl_piece piece;
  Py_ssize_t taken = 0;
  int got;
  while ((got = kl_multishot_next(ring, shot, &piece)) > 0) {
    PyObject *pair = Py_BuildValue("(iy#)", piece.record_type, piece.data, (Py_ssize_t)piece.length);
    int error = pair ? PyList_Append(out, pair) : -1;
    Py_XDECREF(pair);
    kl_multishot_done(shot, &piece);
    if (error) return -1;
    taken++;
  }
  if (got < 0 && !taken) {
    kl_failed(got);
    return -1;
  }
  return taken;
}

/* take(multishot's address, wait, timeout, out): wait until something has come, append all of it; whether it has ended. */
PyObject *kl_take(PyObject *object, PyObject *const *args, Py_ssize_t count) {
  Calls *self = (Calls *)object;
  if (count != 4 || !PyList_Check(args[3])) return PyErr_Format(PyExc_TypeError, "expected three values and a list");
  kl_multishot *shot = PyLong_AsVoidPtr(args[0]);
  int wait = PyObject_IsTrue(args[1]);
  int64_t timeout_ns = kl_nanoseconds(args[2]);
  if (PyErr_Occurred() || kl_check_open(self)) return NULL;
  Py_ssize_t taken = take_pieces(self->ring, shot, args[3]);
  if (!taken && !kl_multishot_ended(shot)) {
    int64_t deadline_ns = wait ? kl_deadline(timeout_ns) : 0;
    do {
      int result;
      kl_multishot_use(shot, 1);
      int raised = UNINTERRUPTED(
          self, result,
          wait ? kl_multishot_wait(self->ring, shot, deadline_ns) : kl_multishot_poll(self->ring, shot),
          kl_multishot_wait(self->ring, shot, deadline_ns), (void)0);
      kl_multishot_use(shot, -1);
      if (raised) return NULL;
      if (result < 0) return kl_failed(result);
      taken = take_pieces(self->ring, shot, args[3]);
    } while (!taken && wait && !kl_multishot_ended(shot));
  }
  return taken < 0 ? NULL : PyBool_FromLong(kl_multishot_ended(shot));
}
