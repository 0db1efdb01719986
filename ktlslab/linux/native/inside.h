/* What the files of the ring share among themselves; ring.h is what they give to others. */
#ifndef KTLSLAB_INSIDE_H
#define KTLSLAB_INSIDE_H

#include "ring.h"

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
int kl_fill(kl_ring *ring, const struct kl_operation *operation);
int kl_pump(kl_ring *ring); /* sort every completion that is there: 0 or -errno */
int kl_submit_and_wait(kl_ring *ring, unsigned wait_for, int64_t deadline_ns);
unsigned kl_take_back(kl_ring *ring); /* what a failed submission left: how many operations */
void kl_request_cancel(kl_ring *ring, uint64_t token);
/* The operations just filled are what runs; then kl_run_now, or the deadline is set and kl_run_wait called. */
void kl_run_begin(kl_ring *ring, uint64_t first, unsigned count, int32_t *results);
int kl_run_now(kl_ring *ring);
int kl_run_wait(kl_ring *ring);

int kl_queue_push(struct kl_queue *queue, const struct io_uring_cqe *cqe);
void kl_queue_drop(struct kl_queue *queue, unsigned count);

#endif
