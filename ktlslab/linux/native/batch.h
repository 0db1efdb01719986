/* Many sends on one socket with one submission. See batch.c for how they keep their order. */
#ifndef KTLSLAB_BATCH_H
#define KTLSLAB_BATCH_H

#include "ring.h"

/* The longest chain: more is sent in several. */
#define KL_CHAIN 256

struct kl_batch {
  int fd;
  uint32_t flags; /* of send(2) */
  int64_t timeout_ns;
  const struct iovec *parts;
  unsigned count;
  /* how far it is; all zero at first */
  unsigned next, chain;
  size_t offset;
  int64_t sent;
};

int64_t kl_send_many(kl_ring *ring, struct kl_batch *batch);

#endif
