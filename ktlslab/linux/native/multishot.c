/* Receives that stay armed, into buffers that the kernel chooses.
 *
 * Order. A multishot receive completes once for each piece, in the stream's order, and one only is in flight: it is armed
 * again when its last completion (no IORING_CQE_F_MORE) has been taken and all data before it handed out.
 *
 * Loss. A piece that has completed is out of the socket: it stays in its buffer until it is handed out, even after the
 * receive was stopped. A kernel that finds no buffer says ENOBUFS before it takes anything from the socket.
 *
 * kTLS. recvmsg with room for one control message of one byte (msg_controllen 24) names each record's type; a buffer then
 * begins with struct io_uring_recvmsg_out and that room, and the payload follows.
 */
#include "multishot.h"
#include "compat.h"
#include "inside.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

struct kl_buffers {
  struct io_uring_buf_ring *entries; /* the kernel takes from here */
  char *memory;
  unsigned count, size;
  uint16_t group;
};

static void give(kl_buffers *buffers, unsigned index) {
  io_uring_buf_ring_add(buffers->entries, buffers->memory + (size_t)index * buffers->size, buffers->size,
                        (unsigned short)index, io_uring_buf_ring_mask(buffers->count), 0);
  io_uring_buf_ring_advance(buffers->entries, 1);
}

static void *pages(size_t bytes) {
  void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
  return mapped == MAP_FAILED ? NULL : mapped;
}

static void unmap(kl_buffers *buffers) {
  if (buffers->entries) munmap(buffers->entries, buffers->count * sizeof(struct io_uring_buf));
  if (buffers->memory) munmap(buffers->memory, (size_t)buffers->count * buffers->size);
  free(buffers);
}

/* `count` is a power of two. */
kl_buffers *kl_buffers_open(kl_ring *ring, uint16_t group, unsigned count, unsigned size, int *error) {
  *error = -ENOMEM;
  kl_buffers *buffers = calloc(1, sizeof *buffers);
  if (!buffers) return NULL;
  buffers->count = count, buffers->size = size, buffers->group = group;
  buffers->entries = pages(count * sizeof(struct io_uring_buf));
  buffers->memory = pages((size_t)count * size);
  if (buffers->entries && buffers->memory) {
    struct io_uring_buf_reg registration = {
        .ring_addr = (uint64_t)(uintptr_t)buffers->entries, .ring_entries = count, .bgid = group};
    *error = io_uring_register_buf_ring(&ring->uring, &registration, 0);
  }
  if (*error) {
    unmap(buffers);
    return NULL;
  }
  io_uring_buf_ring_init(buffers->entries);
  for (unsigned i = 0; i < count; i++) give(buffers, i);
  return buffers;
}

/* No receive may be using them any more. */
int kl_buffers_close(kl_ring *ring, kl_buffers *buffers) {
  int error = kl_enter(ring);
  if (error) return error;
  error = io_uring_unregister_buf_ring(&ring->uring, buffers->group);
  kl_leave(ring);
  if (!error) unmap(buffers);
  return error;
}

uint16_t kl_buffers_group(const kl_buffers *buffers) { return buffers->group; }
char *kl_buffers_at(kl_buffers *buffers, int index) { return buffers->memory + (size_t)index * buffers->size; }
void kl_buffers_give(kl_buffers *buffers, int index) { give(buffers, (unsigned)index); }

kl_multishot *kl_multishot_open(kl_ring *ring, int fd, kl_buffers *buffers, int with_type) {
  kl_multishot *shot = calloc(1, sizeof *shot);
  if (!shot) return NULL;
  shot->fd = fd, shot->buffers = buffers, shot->with_type = with_type;
  shot->header.msg_controllen = CMSG_SPACE(sizeof(unsigned char));
  shot->next = ring->multishots;
  ring->multishots = shot;
  return shot;
}

static int arm(kl_ring *ring, kl_multishot *shot) {
  struct kl_operation operation = {
      .opcode = shot->with_type ? IORING_OP_RECVMSG : IORING_OP_RECV,
      .fd = shot->fd,
      .addr = shot->with_type ? (uint64_t)(uintptr_t)&shot->header : 0,
      .len = shot->with_type ? 1 : 0,
      .sqe_flags = IOSQE_BUFFER_SELECT,
      .ioprio = IORING_RECV_MULTISHOT,
      .buf_index = shot->buffers->group,
  };
  int error = kl_fill(ring, &operation);
  if (error) return error;
  shot->token = ring->last_token;
  shot->armed = 1;
  shot->taken = 0;
  return 0;
}

static int look(kl_ring *ring, kl_multishot *shot, unsigned wait_for, int64_t deadline_ns) {
  int error = kl_enter(ring);
  if (error) return error;
  error = kl_pump(ring);
  if (!error && !shot->queue.count && !shot->armed && !shot->stopped) error = arm(ring, shot);
  if (!error && !shot->queue.count) {
    error = kl_submit_and_wait(ring, wait_for, deadline_ns);
    if (error && error != -ETIME && error != -EINTR && kl_take_back(ring)) shot->armed = 0;
    int pumped = kl_pump(ring);
    if (!error || error == -EINTR) error = pumped ? pumped : wait_for ? KL_INTERRUPTED : 0;
    if (shot->queue.count) error = 0;
  }
  kl_leave(ring);
  return error == -ETIME ? -ETIMEDOUT : error;
}

/* Arm it where it is not, and wait until something has come: 0, -ETIMEDOUT, KL_INTERRUPTED, -errno. */
int kl_multishot_wait(kl_ring *ring, kl_multishot *shot, int64_t deadline_ns) { return look(ring, shot, 1, deadline_ns); }

/* The same without waiting. */
int kl_multishot_poll(kl_ring *ring, kl_multishot *shot) { return look(ring, shot, 0, KL_FOREVER); }

static void read_message(kl_multishot *shot, int32_t result, struct kl_piece *piece) {
  const struct io_uring_recvmsg_out *out = (const void *)piece->data;
  const struct cmsghdr *control = (const void *)(out + 1);
  piece->data += KL_RECORD_HEAD;
  piece->length = result > (int32_t)KL_RECORD_HEAD ? (size_t)result - KL_RECORD_HEAD : 0;
  int named = out->controllen >= CMSG_LEN(sizeof(unsigned char)) && control->cmsg_level == SOL_TLS &&
              control->cmsg_type == TLS_GET_RECORD_TYPE;
  if (named) piece->record_type = *CMSG_DATA(control);
  else if (!piece->length) shot->ended = 1;
}

static int next(kl_multishot *shot, struct kl_piece *piece) {
  while (shot->queue.count && !shot->ended) {
    struct kl_completion came = shot->queue.items[0];
    kl_queue_drop(&shot->queue, 1);
    if (!(came.flags & IORING_CQE_F_MORE)) shot->armed = 0;
    *piece = (struct kl_piece){.record_type = -1, .buffer = -1};
    if (came.flags & IORING_CQE_F_BUFFER) {
      piece->buffer = (int)(came.flags >> IORING_CQE_BUFFER_SHIFT);
      piece->data = shot->buffers->memory + (size_t)piece->buffer * shot->buffers->size;
      piece->length = came.res > 0 ? (size_t)came.res : 0;
    }
    if (came.res > 0 && piece->data) {
      if (shot->with_type) read_message(shot, came.res, piece);
      if (!shot->ended) {
        shot->taken++;
        return 1;
      }
    } else if (came.res == 0) {
      shot->ended = 1;
    } else if (came.res == -ENOBUFS ? !shot->taken : came.res != -EINTR && !(came.res == -ECANCELED && shot->stopped)) {
      shot->error = came.res;
    }
    kl_multishot_done(shot, piece);
    if (shot->error) break;
  }
  if (shot->stopped && !shot->queue.count) shot->ended = 1;
  int error = shot->error;
  if (error == -EIO || error == -ENOBUFS) shot->error = 0; /* what else there is to do may be done, and it goes on */
  return error;
}

/* The next piece of what has come: 1, and it must be given back by kl_multishot_done; 0 there is none (more may come, or it
   has ended); -errno. */
int kl_multishot_next(kl_ring *ring, kl_multishot *shot, struct kl_piece *piece) {
  int error = kl_enter(ring);
  if (error) return error;
  int got = next(shot, piece);
  kl_leave(ring);
  return got;
}

void kl_multishot_done(kl_multishot *shot, const struct kl_piece *piece) {
  if (piece->buffer >= 0) give(shot->buffers, (unsigned)piece->buffer);
}

/* Cancel it, and wait until its last completion is in: what came before can still be had by kl_multishot_next. */
int kl_multishot_stop(kl_ring *ring, kl_multishot *shot) {
  int error = kl_enter(ring);
  if (error) return error;
  shot->stopped = 1;
  error = kl_pump(ring);
  ring->cancel_missed = 1;
  while (!error && shot->armed &&
         !(shot->queue.count && !(shot->queue.items[shot->queue.count - 1].flags & IORING_CQE_F_MORE))) {
    if (ring->cancel_missed) kl_request_cancel(ring, shot->token);
    ring->cancel_missed = 0;
    error = kl_submit_and_wait(ring, 1, KL_FOREVER);
    if (error == -EINTR) error = 0;
    int pumped = kl_pump(ring);
    if (!error) error = pumped;
  }
  kl_leave(ring);
  return error;
}

/* After kl_multishot_stop. -EBUSY while someone waits for it. */
int kl_multishot_close(kl_ring *ring, kl_multishot *shot) {
  if (shot->users) return -EBUSY;
  for (unsigned i = 0; i < shot->queue.count; i++)
    if (shot->queue.items[i].flags & IORING_CQE_F_BUFFER)
      give(shot->buffers, shot->queue.items[i].flags >> IORING_CQE_BUFFER_SHIFT);
  struct kl_multishot **link = &ring->multishots;
  while (*link != shot) link = &(*link)->next;
  *link = shot->next;
  free(shot->queue.items);
  free(shot);
  return 0;
}

void kl_multishot_use(kl_multishot *shot, int more) { shot->users += more; }
int kl_multishot_ended(const kl_multishot *shot) { return shot->ended; }
