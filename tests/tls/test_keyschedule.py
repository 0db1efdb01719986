"""The key schedule: published vectors, another implementation's results, and invalid lengths."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from ktlslab.tls.keyschedule import (
    KernelIv,
    KeyBlock,
    hkdf_expand_label,
    kernel_iv_tls12,
    key_block,
    next_traffic_secret,
    prf,
    record_nonce,
    sequence_bytes,
    sequence_number,
    split_write_iv,
    traffic_key,
)
from ktlslab.tls.suites import AES_128_CCM, AES_128_GCM, CHACHA20_POLY1305, CIPHERS, Suite, Version

DIGESTS = {"sha256": SHA256, "sha384": SHA384}
TLS12 = [suite for suite in Suite if suite.version is Version.TLS12]
TLS13 = [suite for suite in Suite if suite.version is Version.TLS13]
sequences = st.integers(0, 2**64 - 1)

# (digest, secret, seed, output), all with the label "test label": published on the TLS working group's mailing list,
# archived as msg03416.
PRF_VECTORS = [
    (
        "sha256",
        "9bbe436ba940f017b17652849a71db35",
        "a0ba9f936cda311827a6f796ffd5198c",
        (
            "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af"
            "0fa022f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701"
            "87347b66"
        ),
    ),
    (
        "sha384",
        "b80b733d6ceefcdc71566ea48e5567df",
        "cd665cf6a8447dd6ff8b27555edb7465",
        (
            "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0"
            "e534cb400fed2700884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d918425"
            "9b5bf8cd4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee691c8f3a26854308d5eaa3be85e099070"
            "3d73e56f"
        ),
    ),
]


@pytest.mark.parametrize(("digest", "secret", "seed", "output"), PRF_VECTORS)
def test_prf_gives_the_published_output(digest, secret, seed, output):
    wanted = bytes.fromhex(output)
    for length in (0, 1, 32, 33, len(wanted)):
        assert prf(bytes.fromhex(secret), b"test label", bytes.fromhex(seed), length, digest) == wanted[:length]


def test_prf_refuses_a_negative_length():
    with pytest.raises(ValueError, match="-1"):
        prf(b"secret", b"label", b"seed", -1, "sha256")


@given(
    secret=st.binary(min_size=32, max_size=48),
    label=st.text("abcdefghijklmnopqrstuvwxyz ", max_size=20),
    context=st.binary(max_size=48),
    length=st.integers(1, 200),
    digest=st.sampled_from(sorted(DIGESTS)),
)
def test_expand_label_is_hkdf_expand_of_the_hkdf_label(secret, label, context, length, digest):
    # struct HkdfLabel, RFC 8446 7.1: uint16 length, label<7..255>, context<0..255>.
    name = b"tls13 " + label.encode()
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + bytes([len(context)]) + context
    wanted = HKDFExpand(algorithm=DIGESTS[digest](), length=length, info=info).derive(secret)
    assert hkdf_expand_label(secret, label, context, length, digest) == wanted


@pytest.mark.parametrize(
    "bad", [{"label": "x" * 250}, {"context": bytes(256)}, {"length": -1}, {"length": 255 * 32 + 1}, {"label": "é"}]
)
def test_expand_label_refuses_what_does_not_fit(bad):
    good = {"secret": bytes(32), "label": "key", "context": b"", "length": 16, "digest": "sha256"}
    with pytest.raises(ValueError, match=r"label|ascii"):
        hkdf_expand_label(**(good | bad))


@pytest.mark.parametrize("suite", TLS13)
def test_traffic_keys_have_the_ciphers_lengths(suite):
    secret = bytes(range(48 if suite.digest == "sha384" else 32))
    key, write_iv = traffic_key(secret, suite)
    assert (len(key), len(write_iv)) == (suite.cipher.key_bytes, 12)
    after = next_traffic_secret(secret, suite)
    assert len(after) == len(secret)
    assert traffic_key(after, suite) != (key, write_iv)


@pytest.mark.parametrize("derive", [traffic_key, next_traffic_secret])
def test_a_traffic_secret_of_another_suite_is_refused(derive):
    with pytest.raises(ValueError, match="48 bytes, not 32"):
        derive(bytes(32), Suite.TLS_AES_256_GCM_SHA384)
    with pytest.raises(ValueError, match=r"belongs to TLS 1\.2"):
        derive(bytes(32), Suite.TLS_RSA_WITH_AES_128_GCM_SHA256)


@pytest.mark.parametrize("suite", TLS12)
def test_a_key_block_is_cut_in_rfc_5246s_order(suite):
    master, client_random, server_random = bytes(48), b"c" * 32, b"s" * 32
    keys = key_block(master, client_random, server_random, suite)
    assert len(keys.client_key) == len(keys.server_key) == suite.cipher.key_bytes
    assert len(keys.client_iv) == len(keys.server_iv) == (12 if suite.cipher is CHACHA20_POLY1305 else 4)
    block = keys.client_key + keys.server_key + keys.client_iv + keys.server_iv
    assert block == prf(master, b"key expansion", server_random + client_random, len(block), suite.digest)


@pytest.mark.parametrize("lengths", [(47, 32, 32), (48, 31, 32), (48, 32, 33)])
def test_a_key_block_of_wrong_lengths_is_refused(lengths):
    with pytest.raises(ValueError, match=r"has (48|32) bytes"):
        key_block(*map(bytes, lengths), Suite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)


def test_tls13_has_no_key_block():
    with pytest.raises(ValueError, match=r"belongs to TLS 1\.3"):
        key_block(bytes(48), bytes(32), bytes(32), Suite.TLS_AES_128_GCM_SHA256)


@given(write_iv=st.binary(min_size=12, max_size=12), cipher=st.sampled_from(CIPHERS))
def test_a_split_nonce_joins_again_and_fits_the_kernels_struct(write_iv, cipher):
    split = split_write_iv(write_iv, cipher)
    assert split.salt + split.iv == write_iv
    assert (len(split.salt), len(split.iv)) == (cipher.salt_bytes, cipher.iv_bytes)


def test_the_kernels_nonce_of_tls12():
    counted = kernel_iv_tls12(b"salt", 1, AES_128_GCM)
    assert counted == KernelIv(salt=b"salt", iv=b"\0\0\0\0\0\0\0\1")
    assert kernel_iv_tls12(b"salt", 1, AES_128_CCM) == counted
    assert kernel_iv_tls12(b"twelve bytes", 1, CHACHA20_POLY1305) == KernelIv(salt=b"", iv=b"twelve bytes")
    for fixed_iv, cipher in ((b"twelve bytes", AES_128_GCM), (b"salt", CHACHA20_POLY1305)):
        with pytest.raises(ValueError, match="fixed iv"):
            kernel_iv_tls12(fixed_iv, 1, cipher)


@given(sequences)
def test_sequence_numbers_survive(number):
    assert sequence_number(sequence_bytes(number)) == number


def test_sequence_numbers_have_their_big_end_first_and_bounds():
    assert sequence_bytes(0x0102) == b"\0\0\0\0\0\0\1\2"
    for number in (-1, 2**64):
        with pytest.raises(ValueError, match="sequence number"):
            sequence_bytes(number)
    for data in (bytes(7), bytes(9)):
        with pytest.raises(ValueError, match="8 bytes"):
            sequence_number(data)


@given(write_iv=st.binary(min_size=12, max_size=12), one=sequences, other=sequences)
def test_record_nonces_differ_exactly_as_sequence_numbers_do(write_iv, one, other):
    difference = int.from_bytes(record_nonce(write_iv, one), "big") ^ int.from_bytes(
        record_nonce(write_iv, other), "big"
    )
    assert difference == one ^ other
    assert record_nonce(write_iv, 0) == write_iv


@pytest.mark.parametrize("write_iv", [bytes(11), bytes(13)])
def test_other_nonces_are_refused(write_iv):
    with pytest.raises(ValueError, match="12 bytes"):
        record_nonce(write_iv, 0)
    with pytest.raises(ValueError, match="12 bytes"):
        split_write_iv(write_iv, AES_128_GCM)


def test_no_key_byte_is_in_a_repr():
    keys = KeyBlock(client_key=b"abcd", server_key=b"abcd", client_iv=b"abcd", server_iv=b"abcd")
    assert "abcd" not in repr(keys) + repr(KernelIv(salt=b"abcd", iv=b"abcd"))
