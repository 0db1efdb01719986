/* A server's event loop over many open connections: requests in, responses out. See server.c for the rules. */
#ifndef KTLSLAB_SERVER_H
#define KTLSLAB_SERVER_H

#include "multishot.h"

typedef struct kl_server kl_server;

/* Where OpenSSL's functions are: SSL_read, SSL_write, SSL_get_error, BIO_read, BIO_write. */
struct kl_openssl {
  void *read, *write, *get_error, *bio_read, *bio_write;
};

/* `ssl` is NULL where the bytes go as they are: over plain TCP, or where the kernel makes the records. */
struct kl_served {
  int fd;
  void *ssl, *incoming, *outgoing; /* an SSL and its two memory BIOs */
};

struct kl_exchange {
  const char *request, *response;
  size_t request_bytes, response_bytes;
};

kl_server *kl_server_open(kl_ring *ring, const struct kl_served *served, unsigned count,
                          const struct kl_exchange *exchange, const struct kl_openssl *openssl, int *error);
void kl_server_begin(kl_server *server, uint64_t responses, unsigned per_step, int64_t *took, int64_t spin_ns);
int kl_server_run(kl_server *server);
void kl_server_close(kl_server *server);

#endif
