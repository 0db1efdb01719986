/* One TLS record as a message: its bytes, and its type as control data beside them. */
#include "ring.h"

#include <string.h>

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
int kl_message_type(const struct kl_message *message) {
  const struct cmsghdr *c = CMSG_FIRSTHDR(&message->header);
  if (!c || c->cmsg_level != SOL_TLS || c->cmsg_type != TLS_GET_RECORD_TYPE) return -1;
  return *CMSG_DATA(c);
}
