/* Many sends on one socket with one submission.
 *
 * They are linked, so each begins when the one before is done. A chain has to break where one comes out short, else the
 * next would leave a gap in the stream; but io_uring takes a short send for a success unless it has MSG_WAITALL, and
 * kTLS refuses that flag. A short write(2), though, breaks the chain: io_uring_enter(2), IOSQE_IO_LINK. So these are
 * writes, and what a broken chain left is sent by the next one, from the byte where it stopped. A write has no
 * MSG_NOSIGNAL; Python ignores SIGPIPE. A write has no flags either: sends with some go one after the other.
 *
 * What is small is copied into memory that is registered with the ring: the kernel then need not find and hold the
 * caller's pages for every write, which costs it more than such a copy. And a chain has one completion, that of its last
 * write or of the one that broke it: IOSQE_CQE_SKIP_SUCCESS. Where the kernel does not know that, chains have one write.
 */
#include "batch.h"
#include "inside.h"

#include <errno.h>
#include <string.h>

#define MAX_WRITE 0x7ffff000u /* the kernel takes no more at once, and calls that all of it */

static size_t left_of(const struct kl_batch *batch, unsigned part) {
  return batch->parts[part].iov_len - (part == batch->next ? batch->offset : 0);
}

static unsigned longest_chain(const kl_ring *ring, const struct kl_batch *batch) {
  unsigned left = batch->count - batch->next, longest = ring->uring.sq.ring_entries;
  if (longest > KL_CHAIN) longest = KL_CHAIN;
  if (batch->flags || !(ring->uring.features & IORING_FEAT_CQE_SKIP)) longest = 1;
  return left < longest ? left : longest;
}

static int begin_chain(kl_ring *ring, struct kl_batch *batch) {
  unsigned length = longest_chain(ring, batch), filled = 0;
  int error = kl_make_room(ring, length);
  if (error) return error;
  uint64_t first = ring->last_token + 1;
  char *stage = batch->flags ? NULL : kl_stage(ring), *end = stage + (stage ? KL_STAGE_BYTES : 0);
  for (int last = 0; !last; filled++) {
    unsigned part = batch->next + filled;
    size_t bytes = left_of(batch, part);
    const char *data = (const char *)batch->parts[part].iov_base + (part == batch->next ? batch->offset : 0);
    last = filled + 1 == length || bytes > MAX_WRITE;
    struct kl_operation operation = {
        .opcode = batch->flags ? IORING_OP_SEND : IORING_OP_WRITE,
        .fd = batch->fd,
        .addr = (uintptr_t)data,
        .len = bytes > MAX_WRITE ? MAX_WRITE : (uint32_t)bytes,
        .op_flags = batch->flags ? batch->flags | MSG_NOSIGNAL : 0,
        .sqe_flags = last ? 0 : IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS,
    };
    if (bytes <= KL_STAGED_BYTES && bytes <= (size_t)(end - stage)) {
      operation.opcode = IORING_OP_WRITE_FIXED;
      operation.addr = (uintptr_t)memcpy(stage, data, bytes);
      stage += bytes;
    }
    if ((error = kl_fill(ring, &operation))) return error;
  }
  batch->chain = filled;
  kl_run_begin(ring, first, filled);
  return 0;
}

/* Count what a chain sent, up to where it ended: 0, or the result of the operation that broke it. */
static int end_chain(const kl_ring *ring, struct kl_batch *batch) {
  batch->chain = 0;
  for (unsigned i = 0; i < ring->ended; i++) {
    batch->sent += (int64_t)left_of(batch, batch->next);
    batch->next++;
    batch->offset = 0;
  }
  if (ring->result < 0) return ring->result;
  batch->sent += ring->result;
  batch->offset += (size_t)ring->result;
  if (batch->offset == batch->parts[batch->next].iov_len) {
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
      if (!done) kl_bound_run(ring, batch->timeout_ns);
    }
    if (!error && !done) error = kl_run_wait(ring);
    if (error == KL_INTERRUPTED) break;
    int broke = batch->chain ? end_chain(ring, batch) : 0;
    if (error) break; /* the ring's own, not the socket's */
    int cancelled = broke == -ECANCELED || broke == -EINTR;
    if (broke && !cancelled) error = broke;
    else if (batch->sent == before) error = cancelled ? -ETIMEDOUT : -EIO;
  }
  kl_leave(ring);
  if (error == KL_INTERRUPTED) return error;
  return error && !batch->sent ? error : batch->sent;
}
