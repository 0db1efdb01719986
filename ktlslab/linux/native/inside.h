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
  /* What is waited for: an operation, or a chain of them with consecutive tokens. It is over with the first completion. */
  uint64_t running; /* the first one's token, or 0 */
  unsigned running_count;
  int over;
  unsigned ended;  /* which one completed: those before it did all that they were asked, those after it nothing */
  int32_t result;  /* of that one */
  int64_t timeout_ns, until_ns; /* of the first wait, and of those after it */
  int waited;
  int cancel_missed;     /* a request to cancel met nothing */
  struct kl_queue aside; /* of operations begun with kl_start */
  struct kl_multishot *multishots;
  /* Registered memory for what is small: see kl_stage. */
  char *stage;
  int buffers_taken;
};

#define KL_STAGE_BYTES (1 << 14)
#define KL_STAGED_BYTES (1 << 10) /* for more, a copy costs as much as it saves */

void kl_reenter(kl_ring *ring); /* by the one whose operation runs */
int kl_make_room(kl_ring *ring, unsigned needed);
int kl_pump(kl_ring *ring); /* sort every completion that is there: 0 or -errno */
int kl_submit_and_wait(kl_ring *ring, unsigned wait_for, int64_t deadline_ns);
unsigned kl_take_back(kl_ring *ring); /* what a failed submission left: how many operations */
void kl_request_cancel(kl_ring *ring, uint64_t token);
char *kl_stage(kl_ring *ring);
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

/* The operations just filled are what runs; then kl_run_now, or kl_bound_run and kl_run_wait. Of a chain all but the last
   complete in silence, IOSQE_CQE_SKIP_SUCCESS: one that fails, or the last, completes aloud, and what follows it in silence. */
KL_INLINE void kl_run_begin(kl_ring *ring, uint64_t first, unsigned count) {
  ring->running = first;
  ring->running_count = count;
  ring->over = 0;
  ring->ended = 0;
  ring->result = -ECANCELED; /* where the ring itself fails, that is what became of it */
}

KL_INLINE void kl_end_run(kl_ring *ring, const struct io_uring_cqe *cqe) {
  ring->over = 1;
  ring->ended = (unsigned)(cqe->user_data - ring->running);
  ring->result = cqe->res;
}

/* Bound the wait for what runs. */
KL_INLINE void kl_bound_run(kl_ring *ring, int64_t timeout_ns) {
  ring->timeout_ns = timeout_ns;
  ring->until_ns = kl_deadline_about(timeout_ns);
  ring->waited = 0;
}

/* One operation from preparation to completion. Returns the completion's res, -ETIMEDOUT, or KL_INTERRUPTED. */
KL_INLINE int kl_run(kl_ring *ring, const struct kl_operation *operation, int64_t timeout_ns) {
  int result = kl_enter(ring);
  if (result) return result;
  if (!(result = kl_fill(ring, operation))) {
    kl_run_begin(ring, ring->last_token, 1);
    result = kl_run_filled(ring, operation->opcode == IORING_OP_SEND || operation->opcode == IORING_OP_SENDMSG, timeout_ns);
  }
  kl_leave(ring);
  return result;
}

int kl_queue_push(struct kl_queue *queue, const struct io_uring_cqe *cqe);
void kl_queue_drop(struct kl_queue *queue, unsigned count);

#endif
