"""Sealed records open to what was sealed, and do not open once a bit of record, key, nonce or number differs."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from ktlslab.tls.keyschedule import record_nonce
from ktlslab.tls.protect import open_record, seal
from ktlslab.tls.records import MAX_PLAINTEXT, ContentType, RecordHeader
from ktlslab.tls.suites import CIPHERS, RARE_CIPHERS, Suite, Version

TLS13 = Suite.TLS_AES_128_GCM_SHA256
TLS12 = Suite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
KEY = bytes(range(16))
WRITE_IV = bytes(range(12))

SEALED = [suite for suite in Suite if suite.cipher in CIPHERS]  # `cryptography` does not have ARIA and SM4 as AEADs
suites = st.sampled_from(SEALED)
kinds = st.sampled_from(ContentType)
sequences = st.integers(0, 2**64 - 1)


def keys_of(suite: Suite) -> tuple[bytes, bytes]:
    nonce_bytes = 12 if suite.version is Version.TLS13 else suite.cipher.fixed_iv_bytes
    return bytes(range(suite.cipher.key_bytes)), bytes(range(100, 100 + nonce_bytes))


@given(suite=suites, sequence=sequences, kind=kinds, plaintext=st.binary(max_size=100))
def test_what_was_sealed_opens(suite, sequence, kind, plaintext):
    key, write_iv = keys_of(suite)
    record = seal(suite, key, write_iv, sequence, kind, plaintext)
    assert open_record(suite, key, write_iv, sequence, record) == (kind, plaintext)
    header = RecordHeader.parse(record[:5])
    assert header.length == len(record) - 5
    assert header.content_type == (ContentType.APPLICATION_DATA if suite.version is Version.TLS13 else kind)
    overhead = 1 + 16 if suite.version is Version.TLS13 else 16 + suite.cipher.explicit_nonce_bytes
    assert header.length == len(plaintext) + overhead


@given(suite=suites, plaintext=st.binary(max_size=40), data=st.data())
def test_a_flipped_bit_never_opens(suite, plaintext, data):
    key, write_iv = keys_of(suite)
    record = bytearray(seal(suite, key, write_iv, 7, ContentType.APPLICATION_DATA, plaintext))
    bit = data.draw(st.integers(0, 8 * len(record) - 1))
    record[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError):  # noqa: PT011 - which check finds it depends on the bit
        open_record(suite, key, write_iv, 7, bytes(record))


@given(suite=suites, sequence=sequences, other=sequences)
def test_a_record_opens_at_its_own_place_only(suite, sequence, other):
    key, write_iv = keys_of(suite)
    record = seal(suite, key, write_iv, sequence, ContentType.ALERT, b"\x01\x00")
    if other != sequence:
        with pytest.raises(ValueError, match="does not open"):
            open_record(suite, key, write_iv, other, record)


@pytest.mark.parametrize("suite", SEALED)
def test_another_key_or_nonce_does_not_open(suite):
    key, write_iv = keys_of(suite)
    record = seal(suite, key, write_iv, 0, ContentType.APPLICATION_DATA, b"data")
    for wrong in ((key[::-1], write_iv), (key, write_iv[::-1])):
        with pytest.raises(ValueError, match="does not open"):
            open_record(suite, *wrong, 0, record)


@pytest.mark.parametrize("suite", SEALED)
def test_keys_and_nonces_of_other_lengths_are_refused(suite):
    key, write_iv = keys_of(suite)
    record = seal(suite, key, write_iv, 0, ContentType.APPLICATION_DATA, b"data")
    for wrong in ((key + b"x", write_iv), (key, write_iv[:-1])):
        with pytest.raises(ValueError, match=r"has (keys of|a fixed iv of|12 bytes)"):
            seal(suite, *wrong, 0, ContentType.APPLICATION_DATA, b"data")
        with pytest.raises(ValueError, match=r"has (keys of|a fixed iv of|12 bytes)"):
            open_record(suite, *wrong, 0, record)


@given(plaintext=st.binary(max_size=30), padding=st.integers(0, 300))
def test_padding_is_taken_off_and_the_datas_own_zeros_are_not(plaintext, padding):
    plaintext += b"\0\0"
    record = seal(TLS13, KEY, WRITE_IV, 0, ContentType.HANDSHAKE, plaintext, padding=padding)
    assert len(record) == 5 + len(plaintext) + 1 + padding + 16
    assert open_record(TLS13, KEY, WRITE_IV, 0, record) == (ContentType.HANDSHAKE, plaintext)


def test_tls12_cannot_pad():
    with pytest.raises(ValueError, match="no padding"):
        seal(TLS12, KEY, b"salt", 0, ContentType.APPLICATION_DATA, b"", padding=1)


@pytest.mark.parametrize(("suite", "write_iv"), [(TLS13, WRITE_IV), (TLS12, b"salt")])
def test_a_full_record_fits_and_one_byte_more_does_not(suite, write_iv):
    record = seal(suite, KEY, write_iv, 0, ContentType.APPLICATION_DATA, bytes(MAX_PLAINTEXT))
    assert len(open_record(suite, KEY, write_iv, 0, record)[1]) == MAX_PLAINTEXT
    with pytest.raises(ValueError, match="at most 16384"):
        seal(suite, KEY, write_iv, 0, ContentType.APPLICATION_DATA, bytes(MAX_PLAINTEXT + 1))


@pytest.mark.parametrize("suite", SEALED)
@pytest.mark.parametrize("keep", [0, 4, 5, 12, -1])
def test_a_truncated_record_is_refused(suite, keep):
    key, write_iv = keys_of(suite)
    record = seal(suite, key, write_iv, 0, ContentType.APPLICATION_DATA, b"data")
    with pytest.raises(ValueError, match=r"5 bytes|header says"):
        open_record(suite, key, write_iv, 0, record[:keep])


@pytest.mark.parametrize("suite", SEALED)
def test_a_record_shorter_than_its_tag_is_refused(suite):
    key, write_iv = keys_of(suite)
    with pytest.raises(ValueError, match=r"does not open|no protected"):
        open_record(suite, key, write_iv, 0, b"\x17\x03\x03\x00\x03abc")


def seal_inner(inner: bytes) -> bytes:
    """Seal any TLSInnerPlaintext, including those that `seal` would not make."""
    header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
    return header + AESGCM(KEY).encrypt(record_nonce(WRITE_IV, 0), inner, header)


@pytest.mark.parametrize(
    ("inner", "complaint"),
    [
        (bytes(20), "only padding"),
        (b"", "only padding"),
        (b"data\x63", "99"),
        (bytes(MAX_PLAINTEXT + 1) + b"\x17", "16386 bytes"),
    ],
)
def test_what_a_faulty_peer_could_seal_is_refused(inner, complaint):
    with pytest.raises(ValueError, match=complaint):
        open_record(TLS13, KEY, WRITE_IV, 0, seal_inner(inner))


@pytest.mark.parametrize("kind", [20, 21, 22])
def test_a_tls13_record_in_the_clear_is_no_protected_one(kind):
    with pytest.raises(ValueError, match="not a protected"):
        open_record(TLS13, KEY, WRITE_IV, 0, bytes((kind,)) + b"\x03\x03\x00\x02\x01\x00")


def test_an_unknown_content_type_is_refused():
    with pytest.raises(ValueError, match="99"):
        seal(TLS13, KEY, WRITE_IV, 0, 99, b"")


@pytest.mark.parametrize("suite", [suite for suite in Suite if suite.cipher in RARE_CIPHERS])
def test_a_cipher_that_cannot_be_done_here_is_never_taken_for_its_neighbour(suite):
    with pytest.raises(ValueError, match=f"no {suite.cipher.name} here"):
        seal(suite, bytes(suite.cipher.key_bytes), bytes(12), 0, 23, b"x")
