"""Cipher suites: the one table, which all other modules use.

A TLS cipher suite names more than a cipher: a version of TLS, a key exchange, how the server authenticates, the digest
of the key schedule. The kernel knows only the cipher. So there are two classes: `Cipher` is what
``struct tls12_crypto_info_*`` of ``linux/tls.h`` needs; `Suite` is what the peers negotiate, and maps to a cipher.

The table holds only suites whose cipher the kernel's ``tls`` module takes, because the kernel cannot check what it is
given. It would install the keys of an AES-128-CCM-8 session as AES-128-CCM, or those of a CBC session as GCM, and the
stream would then fail. So a suite that is not in the table is None, never a similar one.

Sources: the IANA registry "TLS Cipher Suites", RFC 8446 B.4, RFC 5288, 5289, 5487, 6209, 6655, 7251, 7905, 8998,
and ``linux/tls.h``.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from enum import Enum

from ktlslab.errors import UsageError

# How many full records (2**14 bytes) one key may protect: RFC 8446 5.5 for AES-GCM (a safety margin of about 2**-57),
# RFC 9147 4.5.3 and appendix B for AES-CCM. ChaCha20-Poly1305 runs out of sequence numbers first.
_GCM_RECORDS = int(2**24.5)
_CCM_RECORDS = 2**23
_ALL_RECORDS = 2**64 - 1


class Version(Enum):
    """A protocol version. `wire` is its number in a hello and in the kernel's struct; `label` is its display name."""

    TLS12 = (0x0303, "TLS 1.2")
    TLS13 = (0x0304, "TLS 1.3")

    wire: int
    label: str

    def __init__(self, wire: int, label: str) -> None:
        self.wire = wire
        self.label = label

    @classmethod
    def of(cls, value: Version | str) -> Version:
        """Return the version that `value` is or names: "1.2", "TLS 1.2", "TLSv1.2", "tls12". Raises UsageError."""
        digits = str(value).strip().lower().removeprefix("tls").strip(" v_").replace(".", "")
        for version in cls:
            if value is version or (isinstance(value, str) and version.label[-3:].replace(".", "") == digits):
                return version
        remedy = f"It is one of {', '.join(version.label for version in cls)}."
        raise UsageError("choosing a version of TLS", answered=f"there is no {value!r}", remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cipher:
    """An AEAD as the kernel sees it.

    `kernel_type` and `kernel_struct` are its number (``TLS_CIPHER_*``) and struct in ``linux/tls.h``.
    `kernel_algorithm` is what net/tls requests from the kernel's crypto API. The 12-byte write IV is split into
    `salt_bytes` and `iv_bytes`. `record_limit` is how many full records one key may protect (RFC 8446 5.5, RFC 9147
    4.5.3); smaller records allow more.
    """

    name: str
    kernel_type: int
    kernel_struct: str
    kernel_algorithm: str
    key_bytes: int
    salt_bytes: int
    iv_bytes: int
    tag_bytes: int
    record_limit: int

    @property
    def fixed_iv_bytes(self) -> int:
        """Bytes of write IV in TLS 1.2's key block: only the salt if records carry the rest, otherwise all 12."""
        return self.salt_bytes or self.iv_bytes

    @property
    def explicit_nonce_bytes(self) -> int:
        """Bytes of nonce in each TLS 1.2 record: 8 for GCM and CCM (RFC 5288 3, 6655 3), 0 for ChaCha20 (RFC 7905)."""
        return self.iv_bytes if self.salt_bytes else 0


AES_128_GCM = Cipher(
    name="AES-128-GCM",
    kernel_type=51,
    kernel_struct="tls12_crypto_info_aes_gcm_128",
    kernel_algorithm="gcm(aes)",
    key_bytes=16,
    salt_bytes=4,
    iv_bytes=8,
    tag_bytes=16,
    record_limit=_GCM_RECORDS,
)
AES_256_GCM = Cipher(
    name="AES-256-GCM",
    kernel_type=52,
    kernel_struct="tls12_crypto_info_aes_gcm_256",
    kernel_algorithm="gcm(aes)",
    key_bytes=32,
    salt_bytes=4,
    iv_bytes=8,
    tag_bytes=16,
    record_limit=_GCM_RECORDS,
)
AES_128_CCM = Cipher(
    name="AES-128-CCM",
    kernel_type=53,
    kernel_struct="tls12_crypto_info_aes_ccm_128",
    kernel_algorithm="ccm(aes)",
    key_bytes=16,
    salt_bytes=4,
    iv_bytes=8,
    tag_bytes=16,
    record_limit=_CCM_RECORDS,
)
CHACHA20_POLY1305 = Cipher(
    name="CHACHA20-POLY1305",
    kernel_type=54,
    kernel_struct="tls12_crypto_info_chacha20_poly1305",
    kernel_algorithm="rfc7539(chacha20,poly1305)",
    key_bytes=32,
    salt_bytes=0,
    iv_bytes=12,
    tag_bytes=16,
    record_limit=_ALL_RECORDS,
)
CIPHERS = (AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, AES_128_CCM)

# The kernel's tls module supports these too, but few distributions build them. They are never offered by default.
SM4_GCM = replace(
    AES_128_GCM, name="SM4-GCM", kernel_type=55, kernel_struct="tls12_crypto_info_sm4_gcm", kernel_algorithm="gcm(sm4)"
)
SM4_CCM = replace(
    AES_128_CCM, name="SM4-CCM", kernel_type=56, kernel_struct="tls12_crypto_info_sm4_ccm", kernel_algorithm="ccm(sm4)"
)
ARIA_128_GCM = replace(
    AES_128_GCM,
    name="ARIA-128-GCM",
    kernel_type=57,
    kernel_struct="tls12_crypto_info_aria_gcm_128",
    kernel_algorithm="gcm(aria)",
)
ARIA_256_GCM = replace(
    AES_256_GCM,
    name="ARIA-256-GCM",
    kernel_type=58,
    kernel_struct="tls12_crypto_info_aria_gcm_256",
    kernel_algorithm="gcm(aria)",
)
RARE_CIPHERS = (SM4_GCM, SM4_CCM, ARIA_128_GCM, ARIA_256_GCM)


class Suite(Enum):
    """A cipher suite; its name is IANA's.

    `iana_id` is the number in the hellos, `openssl_name` is OpenSSL's name, `cipher` is what the kernel needs,
    `version` is the only version that uses the suite, and `digest` is the hash of the key schedule by `hashlib`'s name.
    """

    # TLS 1.3 (RFC 8446 B.4), where OpenSSL uses IANA's names.
    TLS_AES_128_GCM_SHA256 = (0x1301, "TLS_AES_128_GCM_SHA256", AES_128_GCM, Version.TLS13, "sha256")
    TLS_AES_256_GCM_SHA384 = (0x1302, "TLS_AES_256_GCM_SHA384", AES_256_GCM, Version.TLS13, "sha384")
    TLS_CHACHA20_POLY1305_SHA256 = (0x1303, "TLS_CHACHA20_POLY1305_SHA256", CHACHA20_POLY1305, Version.TLS13, "sha256")
    TLS_AES_128_CCM_SHA256 = (0x1304, "TLS_AES_128_CCM_SHA256", AES_128_CCM, Version.TLS13, "sha256")

    # TLS 1.2, AES-GCM (RFC 5288, 5289).
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 = (
        0xC02B,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        AES_128_GCM,
        Version.TLS12,
        "sha256",
    )
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 = (
        0xC02C,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        AES_256_GCM,
        Version.TLS12,
        "sha384",
    )
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 = (
        0xC02F,
        "ECDHE-RSA-AES128-GCM-SHA256",
        AES_128_GCM,
        Version.TLS12,
        "sha256",
    )
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 = (
        0xC030,
        "ECDHE-RSA-AES256-GCM-SHA384",
        AES_256_GCM,
        Version.TLS12,
        "sha384",
    )
    TLS_DHE_RSA_WITH_AES_128_GCM_SHA256 = (0x009E, "DHE-RSA-AES128-GCM-SHA256", AES_128_GCM, Version.TLS12, "sha256")
    TLS_DHE_RSA_WITH_AES_256_GCM_SHA384 = (0x009F, "DHE-RSA-AES256-GCM-SHA384", AES_256_GCM, Version.TLS12, "sha384")
    TLS_RSA_WITH_AES_128_GCM_SHA256 = (0x009C, "AES128-GCM-SHA256", AES_128_GCM, Version.TLS12, "sha256")
    TLS_RSA_WITH_AES_256_GCM_SHA384 = (0x009D, "AES256-GCM-SHA384", AES_256_GCM, Version.TLS12, "sha384")

    # TLS 1.2, ChaCha20-Poly1305 (RFC 7905, which defines none with RSA key exchange).
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 = (
        0xCCA9,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CHACHA20_POLY1305,
        Version.TLS12,
        "sha256",
    )
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 = (
        0xCCA8,
        "ECDHE-RSA-CHACHA20-POLY1305",
        CHACHA20_POLY1305,
        Version.TLS12,
        "sha256",
    )
    TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256 = (
        0xCCAA,
        "DHE-RSA-CHACHA20-POLY1305",
        CHACHA20_POLY1305,
        Version.TLS12,
        "sha256",
    )

    # TLS 1.2, AES-CCM (RFC 6655, and 7251, which defines none with ECDHE and RSA).
    TLS_ECDHE_ECDSA_WITH_AES_128_CCM = (0xC0AC, "ECDHE-ECDSA-AES128-CCM", AES_128_CCM, Version.TLS12, "sha256")
    TLS_DHE_RSA_WITH_AES_128_CCM = (0xC09E, "DHE-RSA-AES128-CCM", AES_128_CCM, Version.TLS12, "sha256")
    TLS_RSA_WITH_AES_128_CCM = (0xC09C, "AES128-CCM", AES_128_CCM, Version.TLS12, "sha256")

    # TLS 1.2 with a pre-shared key and no certificates (RFC 5487, 6655, 7905).
    TLS_PSK_WITH_AES_128_GCM_SHA256 = (0x00A8, "PSK-AES128-GCM-SHA256", AES_128_GCM, Version.TLS12, "sha256")
    TLS_PSK_WITH_AES_256_GCM_SHA384 = (0x00A9, "PSK-AES256-GCM-SHA384", AES_256_GCM, Version.TLS12, "sha384")
    TLS_DHE_PSK_WITH_AES_128_GCM_SHA256 = (0x00AA, "DHE-PSK-AES128-GCM-SHA256", AES_128_GCM, Version.TLS12, "sha256")
    TLS_DHE_PSK_WITH_AES_256_GCM_SHA384 = (0x00AB, "DHE-PSK-AES256-GCM-SHA384", AES_256_GCM, Version.TLS12, "sha384")
    TLS_PSK_WITH_AES_128_CCM = (0xC0A4, "PSK-AES128-CCM", AES_128_CCM, Version.TLS12, "sha256")
    TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256 = (
        0xCCAC,
        "ECDHE-PSK-CHACHA20-POLY1305",
        CHACHA20_POLY1305,
        Version.TLS12,
        "sha256",
    )

    # SM4 in TLS 1.3 (RFC 8998), ARIA in TLS 1.2 (RFC 6209).
    TLS_SM4_GCM_SM3 = (0x00C6, "TLS_SM4_GCM_SM3", SM4_GCM, Version.TLS13, "sm3")
    TLS_SM4_CCM_SM3 = (0x00C7, "TLS_SM4_CCM_SM3", SM4_CCM, Version.TLS13, "sm3")
    TLS_ECDHE_ECDSA_WITH_ARIA_128_GCM_SHA256 = (
        0xC05C,
        "ECDHE-ECDSA-ARIA128-GCM-SHA256",
        ARIA_128_GCM,
        Version.TLS12,
        "sha256",
    )
    TLS_ECDHE_ECDSA_WITH_ARIA_256_GCM_SHA384 = (
        0xC05D,
        "ECDHE-ECDSA-ARIA256-GCM-SHA384",
        ARIA_256_GCM,
        Version.TLS12,
        "sha384",
    )
    TLS_ECDHE_RSA_WITH_ARIA_128_GCM_SHA256 = (
        0xC060,
        "ECDHE-ARIA128-GCM-SHA256",
        ARIA_128_GCM,
        Version.TLS12,
        "sha256",
    )
    TLS_ECDHE_RSA_WITH_ARIA_256_GCM_SHA384 = (
        0xC061,
        "ECDHE-ARIA256-GCM-SHA384",
        ARIA_256_GCM,
        Version.TLS12,
        "sha384",
    )

    iana_id: int
    openssl_name: str
    cipher: Cipher
    version: Version
    digest: str

    def __init__(self, iana_id: int, openssl_name: str, cipher: Cipher, version: Version, digest: str) -> None:
        self.iana_id = iana_id
        self.openssl_name = openssl_name
        self.cipher = cipher
        self.version = version
        self.digest = digest

    @classmethod
    def of(cls, value: Suite | str) -> Suite:
        """Return the suite that `value` is or names; case does not matter.

        The name is IANA's or OpenSSL's, or that of a cipher such as "AES-128-GCM", which stands for its TLS 1.3 suite
        or, if there is none, its first TLS 1.2 suite. UsageError suggests the nearest name.
        """
        if isinstance(value, Suite):
            return value
        known = {
            suite.cipher.name: suite for suite in sorted(cls, key=lambda suite: (suite.version.wire, -suite.iana_id))
        }
        known |= {name: suite for suite in cls for name in (suite.openssl_name, suite.name)}
        wanted = value.strip().upper() if isinstance(value, str) else ""
        if wanted in known:
            return known[wanted]
        near = difflib.get_close_matches(wanted, known, 1)
        ciphers = ", ".join(cipher.name for cipher in CIPHERS + RARE_CIPHERS)
        remedy = f"{f'Did you mean {near[0]}? ' if near else ''}Known: {ciphers}, and the names of IANA and OpenSSL."
        answered = f"there is no suite {value!r} that the kernel could take"
        raise UsageError("choosing a cipher suite", answered=answered, remedy=remedy)

    @classmethod
    def from_openssl(cls, name: str) -> Suite | None:
        """Return the suite with exactly this OpenSSL name, or None if the kernel has no cipher for it."""
        return next((suite for suite in cls if suite.openssl_name == name), None)

    @classmethod
    def from_id(cls, iana_id: int) -> Suite | None:
        """Return the suite with this number in IANA's registry, or None if the kernel has no cipher for it."""
        return next((suite for suite in cls if suite.iana_id == iana_id), None)
