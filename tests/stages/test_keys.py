"""What is exported is what protects the records on the wire, and it shows itself to no one who did not ask."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
from OpenSSL import SSL

from ktlslab.errors import HandshakeError, SuiteUnsupportedError, UsageError
from ktlslab.linux.ktls import CryptoInfo
from ktlslab.stages import Secret, Stream, connect, export, handshake
from ktlslab.tls.libraries import openssl
from ktlslab.tls.protect import open_record, seal
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite, Version

TLS13 = Suite.TLS_AES_128_GCM_SHA256
TLS12 = Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256


def test_the_keys_open_what_openssl_sends_and_seal_what_it_accepts(tls_pair, suite):
    pair = tls_pair(suite=suite)
    keys = export(pair.handshake)
    first = seal(suite, keys.tx.key.reveal(), keys.tx.write_iv.reveal(), keys.tx.sequence, 23, b"sealed by hand")
    pair.connection.socket.sendall(first)
    assert pair.tls.recv(100) == b"sealed by hand"
    sent = pair.handshake.machine.encrypt(b"sealed by the library")
    opened = open_record(suite, keys.tx.key.reveal(), keys.tx.write_iv.reveal(), keys.tx.sequence, sent)
    assert opened == (ContentType.APPLICATION_DATA, b"sealed by the library")


def test_the_kernels_struct_is_made_of_the_same_bytes(tls_pair, suite):
    keys = export(tls_pair(suite=suite).handshake)
    for side in (keys.tx, keys.rx):
        info = side.crypto_info()
        assert (info.version, info.cipher_type) == (suite.version.wire, suite.cipher.kernel_type)
        assert info.key == side.key.reveal()
        write_iv = side.write_iv.reveal()
        assert (info.salt + info.iv)[: len(write_iv)] == write_iv
        assert int.from_bytes(info.rec_seq, "big") == side.sequence
        if suite.version is Version.TLS12 and suite.cipher.salt_bytes:
            assert info.iv == info.rec_seq
        assert CryptoInfo.unpack(bytes(info.pack())) == info


def test_records_sent_before_the_export_are_counted(tls_pair):
    for suite in (TLS12, TLS13):
        pair = tls_pair(suite=suite)
        before = export(pair.handshake)
        for text in (b"one", b"two", b"x" * 20_000):
            pair.connection.socket.sendall(pair.handshake.machine.encrypt(text))
        after = export(pair.handshake)
        assert after.tx.sequence - before.tx.sequence == 4  # 20,000 bytes take two records
        assert after.rx.sequence == before.rx.sequence


def test_records_taken_in_before_the_export_are_counted(tls_pair):
    pair = tls_pair(suite=TLS12, first=b"data")
    before = export(pair.handshake)
    sock = pair.connection.socket
    header = sock.recv(5)
    pair.handshake.machine.feed(header + sock.recv(int.from_bytes(header[3:], "big")))
    with pytest.raises(HandshakeError, match=r"Read them first: the kernel cannot take over in the middle of a record"):
        pair.handshake.machine.library.connection.recv(1) and export(pair.handshake)
    pair.handshake.machine.library.connection.recv(100)
    assert export(pair.handshake).rx.sequence == before.rx.sequence + 1


def test_a_suite_that_no_kernel_knows_is_an_error_that_says_what_to_use(tls_pair):
    pair = tls_pair(ciphers="ECDHE-ECDSA-AES128-SHA")
    assert pair.handshake.suite is None
    with pytest.raises(SuiteUnsupportedError, match=r"ECDHE-ECDSA-AES128-SHA: .*no cipher type.*Use userspace TLS"):
        export(pair.handshake)


def test_no_key_shows_itself_unless_it_is_asked_by_name(tls_pair):
    keys = export(tls_pair(suite=TLS13).handshake)
    shown = repr(keys) + keys._repr_html_() + repr(keys.tx) + str(keys.tx.key) + f"{keys.rx.write_iv!r:>40}"
    for secret in (keys.tx.key, keys.tx.write_iv, keys.rx.key, keys.rx.write_iv):
        assert secret.reveal().hex() not in shown
        assert repr(secret.reveal()) not in shown
    assert "key bytes not shown" in repr(keys)
    assert repr(keys.tx.key) == "<16 bytes, not shown>"
    info = keys.tx.crypto_info()
    assert repr(keys.tx.key.reveal()) not in repr(info)


def test_wiping_overwrites_the_bytes_and_forgets_them(tls_pair):
    keys = export(tls_pair(suite=TLS13).handshake)
    held = [side._data for side in (keys.tx.key, keys.tx.write_iv, keys.rx.key, keys.rx.write_iv)]
    keys.wipe()
    assert all(data == b"" for data in held)
    assert "wiped" in repr(keys)
    with pytest.raises(UsageError, match="was wiped"):
        keys.tx.key.reveal()
    with pytest.raises(UsageError, match="was wiped"):
        keys.tx.crypto_info()


def test_secrets_compare_by_their_bytes_and_cannot_be_hashed():
    assert Secret(b"abc") == Secret(b"abc")
    assert Secret(b"abc") != Secret(b"abd")
    assert Secret(b"abc") != b"abc"
    assert len(Secret(b"abc")) == 3
    with pytest.raises(TypeError):
        hash(Secret(b"abc"))


def test_a_copy_of_a_secret_shows_as_little():
    for other in (copy.copy(Secret(b"abc")), copy.deepcopy(Secret(b"abc"))):
        assert repr(other) == "<3 bytes, not shown>"
    assert pickle.loads(pickle.dumps(Secret(b"abc"))) == Secret(b"abc")  # noqa: S301 - made right here


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"suite": Suite.TLS_AES_128_GCM_SHA256}, "key has 32 bytes.*TLS_AES_128_GCM_SHA256 it has 16"),
        ({"suite": Suite.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}, "write_iv has 12 bytes.* it has 4"),
        ({"suite": "TLS_AES_256_GCM_SHA384"}, "`suite` is of type str"),
        ({"key": bytes(32)}, "`key` is of type bytes"),
        ({"write_iv": Secret(bytes(11))}, "write_iv has 11 bytes.* it has 12"),
        ({"sequence": -1}, "`sequence` is -1"),
        ({"sequence": 1 << 64}, "`sequence` is 18446744073709551616"),
    ],
)
def test_keys_that_their_suite_cannot_have_are_refused_where_they_are_made(tls_pair, other, says):
    keys = export(tls_pair(suite=Suite.TLS_AES_256_GCM_SHA384).handshake)
    with pytest.raises(UsageError, match=says):
        dataclasses.replace(keys.tx, **other)
    keys.wipe()
    assert dataclasses.replace(keys.tx, sequence=1).key.wiped


@pytest.mark.parametrize("io_engine", ["syscall", "uring"])
def test_once_a_stream_moved_bytes_that_nobody_counted_there_is_no_export(tls_pair, io_engine):
    pair = tls_pair(io_engine=io_engine, first=b"data")
    stream = Stream(pair.connection, pair.handshake)
    assert stream.recv() == b"data"
    with pytest.raises(HandshakeError, match="were not counted"):
        export(pair.handshake)


@pytest.mark.parametrize(
    ("version", "name"),
    [(Version.TLS12, "ECDHE-ECDSA-AES128-CCM8"), (Version.TLS13, "TLS_AES_128_CCM_8_SHA256")],
    ids=["1.2", "1.3"],
)
def test_a_session_with_short_tags_is_never_exported_as_its_neighbour(
    tcp_peer, certificates, monkeypatch, version, name
):
    """The kernel would take CCM_8's keys for CCM's, and the peer would see bad records. ktlslab does not offer it."""

    def limited(context):
        context.set_cipher_list(b"ALL:@SECLEVEL=0")  # OpenSSL thinks little of 64 bits of tag
        if version is Version.TLS13:
            context.set_tls13_ciphersuites(name.encode())
        else:
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            context.set_cipher_list(f"{name}:@SECLEVEL=0".encode())
        return context

    offer = openssl.client_context
    monkeypatch.setattr(openssl, "client_context", lambda config: limited(offer(config)))
    server = limited(SSL.Context(SSL.TLS_SERVER_METHOD))
    server.use_certificate_chain_file(str(certificates.server("good")))
    server.use_privatekey_file(str(certificates.server("good")))

    def answer(sock):
        sock.settimeout(None)
        tls = SSL.Connection(server, sock)
        tls.set_accept_state()
        tls.do_handshake()

    peer = tcp_peer(answer)
    with connect("localhost", peer.port) as connection:
        shaken = handshake(connection, certificates.config())
        assert (shaken.suite, shaken.suite_name, shaken.version) == (None, name, version)
        with pytest.raises(SuiteUnsupportedError, match="no cipher type for this suite"):
            export(shaken)
