/* The C program that ktlslab's instructions are compared with: kernel TLS through liburing, one operation in flight.
 *
 *   reference peer   LAYER                                            serves until killed; its port is the first line
 *   reference client LAYER ENGINE PORT WORKLOAD SIZE BATCH BATCHES   one timed run; prints figures as a line of JSON
 *
 * LAYER      plain, or kernel: both ends install made-up keys, because the handshake is not measured.
 * ENGINE     blocking: send(2) and recv(2)
 *            uring: prep, submit_and_wait, seen; one call each, waiting without a timeout
 *            uring-timed: the same with a timeout, as every wait of ktlslab has one
 *            uring-batch: a batch as ktlslab's ring sends it: linked writes from registered memory, one submission, and
 *            one completion: the last write's, or that of the one that broke the chain
 * WORKLOAD  echo: a batch of payloads comes back; upload: one byte answers a batch
 *            sends, replies: an echo of which only the send, or the receive, is timed
 *            receives: a batch of receives, each timed, after all their data has arrived
 *
 * Figures per operation, in the unit of the clock: `step`, the median of what was timed, minus the cost of reading the
 * clock; `cpu`, by this process's CPU clock. `sent` and `received`: the records that the kernel made and received,
 * according to its sequence numbers.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#endif

#define REGISTERED (1 << 14) /* bytes: a batch's payloads */

enum { ECHO, UPLOAD, SENDS, REPLIES, RECEIVES };
static const char *const WORKLOADS[] = {"echo", "upload", "sends", "replies", "receives"};
enum { BLOCKING, URING, URING_TIMED, URING_BATCH };
static const char *const ENGINES[] = {"blocking", "uring", "uring-timed", "uring-batch"};

struct request {
  uint32_t workload, size, batch, batches;
};

static void check(int failed, const char *what) {
  if (!failed) return;
  perror(what);
  exit(1);
}

static uint32_t index_of(const char *name, const char *const *names, uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    if (!strcmp(name, names[i])) return i;
  fprintf(stderr, "reference: %s is unknown\n", name);
  exit(2);
}

static int64_t now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static int64_t median(int64_t *values, size_t count) {
  qsort(values, count, sizeof *values, ascending);
  return values[(count - 1) / 2];
}

static int64_t clock_cost(void) {
  int64_t costs[101];
  for (size_t i = 0; i < 101; i++) {
    int64_t start = now(CLOCK_MONOTONIC);
    costs[i] = now(CLOCK_MONOTONIC) - start;
  }
  return median(costs, 101);
}

/* Begins on a page boundary, and is in memory before the clock starts. */
static char *room_for(size_t size) {
  char *room = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  check(room == MAP_FAILED, "mmap");
  return room;
}

/* TLS 1.3, AES-256-GCM; the client sends under keys of 'c' and receives under keys of 's'. */
static void install(int fd, int direction, char filler) {
  struct tls12_crypto_info_aes_gcm_256 keys = {.info = {TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_256}};
  memset(keys.key, filler, sizeof keys.key);
  memset(keys.iv, filler, sizeof keys.iv);
  memset(keys.salt, filler, sizeof keys.salt);
  check(setsockopt(fd, SOL_TLS, direction, &keys, sizeof keys), "setsockopt(SOL_TLS)");
}

static void prepare(int fd, int kernel, char tx, char rx) {
  int on = 1;
  check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "setsockopt(TCP_NODELAY)");
  if (!kernel) return;
  check(setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 3), "setsockopt(TCP_ULP)");
  install(fd, TLS_TX, tx);
  install(fd, TLS_RX, rx);
}

static uint64_t records(int fd, int kernel, int direction) {
  struct tls12_crypto_info_aes_gcm_256 keys = {0};
  socklen_t size = sizeof keys;
  if (!kernel) return 0;
  check(getsockopt(fd, SOL_TLS, direction, &keys, &size), "getsockopt(SOL_TLS)");
  uint64_t number = 0;
  for (size_t i = 0; i < sizeof keys.rec_seq; i++) number = number << 8 | keys.rec_seq[i];
  return number;
}

/* The peer: blocking calls, a process per connection, the same for all clients. */

static int fill(int fd, char *room, size_t size) {
  for (size_t have = 0; have < size;) {
    ssize_t got = recv(fd, room + have, size - have, 0);
    if (got <= 0) return 0;
    have += got;
  }
  return 1;
}

static void give(int fd, const char *data, size_t size) {
  for (size_t sent = 0; sent < size;) {
    ssize_t step = send(fd, data + sent, size - sent, MSG_NOSIGNAL);
    check(step < 0, "the peer's send");
    sent += step;
  }
}

static void converse(int fd) {
  struct request r;
  while (fill(fd, (char *)&r, sizeof r)) {
    char *room = room_for((size_t)r.size * r.batch);
    for (uint32_t i = 0; i < r.batches; i++) {
      if (r.workload == RECEIVES) {
        char mark;
        if (!fill(fd, &mark, 1)) break;
        for (uint32_t j = 0; j < r.batch; j++) give(fd, room, r.size);
      } else if (r.workload == UPLOAD) {
        if (!fill(fd, room, (size_t)r.size * r.batch)) break;
        give(fd, ".", 1);
      } else {
        for (uint32_t j = 0; j < r.batch && fill(fd, room, r.size); j++) give(fd, room, r.size);
      }
    }
    munmap(room, (size_t)r.size * r.batch);
  }
}

static void serve(int kernel) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof at;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  check(bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 8), "listening");
  check(getsockname(listener, (struct sockaddr *)&at, &size), "getsockname");
  printf("%d\n", ntohs(at.sin_port));
  fflush(stdout);
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    check(fd < 0, "accept");
    pid_t parent = getpid();
    if (!fork()) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      prepare(fd, kernel, 's', 'c');
      converse(fd);
      _exit(0);
    }
    close(fd);
  }
}

/* The client. */

struct client {
  struct io_uring ring;
  int fd, engine;
  char *registered;
};

/* Wait for one completion and consume it. */
static int32_t complete(struct client *c) {
  struct io_uring_cqe *cqe;
  if (c->engine == URING_TIMED) {
    struct __kernel_timespec bound = {60, 0};
    errno = -io_uring_submit_and_wait_timeout(&c->ring, &cqe, 1, &bound, NULL);
    check(errno > 0, "io_uring_submit_and_wait_timeout");
  } else {
    errno = -io_uring_submit_and_wait(&c->ring, 1);
    check(errno > 0, "io_uring_submit_and_wait");
    errno = -io_uring_peek_cqe(&c->ring, &cqe);
    check(errno > 0, "io_uring_peek_cqe");
  }
  int32_t result = cqe->res;
  io_uring_cqe_seen(&c->ring, cqe);
  errno = -result;
  check(result < 0, "an operation");
  return result;
}

static size_t send_once(struct client *c, const char *data, size_t size) {
  if (c->engine == BLOCKING) {
    ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
    check(sent < 0, "send");
    return sent;
  }
  io_uring_prep_send(io_uring_get_sqe(&c->ring), c->fd, data, size, MSG_NOSIGNAL);
  return complete(c);
}

static size_t receive_once(struct client *c, char *room, size_t size) {
  ssize_t got;
  if (c->engine == BLOCKING) {
    got = recv(c->fd, room, size, 0);
    check(got < 0, "recv");
  } else {
    io_uring_prep_recv(io_uring_get_sqe(&c->ring), c->fd, room, size, 0);
    got = complete(c);
  }
  errno = ECONNRESET;
  check(got == 0, "receiving: the peer's end came early");
  return got;
}

static void send_all(struct client *c, const char *data, size_t size) {
  for (size_t sent = 0; sent < size;) sent += send_once(c, data + sent, size - sent);
}

static void receive_all(struct client *c, char *room, size_t size) {
  for (size_t have = 0; have < size;) have += receive_once(c, room + have, size - have);
}

static void send_batch(struct client *c, const char *data, size_t size, uint32_t batch) {
  if (c->engine != URING_BATCH) {
    for (uint32_t i = 0; i < batch; i++) send_all(c, data, size);
    return;
  }
  errno = EMSGSIZE;
  check(size * batch > REGISTERED, "a batch");
  for (uint32_t i = 0; i < batch; i++) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&c->ring);
    char *copy = memcpy(c->registered + (size_t)i * size, data, size);
    io_uring_prep_write_fixed(sqe, c->fd, copy, size, 0, 0);
    if (i + 1 < batch) sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = i;
  }
  int submitted = io_uring_submit_and_wait(&c->ring, 1);
  errno = submitted < 0 ? -submitted : EBUSY;
  check(submitted != (int)batch, "io_uring_submit_and_wait");
  struct io_uring_cqe *cqe;
  errno = -io_uring_peek_cqe(&c->ring, &cqe);
  check(errno > 0, "io_uring_peek_cqe");
  errno = cqe->res < 0 ? -cqe->res : EMSGSIZE;
  check(cqe->user_data != batch - 1 || cqe->res != (int32_t)size, "an operation of a batch");
  io_uring_cqe_seen(&c->ring, cqe);
}

/* Do one batch, and store the answers in `room`, one payload after the other. Returns the number of steps. */
static size_t batch_of(struct client *c, const struct request *r, const char *one, char *room, int64_t *steps) {
  char mark;
  int64_t start = now(CLOCK_MONOTONIC);
  if (r->workload == RECEIVES) {
    struct timespec pause = {0, 5000000};
    send_all(c, ".", 1);
    nanosleep(&pause, NULL);
    for (uint32_t j = 0; j < r->batch; j++) {
      start = now(CLOCK_MONOTONIC);
      receive_all(c, room + (size_t)j * r->size, r->size);
      steps[j] = now(CLOCK_MONOTONIC) - start;
    }
    return r->batch;
  }
  send_batch(c, one, r->size, r->batch);
  if (r->workload == SENDS) steps[0] = now(CLOCK_MONOTONIC) - start;
  if (r->workload == REPLIES) start = now(CLOCK_MONOTONIC);
  if (r->workload == UPLOAD)
    receive_all(c, &mark, 1);
  else
    receive_all(c, room, (size_t)r->size * r->batch);
  if (r->workload != SENDS) steps[0] = now(CLOCK_MONOTONIC) - start;
  return 1;
}

static size_t steps_of(struct client *c, const struct request *r, const char *one, char *room, int64_t *steps) {
  size_t n = 0;
  for (uint32_t i = 0; i < r->batches; i++, room += (size_t)r->size * r->batch)
    n += batch_of(c, r, one, room, steps + n);
  return n;
}

static void measure(struct client *c, int kernel, struct request r) {
  size_t operations = (size_t)r.batch * r.batches, bytes = r.size * operations;
  char *one = room_for(r.size), *room = room_for(bytes);
  int64_t *steps = (int64_t *)room_for(operations * sizeof *steps);
  for (uint32_t i = 0; i < r.size; i++) one[i] = r.workload == RECEIVES ? 0 : (char)(i * 7 + 1);
  struct request warm_up = r;
  warm_up.batches = r.batches / 4 ? r.batches / 4 : 1;
  send_all(c, (char *)&warm_up, sizeof r);
  steps_of(c, &warm_up, one, room, steps);
  send_all(c, (char *)&r, sizeof r);
  int64_t cpu = now(CLOCK_PROCESS_CPUTIME_ID);
  size_t n = steps_of(c, &r, one, room, steps);
  cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  for (size_t i = 0; r.workload != UPLOAD && i < operations; i++) {
    errno = EBADMSG;
    check(memcmp(room + i * r.size, one, r.size), "comparing what came back");
  }
  int single = r.workload == RECEIVES; /* a step is one call there, a batch elsewhere */
  double step = (double)(median(steps, n) - clock_cost()) / (single ? 1 : r.batch);
  unsigned long long sent = records(c->fd, kernel, TLS_TX), received = records(c->fd, kernel, TLS_RX);
  printf("{\"step\": %.1f, \"cpu\": %.1f, \"sent\": %llu, \"received\": %llu}\n", step, (double)cpu / operations, sent,
         received);
}

int main(int argc, char **argv) {
  static const char *const LAYERS[] = {"plain", "kernel"};
  if (argc == 3 && !strcmp(argv[1], "peer")) {
    serve(index_of(argv[2], LAYERS, 2));
  } else if (argc == 9 && !strcmp(argv[1], "client")) {
    struct client c = {.engine = index_of(argv[3], ENGINES, 4)};
    int kernel = index_of(argv[2], LAYERS, 2);
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    peer.sin_port = htons(atoi(argv[4]));
    struct request r = {index_of(argv[5], WORKLOADS, 5), atoi(argv[6]), atoi(argv[7]), atoi(argv[8])};
    c.fd = socket(AF_INET, SOCK_STREAM, 0);
    check(connect(c.fd, (struct sockaddr *)&peer, sizeof peer), "connect");
    prepare(c.fd, kernel, 'c', 's');
    errno = -io_uring_queue_init(64, &c.ring, IORING_SETUP_COOP_TASKRUN);
    check(errno > 0, "io_uring_queue_init");
    struct iovec all = {c.registered = room_for(REGISTERED), REGISTERED};
    errno = c.engine == URING_BATCH ? -io_uring_register_buffers(&c.ring, &all, 1) : 0;
    check(errno > 0, "io_uring_register_buffers");
    measure(&c, kernel, r);
    return 0;
  }
  fprintf(stderr, "usage: see the head of reference.c\n");
  return 2;
}
