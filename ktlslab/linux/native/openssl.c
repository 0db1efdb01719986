/* OpenSSL's calls and those that carry its bytes, without the GIL. See tls.c for who may be in OpenSSL, and when. */
#include "tls.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>

static int few(Py_ssize_t bytes) { return bytes > INT_MAX ? INT_MAX : (int)bytes; }

/* What another user of OpenSSL has left behind in this thread would be taken for this call's error: SSL_get_error(3). */
static void prepare(const struct functions *openssl) {
  if (openssl->peek_error()) openssl->clear_error();
  errno = 0;
}

static int64_t refused(Tls *self, struct work *work, int answer) {
  work->error = errno;
  work->answer = answer;
  work->reason = self->openssl.get_error(self->ssl, answer);
  int waits = work->reason == WANT_READ || work->reason == WANT_WRITE;
  return waits && work->error == EINTR && !self->incoming ? KL_INTERRUPTED : REFUSED;
}

/* pyOpenSSL's contexts write one record per call (SSL_MODE_ENABLE_PARTIAL_WRITE). */
int64_t kl_tls_write(Tls *self, struct work *work) {
  while (work->done < work->bytes) {
    prepare(&self->openssl);
    int answer = self->openssl.write(self->ssl, work->data + work->done, few(work->bytes - work->done));
    if (answer <= 0) return refused(self, work, answer);
    work->done += answer;
    if (work->pause_ns && work->done < work->bytes && kl_deadline(0) > work->pause_ns) break;
  }
  return work->done;
}

int64_t kl_tls_read(Tls *self, struct work *work) {
  prepare(&self->openssl);
  int answer = self->openssl.read(self->ssl, work->data, few(work->bytes));
  return answer > 0 ? answer : refused(self, work, answer);
}

/* Carry bytes by the ring or the socket: how many the kernel took or gave. */
KL_INLINE int64_t carried(Tls *self, int opcode, char *at, int bytes) {
  int flags = opcode == IORING_OP_SEND ? MSG_NOSIGNAL : 0;
  if (self->calls) {
    struct kl_operation operation = {.opcode = opcode, .fd = self->fd, .addr = (uintptr_t)at, .len = (uint32_t)bytes,
                                     .op_flags = (uint32_t)flags};
    return kl_run(self->calls->ring, &operation, kl_limited(self->calls, self->timeout_ns));
  }
  ssize_t count = flags ? send(self->fd, at, (size_t)bytes, flags) : recv(self->fd, at, (size_t)bytes, 0);
  return count >= 0 ? count : errno == EINTR ? KL_INTERRUPTED : -errno;
}

/* What is in OpenSSL for a moment, and whom no EBUSY may turn away. */
static void go_in(Tls *self) {
  while (__atomic_exchange_n(&self->inside, 1, __ATOMIC_ACQUIRE)) sched_yield();
}

static void come_out(Tls *self) { __atomic_store_n(&self->inside, 0, __ATOMIC_RELEASE); }

/* Send more of the records that are made. */
static int64_t send_records(Tls *self, struct work *work) {
  if (self->sent == self->filled) return 0;
  return carried(self, IORING_OP_SEND, self->records + self->sent, self->filled - self->sent);
}

int64_t kl_tls_seal_and_send(Tls *self, struct work *work) {
  go_in(self);
  int64_t result = kl_tls_write(self, work);
  if (result >= 0 && self->sent == self->filled) {
    self->sent = 0;
    self->filled = self->openssl.bio_read(self->outgoing, self->records, self->records_bytes);
    if (self->filled < 0) self->filled = 0;
  }
  come_out(self);
  return result < 0 ? result : send_records(self, work);
}

/* Look at the headers of the records that have come. */
static void scan(Tls *self, Py_ssize_t received) {
  Py_ssize_t at = self->skip;
  while (at < received) {
    const unsigned char *header = (const unsigned char *)self->wire + at;
    if (!self->header_bytes && received - at >= HEADER_BYTES) {
      at += HEADER_BYTES;
    } else {
      while (self->header_bytes < HEADER_BYTES && at < received)
        self->header[self->header_bytes++] = (unsigned char)self->wire[at++];
      if (self->header_bytes < HEADER_BYTES) break;
      header = self->header;
      self->header_bytes = 0;
    }
    int bytes = header[3] << 8 | header[4];
    self->suspect |= bytes == KEY_UPDATE_BYTES;
    at += bytes;
  }
  self->skip = at - received;
}

static int64_t feed(Tls *self, struct work *work, int64_t received) {
  if (received <= 0) return received; /* 0: the end of TCP */
  if (self->tells) scan(self, (Py_ssize_t)received);
  self->openssl.bio_write(self->incoming, self->wire, (int)received);
  return kl_tls_read(self, work);
}

static int64_t receive_and_open(Tls *self, struct work *work) {
  return feed(self, work, carried(self, IORING_OP_RECV, self->wire, WIRE_BYTES));
}

/* Receive, unless OpenSSL still has something. */
int64_t kl_tls_receive(Tls *self, struct work *work) {
  if (self->openssl.pending(self->ssl) || self->openssl.bio_memory(self->incoming, NULL) > 0) {
    int64_t result = kl_tls_read(self, work);
    if (result != REFUSED || work->reason != WANT_READ) return result;
  }
  return receive_and_open(self, work);
}

int64_t kl_tls_send_on(Tls *self, struct work *work) {
  return self->calls ? kl_resume(self->calls->ring) : send_records(self, work);
}

int64_t kl_tls_receive_on(Tls *self, struct work *work) {
  return self->calls ? feed(self, work, kl_resume(self->calls->ring)) : receive_and_open(self, work);
}

/* Let OpenSSL read a record that carries no data. */
int64_t kl_tls_feed(Tls *self, struct work *work, const Py_buffer *record) {
  go_in(self);
  self->openssl.bio_write(self->incoming, record->buf, few(record->len));
  int64_t result = kl_tls_read(self, work);
  come_out(self);
  return result;
}
