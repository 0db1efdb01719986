"""AES-GCM block by block gives what the library gives in one call, and the test cases of its specification."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from ktlslab.tls import gcm
from ktlslab.tls.keyschedule import record_nonce
from ktlslab.tls.protect import seal
from ktlslab.tls.suites import Suite

KEYS = st.sampled_from((16, 32)).flatmap(lambda size: st.binary(min_size=size, max_size=size))
NONCES = st.binary(min_size=12, max_size=12)


def test_the_specification_s_test_case_4():
    """Of "The Galois/Counter Mode of Operation" (McGrew and Viega), appendix B."""
    key, nonce = bytes.fromhex("feffe9928665731c6d6a8f9467308308"), bytes.fromhex("cafebabefacedbaddecaf888")
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    additional = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    sealed = gcm.crypt(key, nonce, plain)
    assert sealed.hex().startswith("42831ec2217774244b7221b784d0d49c")
    assert gcm.tag(key, nonce, additional, sealed).hex() == "5bc94fbc3221a5db94fae95ae7121a47"


@given(KEYS, NONCES, st.binary(max_size=70), st.binary(max_size=40))
def test_it_agrees_with_the_library(key, nonce, plain, additional):
    sealed = gcm.crypt(key, nonce, plain)
    assert sealed + gcm.tag(key, nonce, additional, sealed) == AESGCM(key).encrypt(nonce, plain, additional)
    assert gcm.crypt(key, nonce, sealed) == plain


def test_it_opens_a_record():
    suite, key, write_iv = Suite.TLS_AES_128_GCM_SHA256, bytes(range(16)), bytes(range(12))
    record = seal(suite, key, write_iv, 5, 23, b"a record")
    nonce, sealed = record_nonce(write_iv, 5), record[5:-16]
    assert gcm.crypt(key, nonce, sealed) == b"a record\x17"
    assert gcm.tag(key, nonce, record[:5], sealed) == record[-16:]


def test_other_lengths_are_refused():
    with pytest.raises(ValueError, match="blocks of 16 bytes, not 15"):
        gcm.aes_block(bytes(16), bytes(15))
    with pytest.raises(ValueError, match="key size"):
        gcm.aes_block(bytes(15), bytes(16))
    for nonce, number in ((bytes(11), 1), (bytes(12), -1), (bytes(12), 1 << 32)):
        with pytest.raises(ValueError, match="12 bytes of nonce"):
            gcm.counter_block(nonce, number)
