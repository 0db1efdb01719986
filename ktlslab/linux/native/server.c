/* A server's event loop over many open connections, by io_uring or epoll.
 *
 * Both engines do the same with the bytes; they differ in how the bytes move. io_uring: one ring, a multishot receive armed
 * on each connection, buffers that the kernel chooses, and one submission for all that a batch of completions led to. epoll:
 * one wait for a batch of readable sockets, then one recv(2) and one send(2) each, which do not block.
 *
 * Time. A step ends where the first byte of the next one's first request is taken, the last one with its last response. At
 * the end of a response would be a worse place: the client that it wakes may run first, and do its part of the next step.
 *
 * A connection has one request in work at a time. Each byte of it is compared with what was agreed on, and the response
 * goes out once it is complete. OpenSSL works on memory: a record is copied in by BIO_write and out by BIO_read, one at a time,
 * so that a session's BIOs stay as small as one record.
 *
 * Signals. A wait that one interrupts returns KL_INTERRUPTED; kl_server_run goes on where it was.
 */
#include "server.h"
#include "inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define RECORD_BYTES 16384
#define SEALED_BYTES (RECORD_BYTES + 256) /* header, explicit nonce, padding and tag never take more */
#define ROOM_BYTES (1 << 15)
#define BUFFERS 256
#define EVENTS 256
#define WANT_READ 2 /* SSL_ERROR_WANT_READ in openssl/ssl.h */

typedef int (*reading)(void *, void *, int);
typedef int (*writing)(void *, const void *, int);
typedef int (*asking)(const void *, int);

struct connection {
  struct kl_served at;
  size_t have; /* bytes of the request in work */
  const char *next;
  size_t left; /* bytes of the response that are still to go */
  char *sealed; /* the response as records, from the pool */
  int armed, waits_to_send;
};

struct kl_server {
  struct kl_exchange exchange;
  struct kl_openssl openssl;
  struct connection *connections;
  unsigned count;
  kl_ring *ring; /* or NULL: epoll */
  kl_buffers *buffers;
  unsigned armed;
  int epoll;
  char *room, *plain;
  char **pool; /* free buffers for sealed responses */
  unsigned pooled;
  size_t sealed_bytes;
  uint64_t done, goal;
  unsigned per_step;
  int ends; /* the step: its responses are sent, and its end is not yet noted */
  int64_t *took, last_ns, spin_ns;
};

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* What is done with the bytes. */

static void note_the_end(kl_server *server) {
  int64_t now = now_ns(), until = now + server->spin_ns;
  while (server->spin_ns && now < until) now = now_ns();
  *server->took++ = now - server->last_ns;
  server->last_ns = now;
  server->ends = 0;
}

static int take(kl_server *server, struct connection *one, const char *data, size_t size) {
  if (server->ends) note_the_end(server);
  const struct kl_exchange *exchange = &server->exchange;
  if (size > exchange->request_bytes - one->have || memcmp(data, exchange->request + one->have, size)) return -EBADMSG;
  one->have += size;
  return 0;
}

static int came(kl_server *server, struct connection *one, const char *data, size_t size) {
  if (!one->at.ssl) return take(server, one, data, size);
  while (size) {
    size_t part = size < RECORD_BYTES ? size : RECORD_BYTES;
    if (((writing)server->openssl.bio_write)(one->at.incoming, data, (int)part) != (int)part) return -ENOMEM;
    data += part, size -= part;
    while (one->have < server->exchange.request_bytes) {
      int got = ((reading)server->openssl.read)(one->at.ssl, server->plain, RECORD_BYTES);
      if (got <= 0 && ((asking)server->openssl.get_error)(one->at.ssl, got) != WANT_READ) return -EPROTO;
      if (got <= 0) break;
      int error = take(server, one, server->plain, (size_t)got);
      if (error) return error;
    }
  }
  return 0;
}

static int seal(kl_server *server, struct connection *one) {
  const struct kl_exchange *exchange = &server->exchange;
  one->sealed = server->pooled ? server->pool[--server->pooled] : malloc(server->sealed_bytes);
  if (!one->sealed) return -ENOMEM;
  size_t size = 0;
  for (size_t at = 0; at < exchange->response_bytes;) {
    size_t part = exchange->response_bytes - at < RECORD_BYTES ? exchange->response_bytes - at : RECORD_BYTES;
    int written = ((writing)server->openssl.write)(one->at.ssl, exchange->response + at, (int)part);
    if (written <= 0) return -EPROTO;
    int sealed = ((reading)server->openssl.bio_read)(one->at.outgoing, one->sealed + size,
                                                     (int)(server->sealed_bytes - size));
    if (sealed <= 0) return -EPROTO;
    at += (size_t)written, size += (size_t)sealed;
  }
  one->next = one->sealed, one->left = size;
  return 0;
}

static int answer(kl_server *server, struct connection *one) {
  one->have = 0;
  if (one->at.ssl) return seal(server, one);
  one->next = server->exchange.response, one->left = server->exchange.response_bytes;
  return 0;
}

static void answered(kl_server *server, struct connection *one) {
  if (one->sealed) server->pool[server->pooled++] = one->sealed;
  one->sealed = NULL;
  server->done++;
  server->ends = server->took && server->done % server->per_step == 0;
  if (server->ends && server->done == server->goal) note_the_end(server);
}

/* epoll */

static int watch(kl_server *server, struct connection *one, int operation, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = one};
  return epoll_ctl(server->epoll, operation, one->at.fd, &event) ? -errno : 0;
}

static int push(kl_server *server, struct connection *one) {
  while (one->left) {
    ssize_t sent = send(one->at.fd, one->next, one->left, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN) return -errno;
    if (sent < 0) {
      if (one->waits_to_send) return 0;
      one->waits_to_send = 1;
      return watch(server, one, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    one->next += sent, one->left -= (size_t)sent;
  }
  int error = one->waits_to_send ? watch(server, one, EPOLL_CTL_MOD, EPOLLIN) : 0;
  one->waits_to_send = 0;
  answered(server, one);
  return error;
}

static int pull(kl_server *server, struct connection *one) {
  ssize_t got = recv(one->at.fd, server->room, ROOM_BYTES, MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
  if (!got) return -ECONNRESET;
  int error = came(server, one, server->room, (size_t)got);
  if (error || one->have < server->exchange.request_bytes) return error;
  error = answer(server, one);
  return error ? error : push(server, one);
}

static int turn_by_epoll(kl_server *server) {
  struct epoll_event events[EVENTS];
  int ready = epoll_wait(server->epoll, events, EVENTS, -1);
  if (ready < 0) return errno == EINTR ? KL_INTERRUPTED : -errno;
  for (int i = 0; i < ready; i++) {
    struct connection *one = events[i].data.ptr;
    int error = one->left && events[i].events & EPOLLOUT ? push(server, one) : 0;
    if (!error && events[i].events & ~EPOLLOUT) error = pull(server, one);
    if (error) return error;
  }
  return 0;
}

/* io_uring: the token of an operation is its connection's number, doubled; a send's is odd. */

static struct io_uring_sqe *sqe_of(kl_server *server, struct connection *one, int sends) {
  if (kl_make_room(server->ring, 1)) return NULL;
  struct io_uring_sqe *sqe = io_uring_get_sqe(&server->ring->uring);
  if (!sqe) return NULL;
  memset(sqe, 0, sizeof *sqe);
  sqe->fd = one->at.fd;
  sqe->user_data = (uint64_t)(one - server->connections) * 2 + (uint64_t)sends;
  return sqe;
}

static int start_receiving(kl_server *server, struct connection *one) {
  struct io_uring_sqe *sqe = sqe_of(server, one, 0);
  if (!sqe) return -EBUSY;
  sqe->opcode = IORING_OP_RECV;
  sqe->flags = IOSQE_BUFFER_SELECT;
  sqe->ioprio = IORING_RECV_MULTISHOT;
  sqe->buf_group = kl_buffers_group(server->buffers);
  one->armed = 1;
  server->armed++;
  return 0;
}

static int start_sending(kl_server *server, struct connection *one) {
  struct io_uring_sqe *sqe = sqe_of(server, one, 1);
  if (!sqe) return -EBUSY;
  sqe->opcode = IORING_OP_SEND;
  sqe->addr = (uint64_t)(uintptr_t)one->next;
  sqe->len = one->left > INT32_MAX ? INT32_MAX : (uint32_t)one->left;
  sqe->msg_flags = MSG_NOSIGNAL;
  return 0;
}

static int sent(kl_server *server, struct connection *one, int32_t result) {
  if (result < 0) return result;
  one->next += result, one->left -= (size_t)result;
  if (one->left) return start_sending(server, one);
  answered(server, one);
  return 0;
}

static int received(kl_server *server, struct connection *one, const struct io_uring_cqe *cqe) {
  int error = 0;
  if (!(cqe->flags & IORING_CQE_F_MORE)) one->armed = 0, server->armed--;
  if (cqe->flags & IORING_CQE_F_BUFFER) {
    int buffer = (int)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
    if (cqe->res > 0) error = came(server, one, kl_buffers_at(server->buffers, buffer), (size_t)cqe->res);
    kl_buffers_give(server->buffers, buffer);
  }
  if (!cqe->res) error = -ECONNRESET;
  else if (cqe->res < 0 && cqe->res != -ENOBUFS && cqe->res != -EINTR) error = cqe->res;
  if (!error && one->have == server->exchange.request_bytes) {
    error = answer(server, one);
    if (!error) error = start_sending(server, one);
  }
  return !error && !one->armed ? start_receiving(server, one) : error;
}

static int turn_by_ring(kl_server *server) {
  struct io_uring *uring = &server->ring->uring;
  int submitted = io_uring_submit_and_wait(uring, 1);
  if (submitted < 0) return submitted == -EINTR ? KL_INTERRUPTED : submitted;
  struct io_uring_cqe *cqe;
  unsigned head, seen = 0;
  int error = 0;
  io_uring_for_each_cqe(uring, head, cqe) {
    struct connection *one = server->connections + cqe->user_data / 2;
    error = cqe->user_data & 1 ? sent(server, one, cqe->res) : received(server, one, cqe);
    seen++;
    if (error) break;
  }
  io_uring_cq_advance(uring, seen);
  return error;
}

/* Cancel the receives, and wait until each has had its last completion: the kernel must be done with the buffers. */
static void stop_receiving(kl_server *server) {
  struct io_uring *uring = &server->ring->uring;
  struct io_uring_sqe *sqe = kl_make_room(server->ring, 1) ? NULL : io_uring_get_sqe(uring);
  if (!sqe) return;
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = IORING_OP_ASYNC_CANCEL;
  sqe->fd = -1;
  sqe->cancel_flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
  sqe->user_data = UINT64_MAX;
  while (server->armed) {
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    int submitted = io_uring_submit_and_wait(uring, 1);
    if (submitted < 0 && submitted != -EINTR) return;
    io_uring_for_each_cqe(uring, head, cqe) {
      seen++;
      if (!(cqe->user_data & 1) && !(cqe->flags & IORING_CQE_F_MORE)) server->armed--;
    }
    io_uring_cq_advance(uring, seen);
  }
}

/* From opening to closing. */

static int get_ready(kl_server *server, const struct kl_served *served) {
  int error = 0;
  if (server->ring) {
    server->buffers = kl_buffers_open(server->ring, 1, BUFFERS, ROOM_BYTES, &error);
    if (!server->buffers) return error;
    memset(kl_buffers_at(server->buffers, 0), 0, (size_t)BUFFERS * ROOM_BYTES); /* no page fault in what is timed */
  } else if ((server->epoll = epoll_create1(EPOLL_CLOEXEC)) < 0) {
    return -errno;
  }
  for (unsigned i = 0; i < server->count && !error; i++) {
    struct connection *one = &server->connections[i];
    one->at = served[i];
    error = server->ring ? start_receiving(server, one) : watch(server, one, EPOLL_CTL_ADD, EPOLLIN);
  }
  return error;
}

/* `ring` NULL: by epoll. What `exchange` points to must outlive the server. NULL and -errno where it cannot be. */
kl_server *kl_server_open(kl_ring *ring, const struct kl_served *served, unsigned count,
                          const struct kl_exchange *exchange, const struct kl_openssl *openssl, int *error) {
  kl_server *server = calloc(1, sizeof *server);
  *error = -ENOMEM;
  if (!server) return NULL;
  server->ring = ring, server->count = count, server->exchange = *exchange, server->openssl = *openssl;
  server->epoll = -1;
  server->sealed_bytes = (exchange->response_bytes / RECORD_BYTES + 1) * SEALED_BYTES;
  server->connections = calloc(count, sizeof *server->connections);
  server->room = calloc(1, ROOM_BYTES), server->plain = calloc(1, RECORD_BYTES);
  server->pool = calloc(count, sizeof *server->pool);
  if (server->connections && server->room && server->plain && server->pool) *error = get_ready(server, served);
  if (!*error) return server;
  kl_server_close(server);
  return NULL;
}

/* Let `run` answer so many requests. `took` gets a time in nanoseconds for each `per_step` of them; NULL: none. Each step
   is made longer by `spin_ns`. */
void kl_server_begin(kl_server *server, uint64_t responses, unsigned per_step, int64_t *took, int64_t spin_ns) {
  server->done = 0, server->goal = responses;
  server->per_step = per_step, server->took = took, server->spin_ns = spin_ns, server->ends = 0;
  server->last_ns = now_ns();
}

/* 0 when all are answered; KL_INTERRUPTED: call it again; -EBADMSG: not the request that was agreed on; -errno. */
int kl_server_run(kl_server *server) {
  int error = 0;
  while (!error && server->done < server->goal)
    error = server->ring ? turn_by_ring(server) : turn_by_epoll(server);
  return error;
}

/* The connections stay open. */
void kl_server_close(kl_server *server) {
  if (server->buffers) {
    stop_receiving(server);
    kl_buffers_close(server->ring, server->buffers);
  }
  if (server->epoll >= 0) close(server->epoll);
  for (unsigned i = 0; server->connections && i < server->count; i++) free(server->connections[i].sealed);
  while (server->pooled) free(server->pool[--server->pooled]);
  free(server->connections);
  free(server->room);
  free(server->plain);
  free(server->pool);
  free(server);
}
