/* A TLS session in OpenSSL: what openssl.c does with it without the GIL, for tls.c, which has the words for it. */
#ifndef KTLSLAB_TLS_H
#define KTLSLAB_TLS_H

#include "hot.h"

#define RECORD_BYTES (1 << 14)
#define SEAL_BYTES (1 << 20) /* OpenSSL makes all records of a send before the first is sent; the rest waits its turn */
#define OVERHEAD_BYTES 64    /* header, explicit nonce, tag and inner type never take more */
#define WIRE_BYTES (1 << 17) /* of received records at once */
#define HEADER_BYTES 5
#define KEY_UPDATE_BYTES 22 /* encrypted, in TLS 1.3: 5 of message, 1 of type, 16 of tag */
#define REFUSED (-65537)     /* OpenSSL did not do it, and `reason` says why; no errno has this value */

enum { WANT_READ = 2, WANT_WRITE = 3, ZERO_RETURN = 6 }; /* SSL_get_error(3); part of OpenSSL's ABI */

/* In the order in which Python gives them. */
struct functions {
  int (*write)(void *ssl, const void *data, int bytes);
  int (*read)(void *ssl, void *buffer, int bytes);
  int (*pending)(const void *ssl);
  int (*get_error)(const void *ssl, int answer);
  unsigned long (*peek_error)(void);
  void (*clear_error)(void);
  int (*bio_write)(void *bio, const void *data, int bytes);
  int (*bio_read)(void *bio, void *buffer, int bytes);
  long (*bio_memory)(void *bio, char **at);
};
#define FUNCTIONS (sizeof(struct functions) / sizeof(void *))

typedef struct {
  PyObject_HEAD
  struct functions openssl;
  void *ssl, *incoming, *outgoing; /* without the BIOs, OpenSSL has the socket */
  Calls *calls;                    /* of the ring that carries; NULL: the socket does */
  char *wire;                      /* what was received */
  char *records;                   /* what is being sent */
  int records_bytes, filled, sent;
  int fd, tells, held, busy;
  int inside;                      /* a thread is in OpenSSL: for `tell`, and who meets it */
  unsigned char header[HEADER_BYTES]; /* of the next record that comes, as far as it has come */
  int header_bytes, suspect;          /* a record that came has the size of a KeyUpdate */
  Py_ssize_t skip;                    /* bytes until that header */
  pid_t process;
  int64_t timeout_ns;
} Tls;

/* One call: what it moves, and what became of it. */
struct work {
  char *data;
  Py_ssize_t bytes, done;
  int64_t pause_ns;            /* a long send comes back then, with what it has done */
  int answer, reason, error;   /* of OpenSSL's last call */
  struct kl_wait wait;
};

/* A step gives a number of bytes, -errno, KL_INTERRUPTED or REFUSED. */
typedef int64_t (*step)(Tls *, struct work *);

/* Where OpenSSL has the socket */
int64_t kl_tls_write(Tls *self, struct work *work);
int64_t kl_tls_read(Tls *self, struct work *work);
/* By memory: begun, and gone on with after KL_INTERRUPTED */
int64_t kl_tls_seal_and_send(Tls *self, struct work *work);
int64_t kl_tls_send_on(Tls *self, struct work *work);
int64_t kl_tls_receive(Tls *self, struct work *work);
int64_t kl_tls_receive_on(Tls *self, struct work *work);
int64_t kl_tls_feed(Tls *self, struct work *work, const Py_buffer *record);

#endif
