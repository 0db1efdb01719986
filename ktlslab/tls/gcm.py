"""AES-GCM taken apart, block by block (NIST SP 800-38D): what `protect` lets a library do in one call.

For lessons: it is slow, and its time depends on the key. TLS gives GCM a nonce of 12 bytes, so the counter block of
number n is the nonce and n in four bytes (7.1). Block 1 masks the tag, blocks 2, 3, ... make the keystream.

This module imports `cryptography`, so `ktlslab.tls` does not import it.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK_BYTES = 16
NONCE_BYTES = 12
_REDUCTION = 0xE1 << 120  # SP 800-38D 6.3: the polynomial, its lowest power in the leftmost bit


def aes_block(key: bytes, block: bytes) -> bytes:
    """Return AES of one block of 16 bytes. ValueError if key or block have another length than AES knows."""
    if len(block) != BLOCK_BYTES:
        raise ValueError(f"AES takes blocks of {BLOCK_BYTES} bytes, not {len(block)}")
    cipher = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305 - one block of counter mode
    encryptor = cipher.encryptor()
    return encryptor.update(block) + encryptor.finalize()


def counter_block(nonce: bytes, number: int) -> bytes:
    """Return the block that AES encrypts: the nonce, and a block's number in four bytes. ValueError: out of range."""
    if len(nonce) != NONCE_BYTES or not 0 <= number < 1 << 32:
        raise ValueError(f"a counter block is {NONCE_BYTES} bytes of nonce and a number of 32 bits")
    return nonce + number.to_bytes(4, "big")


def xor(left: bytes, right: bytes) -> bytes:
    """Return the XOR of two strings of bytes, as long as the shorter one."""
    return bytes(a ^ b for a, b in zip(left, right, strict=False))


def crypt(key: bytes, nonce: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt, which is the same: data XOR keystream (SP 800-38D 6.5). ValueError as above."""
    pieces = [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]
    made = (xor(piece, aes_block(key, counter_block(nonce, at))) for at, piece in enumerate(pieces, start=2))
    return b"".join(made)


def ghash(hash_key: bytes, additional: bytes, ciphertext: bytes) -> bytes:
    """Return GHASH of additional data and ciphertext, each padded to blocks, and of their lengths (6.4, 7.1).

    `hash_key` is AES of a block of zeros.
    """
    lengths = (8 * len(additional)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
    data = _padded(additional) + _padded(ciphertext) + lengths
    factor, sum_of = int.from_bytes(hash_key, "big"), 0
    for at in range(0, len(data), BLOCK_BYTES):
        sum_of = _multiplied(sum_of ^ int.from_bytes(data[at : at + BLOCK_BYTES], "big"), factor)
    return sum_of.to_bytes(BLOCK_BYTES, "big")


def tag(key: bytes, nonce: bytes, additional: bytes, ciphertext: bytes) -> bytes:
    """Return the tag: GHASH XOR AES of counter block 1 (7.1). ValueError as above."""
    mask = aes_block(key, counter_block(nonce, 1))
    return xor(ghash(aes_block(key, bytes(BLOCK_BYTES)), additional, ciphertext), mask)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK_BYTES)


def _multiplied(left: int, right: int) -> int:
    """Multiply in the field of 2**128 elements, whose bits are numbered from the left (6.3)."""
    product = 0
    for bit in reversed(range(128)):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (_REDUCTION if right & 1 else 0)
    return product
