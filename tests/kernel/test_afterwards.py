"""What may come after the handshake (see `transfer.manners`), and the records that a peer limits."""

from __future__ import annotations

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from ktlslab.errors import StreamError
from ktlslab.linux import capabilities
from ktlslab.session import accept_session
from ktlslab.stages import ServerConfig, Why
from ktlslab.tls.alerts import AlertDescription, AlertLevel
from ktlslab.tls.records import ContentType, HandshakeType
from ktlslab.tls.suites import Version

NO_RENEGOTIATION = bytes([AlertLevel.WARNING, AlertDescription.NO_RENEGOTIATION])
UNEXPECTED = bytes([AlertLevel.FATAL, AlertDescription.UNEXPECTED_MESSAGE])
HELLO_REQUEST, CLIENT_HELLO, TICKET = (
    bytes([kind, 0, 0, 0])
    for kind in (HandshakeType.HELLO_REQUEST, HandshakeType.CLIENT_HELLO, HandshakeType.NEW_SESSION_TICKET)
)


@pytest.mark.parametrize(("role", "message"), [("client", HELLO_REQUEST), ("server", CLIENT_HELLO)])
@pytest.mark.parametrize("layer", ["kernel", "kernel-tx", "userspace"])
def test_a_new_handshake_is_declined_and_the_session_goes_on(hand_peers, io_engine, layer, role, message):
    stream, peer = hand_peers.open(layer, io_engine, role, version=Version.TLS12)
    if role == "server" and layer != "kernel":
        message = hello_of(peer)
    peer.send(message, ContentType.HANDSHAKE)
    peer.send(b"data")
    if layer == "kernel-tx":  # OpenSSL, which receives, cannot send: RFC 5246 lets a client ignore the request
        assert role == "server" or stream.recv() == b"data"
        return
    assert stream.recv() == b"data"
    stream.send(b"answer")
    assert peer.receive() == (ContentType.ALERT, NO_RENEGOTIATION)
    assert peer.receive() == (ContentType.APPLICATION_DATA, b"answer")


def hello_of(peer):
    """OpenSSL reads a ClientHello before it refuses: one with a random, a suite and renegotiation_info."""
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\x00\x02\xc0\x2b" + b"\x01\0"
    assert peer.suite
    return bytes([HandshakeType.CLIENT_HELLO]) + len(body).to_bytes(3, "big") + body


def test_a_client_whose_records_openssl_sends_ignores_the_request(hand_peers, io_engine):
    stream, peer = hand_peers.open("kernel-rx", io_engine, "client", version=Version.TLS12)
    peer.send(HELLO_REQUEST, ContentType.HANDSHAKE)
    peer.send(b"data")
    assert stream.recv() == b"data"
    stream.send(b"answer")
    assert peer.receive() == (ContentType.APPLICATION_DATA, b"answer")


def test_requests_without_end_end_the_session(hand_peers, io_engine):
    stream, peer = hand_peers.open("kernel", io_engine, "client", version=Version.TLS12)
    for _ in range(9):
        peer.send(HELLO_REQUEST, ContentType.HANDSHAKE)
    with pytest.raises(StreamError, match="5 requests for a new handshake"):
        stream.recv()


def test_a_warning_of_tls_12_is_no_end(hand_peers, io_engine):
    stream, peer = hand_peers.open("kernel", io_engine, "client", version=Version.TLS12)
    peer.alert(AlertDescription.UNRECOGNIZED_NAME, AlertLevel.WARNING)
    peer.send(b"data")
    assert stream.recv() == b"data"


@pytest.mark.parametrize(
    ("version", "role", "message"),
    [
        (Version.TLS13, "client", HELLO_REQUEST),
        (Version.TLS13, "server", CLIENT_HELLO),
        (Version.TLS13, "server", TICKET),
        (Version.TLS12, "client", CLIENT_HELLO),
        (Version.TLS12, "client", TICKET),
        (Version.TLS12, "server", HELLO_REQUEST),
        (Version.TLS13, "client", bytes([HandshakeType.CERTIFICATE_REQUEST, 0, 0, 0])),
    ],
)
def test_what_may_not_come_is_refused_by_an_alert(hand_peers, io_engine, version, role, message):
    stream, peer = hand_peers.open("kernel", io_engine, role, version=version)
    peer.send(message, ContentType.HANDSHAKE)
    with pytest.raises(StreamError, match="unexpected handshake message"):
        stream.recv()
    assert peer.receive() == (ContentType.ALERT, UNEXPECTED)


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("size", [512, 4096])
def test_a_peer_that_takes_only_small_records_gets_no_others(certificates, io_engine, version, size, tmp_path):
    """`openssl s_client -maxfraglen` ends with an error at the first record that is longer than agreed."""
    data = bytes(range(256)) * 400
    config = ServerConfig(certificate=certificates.server("good"), versions=(version,))
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(accept_session, listener, config, io_engine=io_engine)
        words = f"s_client -connect 127.0.0.1:{listener.getsockname()[1]} -maxfraglen {size} -quiet -verify_quiet"
        with subprocess.Popen(
            ["openssl", *words.split()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as client:
            session = accepting.result(60)
            with session:
                session.stream.send(data[:50_000])
                (tmp_path / "rest").write_bytes(data[50_000:])
                with (tmp_path / "rest").open("rb") as rest:
                    session.stream.sendfile(rest)
                session.stream.send_eof()
                assert client.stdout.read() == data
    if capabilities.max_payload():
        assert session.record_layer == "kernel"
    else:
        assert session.record_layer == "userspace"
        assert session.why == (Why.RECORDS_LIMITED,)
