"""What Python sees of ring.h and linux/tls.h, in cffi's API mode: the C compiler lays out every struct."""

from cffi import FFI

CIPHERS = (
    "aes_gcm_128",
    "aes_gcm_256",
    "aes_ccm_128",
    "chacha20_poly1305",
    "sm4_gcm",
    "sm4_ccm",
    "aria_gcm_128",
    "aria_gcm_256",
)
OPCODES = (
    *("NOP", "CONNECT", "ACCEPT", "SEND", "RECV", "SENDMSG", "RECVMSG", "READ", "WRITE", "READ_FIXED", "WRITE_FIXED"),
    *("SPLICE", "SHUTDOWN", "CLOSE", "POLL_ADD", "TIMEOUT", "LINK_TIMEOUT", "ASYNC_CANCEL"),
)
CONSTANTS = (
    *("KL_RECORD_HEAD", "KL_OP_SEND_ZC", "KL_OP_URING_CMD", "KL_SOCKET_SETSOCKOPT"),
    *("SOL_TLS", "TLS_TX", "TLS_RX", "TLS_TX_ZEROCOPY_RO", "TLS_RX_EXPECT_NO_PAD", "TLS_TX_MAX_PAYLOAD_LEN"),
    *("TLS_SET_RECORD_TYPE", "TLS_GET_RECORD_TYPE"),
    *("IOSQE_FIXED_FILE", "IOSQE_IO_LINK", "IOSQE_IO_HARDLINK"),
    *("IORING_CQE_F_MORE", "IORING_CQE_F_NOTIF"),
    *("IORING_SETUP_SQPOLL", "IORING_SETUP_COOP_TASKRUN", "IORING_SETUP_TASKRUN_FLAG"),
    *("IORING_SETUP_SINGLE_ISSUER", "IORING_SETUP_DEFER_TASKRUN"),
)

builder = FFI()
builder.cdef(
    """
    typedef struct kl_ring kl_ring;
    typedef struct kl_buffers kl_buffers;
    typedef struct kl_multishot kl_multishot;
    struct kl_operation {
      int opcode; int fd; uint64_t addr; uint32_t len; uint64_t off; uint32_t op_flags; uint8_t sqe_flags;
      uint16_t ioprio; uint16_t buf_index; int32_t splice_fd_in; uint64_t addr3; uint64_t token; ...;
    };
    struct kl_message { ...; };
    struct __kernel_timespec { int64_t tv_sec; long long tv_nsec; ...; };

    const char *kl_liburing(void);
    kl_ring *kl_ring_open(unsigned entries, unsigned flags, int *error);
    void kl_ring_close(kl_ring *ring);
    void kl_ring_leave(kl_ring *ring);
    int kl_ring_fd(const kl_ring *ring);
    int kl_ring_supports(kl_ring *ring, int opcode);
    int kl_start(kl_ring *ring, struct kl_operation *operations, unsigned count);
    struct iovec { void *iov_base; size_t iov_len; ...; };
    int kl_register_files(kl_ring *ring, const int *fds, unsigned count);
    int kl_register_buffers(kl_ring *ring, const struct iovec *buffers, unsigned count, int in_flight);
    int kl_cancel(kl_ring *ring, uint64_t token);
    void kl_message_prepare(struct kl_message *message, void *data, size_t length, int record_type);
    int kl_message_type(const struct kl_message *message);

    kl_buffers *kl_buffers_open(kl_ring *ring, uint16_t group, unsigned count, unsigned size, int *error);
    int kl_buffers_close(kl_ring *ring, kl_buffers *buffers);
    kl_multishot *kl_multishot_open(kl_ring *ring, int fd, kl_buffers *buffers, int with_type);
    int kl_multishot_stop(kl_ring *ring, kl_multishot *shot);
    int kl_multishot_close(kl_ring *ring, kl_multishot *shot);

    typedef struct kl_server kl_server;
    struct kl_openssl { void *read, *write, *get_error, *bio_read, *bio_write; ...; };
    struct kl_served { int fd; void *ssl, *incoming, *outgoing; ...; };
    struct kl_exchange { const char *request, *response; size_t request_bytes, response_bytes; ...; };
    kl_server *kl_server_open(kl_ring *ring, const struct kl_served *served, unsigned count,
                              const struct kl_exchange *exchange, const struct kl_openssl *openssl, int *error);
    void kl_server_begin(kl_server *server, uint64_t responses, unsigned per_step, int64_t *took, int64_t spin_ns);
    int kl_server_run(kl_server *server);
    void kl_server_close(kl_server *server);

    struct tls_crypto_info { uint16_t version; uint16_t cipher_type; ...; };
    """
    + "".join(f"#define {name} ...\n" for name in (*CONSTANTS, *(f"IORING_OP_{opcode}" for opcode in OPCODES)))
    + "".join(
        f"""
        struct tls12_crypto_info_{name} {{
          struct tls_crypto_info info;
          unsigned char iv[...]; unsigned char key[...]; unsigned char salt[...]; unsigned char rec_seq[...];
          ...;
        }};
        #define TLS_CIPHER_{name.upper()} ...
        """
        for name in CIPHERS
    )
)
builder.set_source("ktlslab.linux._native", '#include "compat.h"\n#include "server.h"\n')
