/* What the files of the ring share among themselves; ring.h is what they give to others. */
#ifndef KTLSLAB_INSIDE_H
#define KTLSLAB_INSIDE_H

#include "ring.h"

#include <errno.h>

/* Completions that wait for their taker, oldest first. */
struct kl_queue {
  struct kl_completion *items;
  unsigned count, room;
};

struct kl_multishot {
  struct kl_multishot *next;
  struct kl_queue queue;
  struct kl_buffers *buffers;
  struct msghdr header;
  uint64_t token;
  int fd, with_type;
  int armed;      /* its last completion has not been taken from the queue */
  unsigned taken; /* since it was armed */
  int stopped, ended, error;
  int users; /* who wait for it: it must not be freed under them */
};

struct kl_ring {
  struct io_uring uring;
  uint64_t last_token;
  int busy;
  /* What is waited for: operations with consecutive tokens, and where their results go. */
  uint64_t running; /* the first one's token, or 0 */
  unsigned running_count, running_left;
  int32_t *results, result;
  int64_t deadline_ns;
  int cancel_missed;     /* a request to cancel met nothing */
  struct kl_queue aside; /* of operations begun with kl_start */
  struct kl_multishot *multishots;
};

/* The result of an operation whose completion has not come. */
#define KL_PENDING INT32_MIN

void kl_reenter(kl_ring *ring); /* by the one whose operation runs */
int kl_make_room(kl_ring *ring, unsigned needed);
int kl_pump(kl_ring *ring); /* sort every completion that is there: 0 or -errno */
int kl_submit_and_wait(kl_ring *ring, unsigned wait_for, int64_t deadline_ns);
unsigned kl_take_back(kl_ring *ring); /* what a failed submission left: how many operations */
void kl_request_cancel(kl_ring *ring, uint64_t token);
int kl_run_now(kl_ring *ring);
int kl_run_wait(kl_ring *ring);
int kl_run_filled(kl_ring *ring, int sends, int64_t timeout_ns);

/* What every operation pays for. Its caller knows most fields of the operation when it is compiled: here they cost nothing. */
#define KL_INLINE static inline __attribute__((always_inline))

KL_INLINE int kl_try_lock(kl_ring *ring) { return !__atomic_exchange_n(&ring->busy, 1, __ATOMIC_ACQUIRE); }
KL_INLINE void kl_leave(kl_ring *ring) { __atomic_store_n(&ring->busy, 0, __ATOMIC_RELEASE); }

/* What these functions do themselves; others between whose calls no one else may come in: 0, or -EBUSY. */
KL_INLINE int kl_enter(kl_ring *ring) {
  if (!kl_try_lock(ring)) return -EBUSY;
  if (!ring->running) return 0;
  kl_leave(ring);
  return -EBUSY;
}

KL_INLINE int kl_fill(kl_ring *ring, const struct kl_operation *o) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
  if (!sqe) {
    int error = kl_make_room(ring, 1);
    if (error) return error;
    if (!(sqe = io_uring_get_sqe(&ring->uring))) return -EBUSY; /* for the compiler: there is room */
  }
  *sqe = (struct io_uring_sqe){.opcode = (uint8_t)o->opcode, .flags = o->sqe_flags, .ioprio = o->ioprio, .fd = o->fd,
                               .off = o->off, .addr = o->addr, .len = o->len, .rw_flags = (int)o->op_flags,
                               .user_data = ++ring->last_token, .buf_index = o->buf_index,
                               .splice_fd_in = o->splice_fd_in, .addr3 = o->addr3};
  return 0;
}

/* The operations just filled are what runs; then kl_run_now, or the deadline is set and kl_run_wait called. */
KL_INLINE void kl_run_begin(kl_ring *ring, uint64_t first, unsigned count, int32_t *results) {
  for (unsigned i = 0; i < count; i++) results[i] = KL_PENDING;
  ring->running = first;
  ring->running_count = ring->running_left = count;
  ring->results = results;
}

/* One operation from preparation to completion. Returns the completion's res, -ETIMEDOUT, or KL_INTERRUPTED. */
KL_INLINE int kl_run(kl_ring *ring, const struct kl_operation *operation, int64_t timeout_ns) {
  int result = kl_enter(ring);
  if (result) return result;
  if (!(result = kl_fill(ring, operation))) {
    kl_run_begin(ring, ring->last_token, 1, &ring->result);
    result = kl_run_filled(ring, operation->opcode == IORING_OP_SEND || operation->opcode == IORING_OP_SENDMSG, timeout_ns);
  }
  kl_leave(ring);
  return result;
}

int kl_queue_push(struct kl_queue *queue, const struct io_uring_cqe *cqe);
void kl_queue_drop(struct kl_queue *queue, unsigned count);

#endif
