"""From secrets to keys: the arithmetic between a finished handshake and the kernel's ``struct tls12_crypto_info_*``.

TLS 1.3 gives each direction a traffic secret and expands it into a key and a 12-byte write IV (RFC 8446 7.3); a
KeyUpdate replaces the secret with its successor (7.2). TLS 1.2 expands one master secret into a block that holds the
keys of both directions (RFC 5246 6.3). The kernel takes the write IV in two parts, salt and iv; the functions at the
end split it.

All of this is HMAC, so the standard library is enough, and guests need nothing more.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import new as new_hash
from typing import TYPE_CHECKING

from .suites import Version

if TYPE_CHECKING:
    from .suites import Cipher, Suite

WRITE_IV_BYTES = 12
SEQUENCE_BYTES = 8
RANDOM_BYTES = 32
MASTER_SECRET_BYTES = 48


def hkdf_expand_label(secret: bytes, label: str, context: bytes, length: int, digest: str) -> bytes:
    """HKDF-Expand-Label of RFC 8446 7.1: `length` bytes from `secret`, for a `label` without its "tls13 " prefix.

    ValueError if a part is too long: label 255 bytes with the prefix, context 255 bytes, length 255 digests.
    """
    name = b"tls13 " + label.encode("ascii")
    if len(name) > 255 or len(context) > 255 or not 0 <= length <= 255 * _digest_bytes(digest):
        raise ValueError(f"no HKDF label of {len(name)} bytes with {len(context)} of context gives {length} bytes")
    info = length.to_bytes(2, "big") + bytes((len(name),)) + name + bytes((len(context),)) + context
    # HKDF-Expand, RFC 5869 2.3: each block is keyed by the secret and fed the block before.
    made = block = b""
    counter = 0
    while len(made) < length:
        counter += 1
        block = hmac.digest(secret, block + info + bytes((counter,)), digest)
        made += block
    return made[:length]


def traffic_key(secret: bytes, suite: Suite) -> tuple[bytes, bytes]:
    """Return a direction's (key, 12-byte write IV) from its traffic secret (RFC 8446 7.3).

    ValueError if the suite is not a TLS 1.3 suite, or the secret is not as long as its digest.
    """
    _check_traffic_secret(secret, suite)
    key = hkdf_expand_label(secret, "key", b"", suite.cipher.key_bytes, suite.digest)
    return key, hkdf_expand_label(secret, "iv", b"", WRITE_IV_BYTES, suite.digest)


def next_traffic_secret(secret: bytes, suite: Suite) -> bytes:
    """Return the traffic secret that follows `secret` after a KeyUpdate (RFC 8446 7.2). ValueError as above."""
    _check_traffic_secret(secret, suite)
    return hkdf_expand_label(secret, "traffic upd", b"", len(secret), suite.digest)


def prf(secret: bytes, label: bytes, seed: bytes, length: int, digest: str) -> bytes:
    """TLS 1.2's pseudorandom function (RFC 5246 5): `length` bytes. ValueError if `length` is negative."""
    if length < 0:
        raise ValueError(f"cannot make {length} bytes")
    seed = label + seed
    made = b""
    link = seed  # A(0); A(i) = HMAC(secret, A(i-1))
    while len(made) < length:
        link = hmac.digest(secret, link, digest)
        made += hmac.digest(secret, link + seed, digest)
    return made[:length]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBlock:
    """TLS 1.2's keys of both directions. An iv has 4 bytes for GCM and CCM (the salt), 12 for ChaCha20."""

    client_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    client_iv: bytes = field(repr=False)
    server_iv: bytes = field(repr=False)


def key_block(master_secret: bytes, client_random: bytes, server_random: bytes, suite: Suite) -> KeyBlock:
    """Expand a 48-byte master secret and the hellos' 32-byte randoms into keys (RFC 5246 6.3; 5288, 6655, 7905).

    ValueError if the suite is not a TLS 1.2 suite, or a length is wrong.
    """
    if suite.version is not Version.TLS12:
        raise ValueError(f"{suite.name} belongs to {suite.version.label}, which has no key block")
    for what, value, length in (
        ("master secret", master_secret, MASTER_SECRET_BYTES),
        ("client random", client_random, RANDOM_BYTES),
        ("server random", server_random, RANDOM_BYTES),
    ):
        if len(value) != length:
            raise ValueError(f"a {what} has {length} bytes, not {len(value)}")
    key, iv = suite.cipher.key_bytes, suite.cipher.fixed_iv_bytes
    # The server's random comes first here, unlike in the derivation of the master secret. An AEAD has no MAC keys.
    block = prf(master_secret, b"key expansion", server_random + client_random, 2 * (key + iv), suite.digest)
    return KeyBlock(
        client_key=block[:key],
        server_key=block[key : 2 * key],
        client_iv=block[2 * key : 2 * key + iv],
        server_iv=block[2 * key + iv :],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelIv:
    """A write IV as in ``struct tls12_crypto_info_*``: `Cipher.salt_bytes` and `Cipher.iv_bytes` long."""

    salt: bytes = field(repr=False)
    iv: bytes = field(repr=False)


def split_write_iv(write_iv: bytes, cipher: Cipher) -> KernelIv:
    """Split TLS 1.3's 12-byte write IV for the kernel; ChaCha20's salt is empty. ValueError if not 12 bytes."""
    _check_write_iv(write_iv)
    return KernelIv(salt=write_iv[: cipher.salt_bytes], iv=write_iv[cipher.salt_bytes :])


def kernel_iv_tls12(fixed_iv: bytes, sequence: int, cipher: Cipher) -> KernelIv:
    """Make the kernel's write IV from a `KeyBlock` iv and the sequence number of the next record.

    GCM and CCM: the salt is the fixed iv, and the iv is the first explicit nonce, which the kernel then increments.
    Starting at the sequence number keeps nonces unique under the key (RFC 5288 3). ChaCha20: the salt is empty, and the
    iv is the fixed iv (RFC 7905 2). ValueError if a length or the number is out of range.
    """
    if len(fixed_iv) != cipher.fixed_iv_bytes:
        raise ValueError(f"{cipher.name} has a fixed iv of {cipher.fixed_iv_bytes} bytes, not {len(fixed_iv)}")
    explicit = sequence_bytes(sequence)
    if cipher.explicit_nonce_bytes:
        return KernelIv(salt=fixed_iv, iv=explicit)
    return KernelIv(salt=b"", iv=fixed_iv)


def sequence_bytes(number: int) -> bytes:
    """Return a sequence number as the kernel's ``rec_seq``: 8 bytes, big-endian. ValueError if out of range."""
    if not 0 <= number < 2**64:
        raise ValueError(f"a sequence number is between 0 and 2**64 - 1, not {number}")
    return number.to_bytes(SEQUENCE_BYTES, "big")


def sequence_number(data: bytes) -> int:
    """Return the sequence number in the 8 bytes of a ``rec_seq``. ValueError if there are not 8."""
    if len(data) != SEQUENCE_BYTES:
        raise ValueError(f"a sequence number has {SEQUENCE_BYTES} bytes, not {len(data)}")
    return int.from_bytes(data, "big")


def record_nonce(write_iv: bytes, sequence: int) -> bytes:
    """Return a record's nonce: write IV XOR sequence number (RFC 8446 5.3). ValueError if a size is out of range."""
    _check_write_iv(write_iv)
    padded = bytes(WRITE_IV_BYTES - SEQUENCE_BYTES) + sequence_bytes(sequence)
    return bytes(a ^ b for a, b in zip(write_iv, padded, strict=True))


def _check_write_iv(write_iv: bytes) -> None:
    if len(write_iv) != WRITE_IV_BYTES:
        raise ValueError(f"a write IV has {WRITE_IV_BYTES} bytes, not {len(write_iv)}")


def _check_traffic_secret(secret: bytes, suite: Suite) -> None:
    if suite.version is not Version.TLS13:
        raise ValueError(f"{suite.name} belongs to {suite.version.label}, which has no traffic secrets")
    if len(secret) != _digest_bytes(suite.digest):
        raise ValueError(f"{suite.name} has traffic secrets of {_digest_bytes(suite.digest)} bytes, not {len(secret)}")


def _digest_bytes(digest: str) -> int:
    return new_hash(digest).digest_size
