/* What the newest kernels take and older headers lack: values and layouts of linux/tls.h and linux/io_uring.h. A kernel that
 * does not know one answers with an errno, which is what we want to see. */
#ifndef KTLSLAB_COMPAT_H
#define KTLSLAB_COMPAT_H

#include <liburing.h>
#include <linux/tls.h>

#ifndef TLS_TX_ZEROCOPY_RO
#define TLS_TX_ZEROCOPY_RO 3
#endif
#ifndef TLS_RX_EXPECT_NO_PAD
#define TLS_RX_EXPECT_NO_PAD 4
#endif
#ifndef TLS_TX_MAX_PAYLOAD_LEN
#define TLS_TX_MAX_PAYLOAD_LEN 5
#endif

/* iv, key, salt and rec_seq in bytes, as every struct of linux/tls.h has them */
#define KL_CRYPTO_INFO(name, iv_bytes, key_bytes, salt_bytes) \
  struct tls12_crypto_info_##name {                           \
    struct tls_crypto_info info;                              \
    unsigned char iv[iv_bytes];                               \
    unsigned char key[key_bytes];                             \
    unsigned char salt[salt_bytes];                           \
    unsigned char rec_seq[8];                                 \
  };
#ifndef TLS_CIPHER_SM4_GCM
#define TLS_CIPHER_SM4_GCM 55
KL_CRYPTO_INFO(sm4_gcm, 8, 16, 4)
#endif
#ifndef TLS_CIPHER_SM4_CCM
#define TLS_CIPHER_SM4_CCM 56
KL_CRYPTO_INFO(sm4_ccm, 8, 16, 4)
#endif
#ifndef TLS_CIPHER_ARIA_GCM_128
#define TLS_CIPHER_ARIA_GCM_128 57
KL_CRYPTO_INFO(aria_gcm_128, 8, 16, 4)
#endif
#ifndef TLS_CIPHER_ARIA_GCM_256
#define TLS_CIPHER_ARIA_GCM_256 58
KL_CRYPTO_INFO(aria_gcm_256, 8, 32, 4)
#endif

/* These are enumerators where they are known at all, which #ifndef cannot see: names of our own. */
#define KL_OP_SEND_ZC 47
#define KL_OP_URING_CMD 46
#define KL_SOCKET_SETSOCKOPT 3

#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#endif
#ifndef IORING_SETUP_TASKRUN_FLAG
#define IORING_SETUP_TASKRUN_FLAG (1U << 9)
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif
#ifndef IORING_RECV_MULTISHOT
#define IORING_RECV_MULTISHOT (1U << 1)
#endif
#ifndef IORING_CQE_F_NOTIF
#define IORING_CQE_F_NOTIF (1U << 3)
#endif

#endif
