"""Sealing and opening single records by hand, as OpenSSL and the kernel do it.

This is for teaching and checking. If keys and sequence number are right, a record that the kernel made opens here, and
the kernel accepts a record sealed here. The caller keeps track of keys and sequence numbers.

The two versions protect records differently. TLS 1.3 (RFC 8446 5.2) encrypts the content type after the data, labels
every record as application data, and authenticates the header. TLS 1.2 (RFC 5246 6.2.3.3) sends the type in clear,
authenticates sequence number, type, version and plaintext length, and with GCM and CCM sends 8 bytes of the nonce in
each record.

It imports `cryptography`, so `ktlslab.tls` does not import it. `gcm` takes AES-GCM itself apart, block by block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from .keyschedule import record_nonce, sequence_bytes
from .records import HEADER_BYTES, LEGACY_VERSION, MAX_CIPHERTEXT, MAX_PLAINTEXT, ContentType, RecordHeader
from .suites import AES_128_CCM, AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, Cipher, Suite, Version

if TYPE_CHECKING:
    from collections.abc import Callable

    Aead = AESGCM | AESCCM | ChaCha20Poly1305


def seal(  # noqa: PLR0917 - the order in which RFC 8446 5.2 speaks of them
    suite: Suite, key: bytes, write_iv: bytes, sequence: int, content_type: int, plaintext: bytes, *, padding: int = 0
) -> bytes:
    """Return one protected record, header included.

    `write_iv` is the 12 bytes of `traffic_key` for TLS 1.3, or the fixed IV of `key_block` for TLS 1.2, where the
    explicit nonce is the sequence number, as in the kernel. `padding` is the number of zero bytes to add (TLS 1.3
    only). ValueError if a length, a type or the sequence number is out of range.
    """
    kind = ContentType(content_type)
    if padding < 0 or len(plaintext) + padding > MAX_PLAINTEXT:
        raise ValueError(f"a record holds at most {MAX_PLAINTEXT} bytes, not {len(plaintext)} and {padding} of padding")
    aead = _aead(suite.cipher, key)
    if suite.version is Version.TLS13:
        inner = plaintext + bytes((kind,)) + bytes(padding)
        header = _header(ContentType.APPLICATION_DATA, len(inner) + suite.cipher.tag_bytes)
        return header + aead.encrypt(record_nonce(write_iv, sequence), inner, header)
    if padding:
        raise ValueError("TLS 1.2 has no padding with these ciphers")
    explicit = sequence_bytes(sequence)[: suite.cipher.explicit_nonce_bytes]
    authenticated = sequence_bytes(sequence) + _header(kind, len(plaintext))
    sealed = explicit + aead.encrypt(_nonce_tls12(suite.cipher, write_iv, explicit, sequence), plaintext, authenticated)
    return _header(kind, len(sealed)) + sealed


def open_record(suite: Suite, key: bytes, write_iv: bytes, sequence: int, record: bytes) -> tuple[ContentType, bytes]:
    """Return (content type, plaintext) of one whole record, header included. Arguments as for `seal`.

    ValueError if the record is malformed or changed, or was not sealed with this key, write IV and sequence number.
    """
    raw_header, sealed = record[:HEADER_BYTES], record[HEADER_BYTES:]
    header = RecordHeader.parse(raw_header)
    if header.length != len(sealed):
        raise ValueError(f"the header says {header.length} bytes, {len(sealed)} follow")
    aead = _aead(suite.cipher, key)
    if suite.version is Version.TLS13:
        if header.content_type != ContentType.APPLICATION_DATA or header.length > MAX_CIPHERTEXT:
            raise ValueError(f"not a protected TLS 1.3 record: {header}")
        return _unwrap(_opened(aead.decrypt, record_nonce(write_iv, sequence), sealed, raw_header))
    explicit_bytes = suite.cipher.explicit_nonce_bytes
    plain_bytes = len(sealed) - explicit_bytes - suite.cipher.tag_bytes
    if not 0 <= plain_bytes <= MAX_PLAINTEXT:
        raise ValueError(f"{len(sealed)} bytes are no protected TLS 1.2 record of {suite.cipher.name}")
    explicit, ciphertext = sealed[:explicit_bytes], sealed[explicit_bytes:]
    # The received version: a changed one must not open. The length is the plaintext's, the only part not on the wire.
    authenticated = sequence_bytes(sequence) + raw_header[:3] + plain_bytes.to_bytes(2, "big")
    per_record = _nonce_tls12(suite.cipher, write_iv, explicit, sequence)
    return ContentType(header.content_type), _opened(aead.decrypt, per_record, ciphertext, authenticated)


def _aead(cipher: Cipher, key: bytes) -> Aead:
    if len(key) != cipher.key_bytes:
        raise ValueError(f"{cipher.name} has keys of {cipher.key_bytes} bytes, not {len(key)}")
    if cipher is CHACHA20_POLY1305:
        return ChaCha20Poly1305(key)
    if cipher is AES_128_CCM:
        return AESCCM(key, tag_length=cipher.tag_bytes)
    if cipher in {AES_128_GCM, AES_256_GCM}:
        return AESGCM(key)
    raise ValueError(f"no {cipher.name} here: `cryptography` has it not as an AEAD")


def _header(content_type: int, length: int) -> bytes:
    return RecordHeader(content_type=content_type, legacy_version=LEGACY_VERSION, length=length).encode()


def _nonce_tls12(cipher: Cipher, fixed_iv: bytes, explicit: bytes, sequence: int) -> bytes:
    if len(fixed_iv) != cipher.fixed_iv_bytes:
        raise ValueError(f"{cipher.name} has a fixed iv of {cipher.fixed_iv_bytes} bytes, not {len(fixed_iv)}")
    # RFC 5288 3 and 6655 3 append the nonce in the record; RFC 7905 2 is the scheme of TLS 1.3.
    return fixed_iv + explicit if explicit else record_nonce(fixed_iv, sequence)


def _opened(
    decrypt: Callable[[bytes, bytes, bytes], bytes], nonce: bytes, sealed: bytes, authenticated: bytes
) -> bytes:
    try:
        return decrypt(nonce, sealed, authenticated)
    except InvalidTag:
        raise ValueError("the record does not open: other key, write IV or sequence number, or changed bytes") from None


def _unwrap(inner: bytes) -> tuple[ContentType, bytes]:
    """Split a TLSInnerPlaintext: data, the true content type, zero bytes of padding (RFC 8446 5.2 and 5.4)."""
    if len(inner) > MAX_PLAINTEXT + 1:
        raise ValueError(f"the record holds {len(inner)} bytes, TLS 1.3 allows {MAX_PLAINTEXT + 1}")
    unpadded = inner.rstrip(b"\0")
    if not unpadded:
        raise ValueError("the record holds only padding, no content type")
    return ContentType(unpadded[-1]), unpadded[:-1]
