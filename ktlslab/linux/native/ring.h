/* A ring whose one call prepares, submits, waits and reaps. See ring.c for the rules. */
#ifndef KTLSLAB_RING_H
#define KTLSLAB_RING_H

#include <liburing.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* A wait was interrupted by a signal: the operation is still in flight. No errno has this value. */
#define KL_INTERRUPTED (-65536)
/* Waiting without a bound. */
#define KL_FOREVER (-1)

typedef struct kl_ring kl_ring;

/* What an operation is made of; the fields that io_uring_enter(2) gives to each opcode. */
struct kl_operation {
  int opcode;
  int fd;
  uint64_t addr;
  uint32_t len;
  uint64_t off;
  uint32_t op_flags;
  uint8_t sqe_flags;
  uint16_t ioprio;
  uint16_t buf_index; /* or the group of provided buffers */
  int32_t splice_fd_in;
  uint64_t addr3;
  uint64_t token; /* given by kl_start */
};

struct kl_completion {
  uint64_t token;
  int32_t res;
  uint32_t flags;
};

/* One message with room for one control message of one byte: a TLS record and its type. */
struct kl_message {
  struct msghdr header;
  struct iovec iov;
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(unsigned char))];
  } control;
};

/* The version of liburing that this was built with; empty where it did not tell. */
const char *kl_liburing(void);

kl_ring *kl_ring_open(unsigned entries, unsigned flags, int *error);
void kl_ring_close(kl_ring *ring);
void kl_ring_leave(kl_ring *ring);
int kl_ring_fd(const kl_ring *ring);
int kl_ring_supports(kl_ring *ring, int opcode);
/* The moment that is so far away, of CLOCK_MONOTONIC; KL_FOREVER stays what it is. */
int64_t kl_deadline(int64_t timeout_ns);
int64_t kl_deadline_about(int64_t timeout_ns); /* up to a tick of the kernel early, and in fewer instructions */

int kl_resume(kl_ring *ring);
void kl_abandon(kl_ring *ring);

int kl_start(kl_ring *ring, struct kl_operation *operations, unsigned count);
int kl_reap(kl_ring *ring, unsigned wait_for, int64_t deadline_ns);
unsigned kl_reaped_count(const kl_ring *ring);
const struct kl_completion *kl_reaped(const kl_ring *ring);
void kl_reaped_drop(kl_ring *ring, unsigned count);
/* NULL: unregister */
int kl_register_files(kl_ring *ring, const int *fds, unsigned count);
int kl_register_buffers(kl_ring *ring, const struct iovec *buffers, unsigned count, int in_flight);
int kl_cancel(kl_ring *ring, uint64_t token);

void kl_message_prepare(struct kl_message *message, void *data, size_t length, int record_type);
int kl_message_type(const struct kl_message *message);

#endif
