"""What Python sees of ring.h and linux/tls.h, for cffi's API mode: the C compiler lays out every struct, not we."""

from cffi import FFI

# Name and salt, in bytes; key, iv and rec_seq are in the structs. Kernel headers of 5.4 and later have these four.
CIPHERS = ("aes_gcm_128", "aes_gcm_256", "aes_ccm_128", "chacha20_poly1305")
OPCODES = ("NOP", "CONNECT", "SEND", "RECV", "SENDMSG", "RECVMSG", "SHUTDOWN", "CLOSE", "POLL_ADD", "ASYNC_CANCEL")

builder = FFI()
builder.cdef(
    """
    #define KL_INTERRUPTED ...
    #define KL_FOREVER ...
    #define SOL_TLS ...
    #define TLS_TX ...
    #define TLS_RX ...
    #define TLS_SET_RECORD_TYPE ...
    #define TLS_GET_RECORD_TYPE ...
    #define IOSQE_IO_LINK ...
    #define IORING_SETUP_COOP_TASKRUN ...
    #define IORING_SETUP_SINGLE_ISSUER ...
    #define IORING_SETUP_DEFER_TASKRUN ...

    typedef struct kl_ring kl_ring;
    struct kl_operation {
      int opcode; int fd; uint64_t addr; uint32_t len; uint64_t off; uint32_t op_flags; uint8_t sqe_flags;
      uint64_t token; ...;
    };
    struct kl_completion { uint64_t token; int32_t res; uint32_t flags; ...; };
    struct kl_message { ...; };

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

    struct tls_crypto_info { uint16_t version; uint16_t cipher_type; ...; };
    """
    + "".join(f"#define IORING_OP_{name} ...\n" for name in OPCODES)
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
builder.set_source(
    "ktlslab.linux._native",
    # Old headers lack the two setup flags; the kernel answers EINVAL to what it does not know, and we go without.
    """
    #include "ring.h"
    #ifndef IORING_SETUP_COOP_TASKRUN
    #define IORING_SETUP_COOP_TASKRUN (1U << 8)
    #endif
    #ifndef IORING_SETUP_SINGLE_ISSUER
    #define IORING_SETUP_SINGLE_ISSUER (1U << 12)
    #endif
    #ifndef IORING_SETUP_DEFER_TASKRUN
    #define IORING_SETUP_DEFER_TASKRUN (1U << 13)
    #endif
    """.replace("\n    #", "\n#"),
)
