/* Many sends on one socket with one submission.
 *
 * They are linked, so each begins when the one before is done. A chain has to break where one comes out short, else the
 * next would leave a gap in the stream; but io_uring takes a short send for a success unless it has MSG_WAITALL, and
 * kTLS refuses that flag. A short write(2), though, breaks the chain: io_uring_enter(2), IOSQE_IO_LINK. So these are
 * writes, and what a broken chain left is sent by the next one, from the byte where it stopped. A write has no
 * MSG_NOSIGNAL; Python ignores SIGPIPE. A write has no flags either: sends with some go one after the other.
 */
#include "batch.h"
#include "inside.h"

#include <errno.h>

static size_t left_of(const struct kl_batch *batch, unsigned part) {
  return batch->parts[part].iov_len - (part == batch->next ? batch->offset : 0);
}

static int begin_chain(kl_ring *ring, struct kl_batch *batch) {
  unsigned longest = batch->flags ? 1 : ring->uring.sq.ring_entries;
  if (longest > KL_CHAIN) longest = KL_CHAIN;
  unsigned left = batch->count - batch->next;
  unsigned length = left < longest ? left : longest;
  int error = kl_make_room(ring, length);
  if (error) return error;
  uint64_t first = ring->last_token + 1;
  for (unsigned i = 0; i < length; i++) {
    unsigned part = batch->next + i;
    size_t bytes = left_of(batch, part);
    struct kl_operation operation = {
        .opcode = batch->flags ? IORING_OP_SEND : IORING_OP_WRITE,
        .fd = batch->fd,
        .addr = (uint64_t)(uintptr_t)batch->parts[part].iov_base + (part == batch->next ? batch->offset : 0),
        .len = bytes > INT32_MAX ? INT32_MAX : (uint32_t)bytes,
        .op_flags = batch->flags ? batch->flags | MSG_NOSIGNAL : 0,
        .sqe_flags = i + 1 < length ? IOSQE_IO_LINK : 0,
    };
    if ((error = kl_fill(ring, &operation))) return error;
  }
  batch->chain = length;
  kl_run_begin(ring, first, length, batch->results);
  return 0;
}

/* Count what a chain sent, up to where it broke: 0, or the result of the operation that broke it. */
static int end_chain(struct kl_batch *batch) {
  unsigned length = batch->chain;
  batch->chain = 0;
  for (unsigned i = 0; i < length; i++) {
    int32_t result = batch->results[i];
    if (result < 0) return result;
    batch->sent += result;
    if ((size_t)result < left_of(batch, batch->next)) {
      batch->offset += (size_t)result;
      return 0;
    }
    batch->next++;
    batch->offset = 0;
  }
  return 0;
}

/* Send all parts, none of which is empty. Begins, or after KL_INTERRUPTED goes on. Returns how many bytes went, fewer than
   there are only where the socket failed or no byte moved in time; -ETIMEDOUT or -errno where none went at all. */
int64_t kl_send_many(kl_ring *ring, struct kl_batch *batch) {
  int error = 0;
  if (batch->chain) kl_reenter(ring);
  else if ((error = kl_enter(ring))) return error;
  while (!error && batch->next < batch->count) {
    int64_t before = batch->sent;
    int done = 0;
    if (!batch->chain) {
      error = begin_chain(ring, batch);
      done = !error && kl_run_now(ring);
      if (!done) ring->deadline_ns = kl_deadline(batch->timeout_ns);
    }
    if (!error && !done) error = kl_run_wait(ring);
    if (error == KL_INTERRUPTED) break;
    int broke = end_chain(batch);
    if (error) break; /* the ring's own, not the socket's */
    int cancelled = broke == -ECANCELED || broke == -EINTR;
    if (broke && !cancelled) error = broke;
    else if (batch->sent == before) error = cancelled ? -ETIMEDOUT : -EIO;
  }
  kl_leave(ring);
  if (error == KL_INTERRUPTED) return error;
  return error && !batch->sent ? error : batch->sent;
}
