/* A ring whose one call prepares, submits, waits and reaps. See ring.c for the rules. */
#ifndef KTLSLAB_RING_H
#define KTLSLAB_RING_H

#include <liburing.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

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

kl_ring *kl_ring_open(unsigned entries, unsigned flags, int *error);
void kl_ring_close(kl_ring *ring);
int kl_ring_fd(const kl_ring *ring);
int kl_ring_supports(kl_ring *ring, int opcode);

int kl_run(kl_ring *ring, int opcode, int fd, const void *addr, uint32_t len, uint64_t off, uint32_t op_flags,
           int64_t timeout_ns);
int kl_resume(kl_ring *ring);
int kl_abandon(kl_ring *ring);

int kl_start(kl_ring *ring, struct kl_operation *operations, unsigned count);
int kl_reap(kl_ring *ring, struct kl_completion *out, unsigned room, unsigned wait_for, int64_t timeout_ns);
int kl_cancel(kl_ring *ring, uint64_t token);

void kl_message_prepare(struct kl_message *message, void *data, size_t length, int record_type);
int kl_message_type(struct kl_message *message);

#endif
