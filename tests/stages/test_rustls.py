"""rustls in OpenSSL's place: what only it has, and what it lacks. What both do is in the other tests, by `library`."""

from __future__ import annotations

import contextlib
import gc
import mmap
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ktlslab.errors import CertificateError, HandshakeError, StreamError, UsageError
from ktlslab.session import accept_session, open_session
from ktlslab.stages import ClientConfig, Psk, ServerConfig, Stream, export
from ktlslab.stages.transfer import ending
from ktlslab.tls import keylog
from ktlslab.tls.libraries import RUSTLS_SUITES
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite, Version
from tests.handpeer import key_update

TLS13 = tuple(suite for suite in RUSTLS_SUITES if suite.version is Version.TLS13)
FDS = Path("/proc/self/fd")
NORESERVE = 0x4000  # MAP_NORESERVE of mmap(2): memory that is not there may be asked for
ROLES = [("rustls", "openssl"), ("openssl", "rustls"), ("rustls", "rustls")]


@pytest.fixture(autouse=True)
def no_long_farewell(monkeypatch):
    """Both ends are in one thread here: no one answers a close."""
    monkeypatch.setattr(ending, "LINGER_S", 0.05)


@pytest.fixture
def meet(certificates):
    """meet(client's options, server's options) -> (client session, server session), both closed at the end."""
    with contextlib.ExitStack() as ends:

        def start(client, server, **options):
            config = ServerConfig(certificate=certificates.server("good"), **server)
            with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
                accepting = pool.submit(accept_session, listener, config, **options)
                port = listener.getsockname()[1]
                try:
                    ours = open_session("localhost", port, config=certificates.config(**client), **options)
                    ends.callback(ours.close)
                finally:
                    listener.close()
                theirs = accepting.result()
            ends.callback(theirs.close)
            return ours, theirs

        yield start


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize(("client", "server"), ROLES)
def test_both_roles_agree_in_both_versions(meet, client, server, version, io_engine):
    options = {"versions": (version,), "alpn": ("h2", "http/1.1")}
    one, other = meet({"library": client, **options}, {"library": server, **options}, io_engine=io_engine)
    for session in (one, other):
        assert (session.version, session.alpn, session.resumed) == (version, "h2", False)
    assert one.suite is other.suite in RUSTLS_SUITES
    for sender, receiver in ((one, other), (other, one)):
        sender.stream.send(b"hello")
        assert receiver.stream.recv() == b"hello"


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize(("client", "server"), ROLES)
def test_both_ends_export_the_same_keys(meet, client, server, version):
    one, other = meet({"library": client, "versions": version}, {"library": server, "versions": version})
    ours, theirs = (session.handshake for session in (one, other))
    for label in ours.secrets.keys() & theirs.secrets.keys():
        assert ours.secrets[label] == theirs.secrets[label]
    needed = (
        {keylog.CLIENT_RANDOM}
        if version is Version.TLS12
        else {
            keylog.CLIENT_TRAFFIC_SECRET_0,
            keylog.SERVER_TRAFFIC_SECRET_0,
        }
    )
    assert needed <= ours.secrets.keys() & theirs.secrets.keys()


def test_a_session_exports_what_its_peer_exports(tls_pair):
    pair = tls_pair(suite=Suite.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, library="rustls")
    line = pair.handshake.secrets[keylog.CLIENT_RANDOM]
    assert (line.secret, line.client_random) == (pair.tls.master_key(), pair.tls.client_random())
    keys = export(pair.handshake)
    assert (keys.tx.sequence, keys.rx.sequence) == (1, 1)


@pytest.mark.parametrize("tickets", [0, 2, 8])
def test_tickets_are_left_in_the_socket_and_none_is_counted(s_server, certificates, tickets, io_engine):
    port = s_server("-rev", "-num_tickets", str(tickets))
    config = certificates.config(library="rustls")
    with open_session("localhost", port, config=config, record_layer="userspace", io_engine=io_engine) as session:
        assert session.handshake.machine.sequence_numbers == (0, 0)
        session.stream.send(b"desserts\n")
        assert session.stream.recv() == b"stressed\n"
        assert session.stream.resumption() is None


# Its secrets


def test_the_key_log_is_in_memory_and_empty_once_it_was_read(tls_pair):
    gc.collect()
    pair = tls_pair(library="rustls")
    assert pair.handshake.secrets
    logs = [path for path in FDS.iterdir() if path.is_symlink() and "memfd:keylog" in str(path.readlink())]
    assert len(logs) <= 1  # rustls' own descriptor
    assert b"".join(path.read_bytes() for path in logs) == b""


def test_a_failed_handshake_leaves_no_descriptor(s_server, certificates):
    port = s_server("-www", certificate="expired")

    def fail():
        with pytest.raises(CertificateError):
            open_session("localhost", port, config=certificates.config(library="rustls"))
        gc.collect()

    fail()
    before = len([*FDS.iterdir()])
    fail()
    assert len([*FDS.iterdir()]) == before


# Its part of a stream


@pytest.mark.parametrize("role", ["client", "server"])
def test_keys_change_at_the_peers_request(hand_peers, role, io_engine):
    stream, peer = hand_peers.open("userspace-rustls", io_engine, role)
    peer.update_keys(request=True)
    peer.send(b"after")
    assert stream.recv() == b"after"
    stream.send(b"answered")
    assert peer.receive() == (ContentType.HANDSHAKE, key_update())
    assert peer.receive() == (ContentType.APPLICATION_DATA, b"answered")


def test_a_record_that_does_not_open_is_answered_with_an_alert(hand_peers, io_engine):
    stream, peer = hand_peers.open("userspace-rustls", io_engine, "client")
    record = bytearray(peer.seal(ContentType.APPLICATION_DATA, b"damaged"))
    record[-1] ^= 1
    peer.sock.sendall(record)
    with pytest.raises(StreamError, match="cannot decrypt peer's message"):
        stream.recv()
    assert peer.receive() == (ContentType.ALERT, bytes([2, 20]))  # fatal bad_record_mac


def test_a_request_for_a_new_handshake_is_declined(hand_peers, io_engine):
    stream, peer = hand_peers.open("userspace-rustls", io_engine, "client", version=Version.TLS12)
    peer.send(bytes(4), ContentType.HANDSHAKE)  # HelloRequest
    peer.send(b"data")
    assert stream.recv() == b"data"
    stream.send(b"ours")
    assert peer.receive() == (ContentType.ALERT, bytes([1, 100]))  # warning no_renegotiation (RFC 5246, 7.4.1.1)
    assert peer.receive() == (ContentType.APPLICATION_DATA, b"ours")


def test_what_is_held_back_comes_with_what_follows(hand_peers, io_engine):
    stream, peer = hand_peers.open("userspace-rustls", io_engine, "client")
    stream.send(b"head ", more=True)
    stream.send(b"and body")
    assert peer.receive() == (ContentType.APPLICATION_DATA, b"head and body")


def test_a_buffer_may_be_larger_than_the_memory(hand_peers, io_engine):
    stream, peer = hand_peers.open("userspace-rustls", io_engine, "client")
    peer.send(b"little")
    with mmap.mmap(-1, 1 << 40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE) as room:
        assert stream.recv_into(room) == 6
        assert room[:6] == b"little"


def test_a_second_thread_is_refused_and_has_done_nothing(hand_peers, io_engine):
    stream, peer = hand_peers.open("userspace-rustls", io_engine, "client")
    got = []
    waiting = threading.Thread(target=lambda: got.append(stream.recv()))
    waiting.start()
    time.sleep(0.2)  # until it waits
    with pytest.raises(UsageError, match="another thread is using the stream"):
        stream.send(b"meanwhile")
    peer.send(b"data")
    waiting.join()
    assert got == [b"data"]
    stream.send(b"in turn")
    assert peer.receive() == (ContentType.APPLICATION_DATA, b"in turn")


# What it lacks


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"groups": "X25519"}, "`groups`"),
        ({"psk": Psk(identity="lab", key=b"agreed on")}, "`psk`"),
        ({"suites": Suite.TLS_AES_128_CCM_SHA256}, "TLS_AES_128_CCM_SHA256"),
        ({"suites": TLS13[:1]}, "some suites of TLS 1.3 without the others"),
        ({"suites": TLS13, "versions": Version.TLS12}, "versions without suites"),
    ],
    ids=["groups", "psk", "ccm", "one of three", "no version"],
)
def test_what_rtls_has_no_call_for_is_refused_with_a_way_out(certificates, options, says):
    for config in (
        lambda: ClientConfig(library="rustls", **options),
        lambda: ServerConfig(certificate=certificates.server("good"), library="rustls", **options),
    ):
        with pytest.raises(UsageError, match=rf'has no {says}.*library="openssl"'):
            config()


def test_a_server_cannot_ask_for_certificates_and_a_client_cannot_resume(certificates, tls_pair):
    with pytest.raises(UsageError, match="`client_ca`"):
        ServerConfig(certificate=certificates.server("good"), library="rustls", client_ca=certificates.ca)
    pair = tls_pair(suite=Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
    former = Stream(pair.connection, pair.handshake).resumption()
    with pytest.raises(UsageError, match="`resume`"):
        certificates.config(library="rustls", resume=former)


@pytest.mark.parametrize("suites", [None, TLS13, [Suite.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, *TLS13]])
def test_all_suites_of_tls13_or_none_may_be_named(meet, suites):
    one, _ = meet({"library": "rustls", "suites": suites}, {"library": "rustls", "suites": suites})
    assert one.suite in TLS13


def test_the_suites_of_tls12_are_limited(meet):
    suite = Suite.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    for client, server in (({"suites": suite}, {}), ({}, {"suites": suite})):
        one, _ = meet({"library": "rustls", **client}, {"library": "rustls", **server})
        assert one.suite is suite


def test_no_common_suite_is_said_by_whoever_finds_out(meet):
    with pytest.raises(HandshakeError, match="the peer sent the alert fatal handshake_failure"):
        meet(
            {"library": "rustls", "versions": Version.TLS12},
            {"suites": Suite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
        )


@pytest.mark.parametrize("library", ["OpenSSL", "gnutls", 7])
def test_another_library_is_not_known(certificates, library):
    with pytest.raises(UsageError, match="one of openssl, rustls"):
        certificates.config(library=library)


def test_a_clients_certificate_is_shown_to_a_server_that_asks(certificates, meet):
    pem = certificates.server("good")
    _, theirs = meet({"library": "rustls", "certificate": pem}, {"client_ca": certificates.ca})
    assert theirs.handshake.machine.library.certificate is not None


@pytest.mark.parametrize("missing", ["absent.pem", "empty.pem"])
def test_files_that_cannot_be_used_are_named(tcp_peer, tmp_path, missing):
    (tmp_path / "empty.pem").write_text("nothing")
    config = ClientConfig(library="rustls", certificate=tmp_path / missing)
    peer = tcp_peer(lambda _: None)
    with pytest.raises(UsageError, match=rf"reading .*{missing}.*Give a PEM file"):
        open_session("localhost", peer.port, config=config)


def test_without_the_extra_it_says_how_to_get_it():
    code = (
        "import sys; sys.modules['rtls'] = None; import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'rtls' else found(name, *more)\n"
        "import ktlslab\n"
        "ktlslab.ClientConfig(library='rustls')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError" in done.stderr.splitlines()[-1]
    assert "pip install 'ktlslab[rustls]'" in done.stderr.splitlines()[-1]
