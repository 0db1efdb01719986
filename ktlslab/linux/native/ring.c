/* io_uring for one thread.
 *
 * Ownership. Between submission and completion the kernel owns an operation's buffers: freeing or moving one is memory
 * corruption, not an error code. kl_run keeps the rule by not coming back before the completion is in hand: when the
 * time is up it cancels the operation and waits for what became of it. The one exception is a signal, which Python must
 * get to see: kl_run then returns KL_INTERRUPTED, and the caller holds on to the buffer until kl_resume (go on waiting) or
 * kl_abandon (cancel, and wait for that) has answered. Operations begun with kl_start belong to the kernel until kl_reap
 * has handed out their completion.
 *
 * Cost. Python pays some thousand instructions for each call into C, so one call does prepare, submit, wait and reap.
 *
 * Threads. One at a time; a second one that comes in while the first waits gets -EBUSY and harms nothing.
 */
#include "ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct kl_ring {
  struct io_uring uring;
  uint64_t last_token;
  uint64_t running;    /* token of the operation that kl_run waits for, or 0 */
  int64_t deadline_ns; /* of that operation, or KL_FOREVER */
  int busy;
  /* completions of other operations that came in while kl_run waited */
  struct kl_completion *aside;
  unsigned aside_count, aside_room;
};

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int enter(kl_ring *ring) { return __atomic_exchange_n(&ring->busy, 1, __ATOMIC_ACQUIRE) ? -EBUSY : 0; }
static void leave(kl_ring *ring) { __atomic_store_n(&ring->busy, 0, __ATOMIC_RELEASE); }

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
  free(ring->aside);
  free(ring);
}

int kl_ring_fd(const kl_ring *ring) { return ring->uring.ring_fd; }

int kl_ring_supports(kl_ring *ring, int opcode) {
  struct io_uring_probe *probe = io_uring_get_probe_ring(&ring->uring);
  if (!probe) return 0;
  int known = io_uring_opcode_supported(probe, opcode);
  io_uring_free_probe(probe);
  return known;
}

static int fill(kl_ring *ring, int opcode, int fd, uint64_t addr, uint32_t len, uint64_t off, uint32_t op_flags,
                uint8_t sqe_flags) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
  if (!sqe) {
    int submitted = io_uring_submit(&ring->uring);
    if (submitted < 0) return submitted;
    sqe = io_uring_get_sqe(&ring->uring);
    if (!sqe) return -EBUSY;
  }
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = (uint8_t)opcode;
  sqe->flags = sqe_flags;
  sqe->fd = fd;
  sqe->addr = addr;
  sqe->len = len;
  sqe->off = off;
  sqe->rw_flags = (int)op_flags;
  sqe->user_data = ++ring->last_token;
  return 0;
}

static int set_aside(kl_ring *ring, const struct io_uring_cqe *cqe) {
  if (ring->aside_count == ring->aside_room) {
    unsigned room = ring->aside_room ? 2 * ring->aside_room : 64;
    struct kl_completion *grown = realloc(ring->aside, room * sizeof *grown);
    if (!grown) return -ENOMEM;
    ring->aside = grown;
    ring->aside_room = room;
  }
  ring->aside[ring->aside_count++] = (struct kl_completion){cqe->user_data, cqe->res, cqe->flags};
  return 0;
}

/* The completion of `token` if it is in: 1 with *res, else 0. Others are set aside; cancel requests (token 0) dropped. */
static int take(kl_ring *ring, uint64_t token, int *res) {
  struct io_uring_cqe *cqe;
  while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
    if (cqe->user_data == token) {
      *res = cqe->res;
      io_uring_cqe_seen(&ring->uring, cqe);
      return 1;
    }
    if (cqe->user_data) {
      int error = set_aside(ring, cqe);
      if (error) return error;
    }
    io_uring_cqe_seen(&ring->uring, cqe);
  }
  return 0;
}

/* Submit what is prepared and wait for a completion: 0, -ETIME, -EINTR or another -errno. */
static int submit_and_wait(kl_ring *ring, unsigned wait_for, int64_t deadline_ns) {
  int answer;
  if (deadline_ns == KL_FOREVER) {
    answer = io_uring_submit_and_wait(&ring->uring, wait_for);
  } else {
    struct io_uring_cqe *cqe;
    int64_t left = deadline_ns - now_ns();
    if (left < 0) left = 0;
    struct __kernel_timespec wait = {left / 1000000000, left % 1000000000};
    answer = io_uring_submit_and_wait_timeout(&ring->uring, &cqe, wait_for, &wait, NULL);
  }
  return answer < 0 ? answer : 0;
}

static void request_cancel(kl_ring *ring, uint64_t token) {
  struct io_uring_sqe *sqe;
  while (!(sqe = io_uring_get_sqe(&ring->uring))) io_uring_submit(&ring->uring);
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = IORING_OP_ASYNC_CANCEL;
  sqe->fd = -1;
  sqe->addr = token;
  sqe->user_data = 0;
}

/* Cancel the running operation and wait, however often a signal comes, for what became of it. */
static int cancel_running(kl_ring *ring) {
  int res, taken;
  request_cancel(ring, ring->running);
  while (!(taken = take(ring, ring->running, &res))) {
    int error = submit_and_wait(ring, 1, KL_FOREVER);
    if (error && error != -EINTR) return error;
  }
  ring->running = 0;
  return taken < 0 ? taken : res;
}

static int wait_running(kl_ring *ring) {
  int res;
  int error = submit_and_wait(ring, 1, ring->deadline_ns);
  int taken = take(ring, ring->running, &res);
  if (taken) {
    ring->running = 0;
    return taken < 0 ? taken : res;
  }
  /* io_uring_enter(2) that submitted something tells of that, not of the signal which ended its wait: coming back with
     nothing is taken for one. Where it was another operation's completion instead, the caller just resumes. */
  if (!error || error == -EINTR) return KL_INTERRUPTED;
  if (error != -ETIME) return error;
  res = cancel_running(ring);
  /* It may have ended while it was being cancelled: then that is the answer, and no byte is lost. */
  return res == -ECANCELED || res == -EINTR ? -ETIMEDOUT : res;
}

/* One operation from preparation to completion. Returns the completion's res, -ETIMEDOUT, or KL_INTERRUPTED. */
int kl_run(kl_ring *ring, int opcode, int fd, const void *addr, uint32_t len, uint64_t off, uint32_t op_flags,
           int64_t timeout_ns) {
  int res = enter(ring);
  if (res) return res;
  res = fill(ring, opcode, fd, (uint64_t)(uintptr_t)addr, len, off, op_flags, 0);
  if (!res) {
    ring->running = ring->last_token;
    ring->deadline_ns = timeout_ns == KL_FOREVER ? KL_FOREVER : now_ns() + timeout_ns;
    res = wait_running(ring);
  }
  leave(ring);
  return res;
}

int kl_resume(kl_ring *ring) {
  int res = enter(ring);
  if (res) return res;
  res = wait_running(ring);
  leave(ring);
  return res;
}

/* Harmless where nothing runs. */
int kl_abandon(kl_ring *ring) {
  int res = enter(ring);
  if (res) return res;
  if (ring->running) res = cancel_running(ring);
  leave(ring);
  return res;
}

/* Put operations in flight, in this order, with one submission. Each gets its token. */
int kl_start(kl_ring *ring, struct kl_operation *operations, unsigned count) {
  int res = enter(ring);
  if (res) return res;
  for (unsigned i = 0; i < count && !res; i++) {
    struct kl_operation *o = &operations[i];
    res = fill(ring, o->opcode, o->fd, o->addr, o->len, o->off, o->op_flags, o->sqe_flags);
    o->token = ring->last_token;
  }
  if (!res) {
    res = io_uring_submit(&ring->uring);
    if (res > 0) res = 0;
  }
  leave(ring);
  return res;
}

static unsigned reap_now(kl_ring *ring, struct kl_completion *out, unsigned got, unsigned room) {
  struct io_uring_cqe *cqe;
  while (got < room && io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
    if (cqe->user_data) out[got++] = (struct kl_completion){cqe->user_data, cqe->res, cqe->flags};
    io_uring_cqe_seen(&ring->uring, cqe);
  }
  return got;
}

/* Hand out up to `room` completions, after waiting for up to `wait_for` of them: the number, -ETIME, KL_INTERRUPTED, -errno. */
int kl_reap(kl_ring *ring, struct kl_completion *out, unsigned room, unsigned wait_for, int64_t timeout_ns) {
  int res = enter(ring);
  if (res) return res;
  int64_t deadline = timeout_ns == KL_FOREVER ? KL_FOREVER : now_ns() + timeout_ns;
  unsigned got = 0;
  unsigned kept = ring->aside_count < room ? ring->aside_count : room;
  if (kept) {
    memcpy(out, ring->aside, kept * sizeof *out);
    memmove(ring->aside, ring->aside + kept, (ring->aside_count - kept) * sizeof *out);
    ring->aside_count -= kept;
    got = kept;
  }
  got = reap_now(ring, out, got, room);
  if (got < wait_for && got < room) {
    res = submit_and_wait(ring, wait_for - got, deadline);
    got = reap_now(ring, out, got, room);
    if (!res || res == -EINTR) res = KL_INTERRUPTED; /* as in wait_running */
  }
  leave(ring);
  /* What is in hand is never thrown away for an error that comes again at the next call. */
  return got || !wait_for ? (int)got : res;
}

int kl_cancel(kl_ring *ring, uint64_t token) {
  int res = enter(ring);
  if (res) return res;
  request_cancel(ring, token);
  res = io_uring_submit(&ring->uring);
  leave(ring);
  return res < 0 ? res : 0;
}

/* record_type < 0: room to receive a type, else the type to send. */
void kl_message_prepare(struct kl_message *message, void *data, size_t length, int record_type) {
  memset(message, 0, sizeof *message);
  message->iov.iov_base = data;
  message->iov.iov_len = length;
  message->header.msg_iov = &message->iov;
  message->header.msg_iovlen = 1;
  message->header.msg_control = message->control.bytes;
  message->header.msg_controllen = sizeof message->control.bytes;
  if (record_type >= 0) {
    struct cmsghdr *c = CMSG_FIRSTHDR(&message->header);
    c->cmsg_level = SOL_TLS;
    c->cmsg_type = TLS_SET_RECORD_TYPE;
    c->cmsg_len = CMSG_LEN(sizeof(unsigned char));
    *CMSG_DATA(c) = (unsigned char)record_type;
  }
}

/* The type of a received record, or -1 where the kernel named none (a socket without kTLS on its receive side). */
int kl_message_type(struct kl_message *message) {
  struct cmsghdr *c = CMSG_FIRSTHDR(&message->header);
  if (!c || c->cmsg_level != SOL_TLS || c->cmsg_type != TLS_GET_RECORD_TYPE) return -1;
  return *CMSG_DATA(c);
}
