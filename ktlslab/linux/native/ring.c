/* io_uring for one thread.
 *
 * Ownership. Between submission and completion the kernel owns an operation's buffers: freeing or moving one is memory
 * corruption, not an error code. kl_run keeps the rule by not coming back before the completion is in hand: when the
 * time is up it cancels the operation and waits for what became of it. The one exception is a signal, which Python must
 * get to see: kl_run then returns KL_INTERRUPTED, and the caller holds on to the buffer until kl_resume (go on waiting) or
 * kl_abandon (cancel, and wait for that) has answered. Operations begun with kl_start belong to the kernel until kl_reap
 * has handed out their last completion.
 *
 * Cost. Python pays some thousand instructions for each call into C, so one call does prepare, submit, wait and reap.
 *
 * Threads. One at a time; a second one that comes in while the first waits gets -EBUSY and harms nothing, and so does a
 * signal's handler that uses the ring whose wait it interrupts.
 */
#include "compat.h"
#include "inside.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

const char *kl_liburing(void) { return KL_LIBURING; }

static int64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

int64_t kl_deadline(int64_t timeout_ns) { return timeout_ns == KL_FOREVER ? KL_FOREVER : now_ns() + timeout_ns; }

int64_t kl_deadline_about(int64_t timeout_ns) {
  return timeout_ns == KL_FOREVER ? KL_FOREVER : clock_ns(CLOCK_MONOTONIC_COARSE) + timeout_ns;
}

/* Whoever else is inside is about to be turned away. */
void kl_reenter(kl_ring *ring) {
  while (!kl_try_lock(ring)) sched_yield();
}

kl_ring *kl_ring_open(unsigned entries, unsigned flags, int *error) {
  kl_ring *ring = calloc(1, sizeof *ring);
  if (!ring) {
    *error = -ENOMEM;
    return NULL;
  }
  *error = io_uring_queue_init(entries, &ring->uring, flags);
  if (*error < 0) {
    free(ring);
    return NULL;
  }
  return ring;
}

void kl_ring_close(kl_ring *ring) {
  io_uring_queue_exit(&ring->uring);
  if (ring->stage) munmap(ring->stage, KL_STAGE_BYTES);
  free(ring->aside.items);
  free(ring);
}

/* In a forked process: take the parent's ring out of this one's memory and descriptors. Nothing is freed, since another
   thread, which did not come along, may have been at work on it. */
void kl_ring_leave(kl_ring *ring) { io_uring_queue_exit(&ring->uring); }

int kl_ring_fd(const kl_ring *ring) { return ring->uring.ring_fd; }

int kl_ring_supports(kl_ring *ring, int opcode) {
  struct io_uring_probe *probe = io_uring_get_probe_ring(&ring->uring);
  if (!probe) return 0;
  int known = io_uring_opcode_supported(probe, opcode);
  io_uring_free_probe(probe);
  return known;
}

/* Completions, sorted to those who wait for them. */

int kl_queue_push(struct kl_queue *queue, const struct io_uring_cqe *cqe) {
  if (queue->count == queue->room) {
    unsigned room = queue->room ? 2 * queue->room : 64;
    struct kl_completion *grown = realloc(queue->items, room * sizeof *grown);
    if (!grown) return -ENOMEM;
    queue->items = grown;
    queue->room = room;
  }
  queue->items[queue->count++] = (struct kl_completion){cqe->user_data, cqe->res, cqe->flags};
  return 0;
}

void kl_queue_drop(struct kl_queue *queue, unsigned count) {
  queue->count -= count;
  memmove(queue->items, queue->items + count, queue->count * sizeof *queue->items);
}

int kl_pump(kl_ring *ring) {
  struct io_uring_cqe *cqe;
  int error = 0;
  while (!error && io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
    uint64_t token = cqe->user_data;
    if (ring->running && token - ring->running < ring->running_count) {
      kl_end_run(ring, cqe);
    } else if (!token) {
      ring->cancel_missed |= cqe->res == -ENOENT || (cqe->res == -EALREADY && ring->running_count > 1);
    } else {
      struct kl_multishot *owner = ring->multishots;
      while (owner && owner->token != token) owner = owner->next;
      error = kl_queue_push(owner ? &owner->queue : &ring->aside, cqe);
    }
    if (!error) io_uring_cqe_seen(&ring->uring, cqe);
    if (ring->running && ring->over) break; /* looking further would cost a call */
  }
  return error;
}

/* Submission. */

/* Operations that belong together must fit before the first is filled in: submitting in between would part them. */
int kl_make_room(kl_ring *ring, unsigned needed) {
  if (io_uring_sq_space_left(&ring->uring) >= needed) return 0;
  int submitted = io_uring_submit(&ring->uring);
  while (submitted >= 0 && io_uring_sq_space_left(&ring->uring) < needed) {
    if (!(ring->uring.flags & IORING_SETUP_SQPOLL)) return -EBUSY;
    sched_yield(); /* the kernel's thread is fetching them */
  }
  return submitted < 0 ? submitted : 0;
}

/* Submit what is prepared and wait for completions: 0, -ETIME, -EINTR or another -errno. */
static int submit_and_wait_for(kl_ring *ring, unsigned wait_for, int64_t timeout_ns) {
  int answer;
  if (timeout_ns == KL_FOREVER) {
    answer = io_uring_submit_and_wait(&ring->uring, wait_for);
  } else {
    struct io_uring_cqe *cqe;
    struct __kernel_timespec wait = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    answer = io_uring_submit_and_wait_timeout(&ring->uring, &cqe, wait_for, &wait, NULL);
  }
  return answer < 0 ? answer : 0;
}

int kl_submit_and_wait(kl_ring *ring, unsigned wait_for, int64_t deadline_ns) {
  int64_t left_ns = deadline_ns == KL_FOREVER ? KL_FOREVER : deadline_ns - now_ns();
  return submit_and_wait_for(ring, wait_for, left_ns < 0 && deadline_ns != KL_FOREVER ? 0 : left_ns);
}

/* Take back what a failed submission left unsubmitted, for its buffers are about to be the caller's again: how many they
   are. A kernel thread that polls the queue (SQPOLL) takes everything. */
unsigned kl_take_back(kl_ring *ring) {
  struct io_uring_sq *sq = &ring->uring.sq;
  if (ring->uring.flags & IORING_SETUP_SQPOLL) return 0;
  unsigned head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
  unsigned left = sq->sqe_tail - head;
  sq->sqe_head = sq->sqe_tail = head;
  __atomic_store_n(sq->ktail, head, __ATOMIC_RELEASE);
  return left;
}

void kl_request_cancel(kl_ring *ring, uint64_t token) {
  struct io_uring_sqe *sqe = kl_make_room(ring, 1) ? NULL : io_uring_get_sqe(&ring->uring);
  if (!sqe) return;
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = IORING_OP_ASYNC_CANCEL;
  sqe->fd = -1;
  sqe->addr = token;
  sqe->user_data = 0;
}

/* One operation, or a chain of them, from submission to completion. */

/* The completions that are there, in a few instructions where that of what runs is the first. */
static int collect(kl_ring *ring) {
  const struct io_uring_cq *queue = &ring->uring.cq;
  unsigned head = *queue->khead;
  if (head != io_uring_smp_load_acquire(queue->ktail)) {
    const struct io_uring_cqe *cqe = &queue->cqes[head & queue->ring_mask];
    if (cqe->user_data - ring->running < ring->running_count) {
      kl_end_run(ring, cqe);
      io_uring_smp_store_release(queue->khead, head + 1);
      return 0;
    }
  }
  return kl_pump(ring);
}

/* Submit, and see whether that was all: 1 where the result is in. Sends mostly are done at once, and a wait with a bound
   costs a timer and a copy into the kernel; receives mostly wait, and would pay a second system call. Where work is put off to
   the wait, or another thread's, it is never so. */
int kl_run_now(kl_ring *ring) {
  if (ring->uring.flags & (IORING_SETUP_SQPOLL | IORING_SETUP_DEFER_TASKRUN)) return 0;
  if (io_uring_submit(&ring->uring) < 0 || collect(ring) || !ring->over) return 0;
  ring->running = 0;
  return 1;
}

/* Cancel what runs and wait, however often a signal comes, for what became of it. Each of a chain in turn, again and again:
   those that are done and those that have not begun cannot be found, and one that was about to be done lets the next begin. */
static int cancel_running(kl_ring *ring) {
  ring->cancel_missed = 1;
  for (unsigned next = 0; !ring->over;) {
    if (ring->cancel_missed) kl_request_cancel(ring, ring->running + next++ % ring->running_count);
    ring->cancel_missed = 0;
    int error = kl_submit_and_wait(ring, 1, KL_FOREVER);
    int pumped = kl_pump(ring);
    if ((error && error != -EINTR) || pumped) return error ? error : pumped;
  }
  return 0;
}

/* 0 when the result is in, or when the time was up and what ran is cancelled; KL_INTERRUPTED; -errno. The first wait is as
   long as it was asked for. One that is cut short goes on until a time taken from the coarse clock. */
int kl_run_wait(kl_ring *ring) {
  int error = ring->waited ? kl_submit_and_wait(ring, 1, ring->until_ns) : submit_and_wait_for(ring, 1, ring->timeout_ns);
  int pumped = collect(ring);
  if (ring->over) {
    ring->running = 0;
    return 0;
  }
  if (pumped) error = pumped;
  /* io_uring_enter(2) that submitted something tells of that, not of the signal or the time-out which ended its wait: coming
     back with less is taken for a signal. Where it was the time-out, or another operation's completion, the caller just
     resumes, and what is left of the time tells. */
  if (!error || error == -EINTR) {
    ring->waited = 1;
    return KL_INTERRUPTED;
  }
  /* A chain is taken back whole: only where no memory is left for a request does the kernel take a part of what it is given. */
  if (error != -ETIME && kl_take_back(ring)) ring->over = 1, ring->ended = 0, ring->result = -ECANCELED;
  int cancelled = cancel_running(ring);
  ring->running = 0;
  return error == -ETIME ? cancelled : error;
}

static int run_result(kl_ring *ring) {
  int error = kl_run_wait(ring);
  if (error) return error;
  /* It may have ended while it was being cancelled: then that is the answer, and no byte is lost. */
  return ring->result == -ECANCELED || ring->result == -EINTR ? -ETIMEDOUT : ring->result;
}

/* What is filled in, to its completion. */
int kl_run_filled(kl_ring *ring, int sends, int64_t timeout_ns) {
  if (sends && kl_run_now(ring)) return ring->result;
  kl_bound_run(ring, timeout_ns);
  return run_result(ring);
}

/* Go on after KL_INTERRUPTED. */
int kl_resume(kl_ring *ring) {
  kl_reenter(ring);
  int res = run_result(ring);
  kl_leave(ring);
  return res;
}

/* Give up after KL_INTERRUPTED. */
void kl_abandon(kl_ring *ring) {
  kl_reenter(ring);
  cancel_running(ring);
  ring->running = 0;
  kl_leave(ring);
}

/* Many in flight. */

/* How many operations the chain that begins here has: only those that are submitted together are linked. */
static unsigned chain_length(const struct kl_operation *operations, unsigned count) {
  unsigned length = 1;
  while (length < count && operations[length - 1].sqe_flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK)) length++;
  return length;
}

/* Put operations in flight, in this order, with one submission where they fit. Each that is in flight
   has its token, even after an error; -E2BIG, and nothing has begun, where a chain is longer than the ring. */
int kl_start(kl_ring *ring, struct kl_operation *operations, unsigned count) {
  int res = kl_enter(ring);
  if (res) return res;
  unsigned filled = 0;
  for (unsigned i = 0, length; i < count && !res; i += length) {
    length = chain_length(operations + i, count - i);
    if (length > ring->uring.sq.ring_entries) res = -E2BIG;
  }
  for (unsigned i = 0, chain_end = 0; i < count && !res; i++) {
    if (i == chain_end) {
      chain_end += chain_length(operations + i, count - i);
      if ((res = kl_make_room(ring, chain_end - i))) break;
    }
    if ((res = kl_fill(ring, &operations[i]))) break;
    operations[i].token = ring->last_token;
    filled = i + 1;
  }
  if (!res) res = io_uring_submit(&ring->uring);
  if (res < 0)
    for (unsigned left = kl_take_back(ring); left && filled; left--) operations[--filled].token = 0;
  kl_leave(ring);
  return res < 0 ? res : 0;
}

/* Wait for up to `wait_for` completions of started operations: how many there are now (read them from kl_reaped,
   between kl_enter and kl_leave), -ETIME,
   KL_INTERRUPTED, -errno. What is in hand is never hidden by an error that comes again at the next call. */
int kl_reap(kl_ring *ring, unsigned wait_for, int64_t deadline_ns) {
  int res = kl_enter(ring);
  if (res) return res;
  res = kl_pump(ring);
  if (!res && ring->aside.count < wait_for) {
    res = kl_submit_and_wait(ring, wait_for - ring->aside.count, deadline_ns);
    int pumped = kl_pump(ring);
    if (!res || res == -EINTR) res = pumped ? pumped : KL_INTERRUPTED; /* as in kl_run_wait */
  }
  if (ring->aside.count || !wait_for) res = (int)ring->aside.count;
  kl_leave(ring);
  return res;
}

unsigned kl_reaped_count(const kl_ring *ring) { return ring->aside.count; }
const struct kl_completion *kl_reaped(const kl_ring *ring) { return ring->aside.items; }
void kl_reaped_drop(kl_ring *ring, unsigned count) { kl_queue_drop(&ring->aside, count); }

int kl_cancel(kl_ring *ring, uint64_t token) {
  int res = kl_enter(ring);
  if (res) return res;
  kl_request_cancel(ring, token);
  res = io_uring_submit(&ring->uring);
  kl_leave(ring);
  return res < 0 ? res : 0;
}

int kl_register_files(kl_ring *ring, const int *fds, unsigned count) {
  int res = kl_enter(ring);
  if (res) return res;
  res = fds ? io_uring_register_files(&ring->uring, fds, count) : io_uring_unregister_files(&ring->uring);
  kl_leave(ring);
  return res;
}

/* KL_STAGE_BYTES of memory registered as buffer 0, for one chain at a time; NULL where the caller has registered buffers of
   their own, or the kernel allows no more memory to be locked. A forked process does not get it: the kernel would go on with
   pages that are this process's no more. */
char *kl_stage(kl_ring *ring) {
  if (ring->buffers_taken) return ring->stage;
  ring->buffers_taken = 1;
  void *room = mmap(NULL, KL_STAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return NULL;
  const struct iovec all = {room, KL_STAGE_BYTES};
  if (madvise(room, KL_STAGE_BYTES, MADV_DONTFORK) || io_uring_register_buffers(&ring->uring, &all, 1))
    munmap(room, KL_STAGE_BYTES);
  else
    ring->stage = room;
  return ring->stage;
}

/* `in_flight`: whether some operation is. Older kernels wait for those with a registered file before they let memory go. */
int kl_register_buffers(kl_ring *ring, const struct iovec *buffers, unsigned count, int in_flight) {
  int res = kl_enter(ring);
  if (!res && ring->stage && in_flight) kl_leave(ring), res = -EBUSY;
  if (res) return res;
  if (!buffers || ring->stage) res = io_uring_unregister_buffers(&ring->uring);
  if (ring->stage) munmap(ring->stage, KL_STAGE_BYTES);
  ring->stage = NULL;
  ring->buffers_taken = buffers != NULL;
  if (buffers && !res) res = io_uring_register_buffers(&ring->uring, buffers, count);
  kl_leave(ring);
  return res;
}
