/* Receives that stay armed, into buffers that the kernel chooses. See multishot.c for the rules. */
#ifndef KTLSLAB_MULTISHOT_H
#define KTLSLAB_MULTISHOT_H

#include "ring.h"

/* What recvmsg(2) puts in front of the payload in a buffer. */
#define KL_RECORD_HEAD (sizeof(struct io_uring_recvmsg_out) + CMSG_SPACE(sizeof(unsigned char)))

typedef struct kl_buffers kl_buffers;
typedef struct kl_multishot kl_multishot;

/* What one completion brought: it lies in one of the buffers until kl_multishot_done. */
struct kl_piece {
  int record_type; /* -1 where none was named */
  const char *data;
  size_t length;
  int buffer;
};

kl_buffers *kl_buffers_open(kl_ring *ring, uint16_t group, unsigned count, unsigned size, int *error);
int kl_buffers_close(kl_ring *ring, kl_buffers *buffers);
uint16_t kl_buffers_group(const kl_buffers *buffers);
char *kl_buffers_at(kl_buffers *buffers, int index);
void kl_buffers_give(kl_buffers *buffers, int index);

kl_multishot *kl_multishot_open(kl_ring *ring, int fd, kl_buffers *buffers, int with_type);
int kl_multishot_wait(kl_ring *ring, kl_multishot *shot, int64_t deadline_ns);
int kl_multishot_poll(kl_ring *ring, kl_multishot *shot);
int kl_multishot_next(kl_ring *ring, kl_multishot *shot, struct kl_piece *piece);
void kl_multishot_done(kl_multishot *shot, const struct kl_piece *piece);
int kl_multishot_stop(kl_ring *ring, kl_multishot *shot);
int kl_multishot_close(kl_ring *ring, kl_multishot *shot);
void kl_multishot_use(kl_multishot *shot, int more);
int kl_multishot_ended(const kl_multishot *shot);

#endif
