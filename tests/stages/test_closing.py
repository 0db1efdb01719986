"""Every wait at a close has a reason, and a last word is heard."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from OpenSSL import SSL

from ktlslab.errors import AlertError, CertificateError, HandshakeError, StreamError
from ktlslab.linux import tcpinfo
from ktlslab.session import accept_session, open_session, session_pair
from ktlslab.stages import ClientConfig, ServerConfig, Stream
from ktlslab.stages.lastword import DRAIN_S
from ktlslab.stages.transfer import ending
from ktlslab.tls.alerts import AlertDescription, AlertLevel
from ktlslab.tls.suites import Suite, Version
from tests.handpeer import HandPeers

CLOSE_WAIT = 8  # include/net/tcp_states.h: the peer's FIN has come
TLS12 = Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
TLS13 = Suite.TLS_AES_128_GCM_SHA256
BOTH = pytest.mark.parametrize("suite", [TLS12, TLS13], ids=["1.2", "1.3"])


@BOTH
def test_a_silent_peer_that_has_everything_is_not_waited_for(tls_pair, suite, io_engine):
    pair = tls_pair(suite=suite, io_engine=io_engine)
    stream = Stream(pair.connection, pair.handshake)
    stream.send(b"last words")
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < ending.LINGER_S / 2
    assert pair.tls.recv(100) == b"last words"
    with pytest.raises(SSL.ZeroReturnError):
        pair.tls.recv(100)


@BOTH
def test_a_server_does_not_wait_for_an_idle_client(suite, io_engine):
    client, server = session_pair(record_layer="userspace", suite=suite, io_engine=io_engine)
    with client:
        client.stream.send(b"question")
        server.stream.recv()
        server.stream.send(b"answer")
        started = time.monotonic()
        server.close()
        assert time.monotonic() - started < ending.LINGER_S / 2
        assert client.stream.recv() == b"answer"


@BOTH
def test_the_last_words_to_an_end_that_has_half_closed_are_known_to_have_arrived(suite, io_engine):
    """Its TCP acknowledges them at once: an acknowledgement that is delayed would be lost with its socket."""
    client, server = session_pair(record_layer="userspace", io_engine=io_engine, suite=suite)
    client.stream.send_eof()
    assert server.stream.recv() == b""
    server.stream.send(b"last words")
    assert client.stream.recv() == b"last words"
    client.close()
    server.close()


def test_a_peer_that_closes_without_an_acknowledgement_has_reset_the_connection(hand_peers, io_engine):
    """Whichever call meets the reset: shutdown(2) alone would say ENOTCONN."""
    stream, peer = hand_peers.open("userspace", io_engine, "server", suite=TLS13)
    peer.close_notify()
    peer.fin()
    assert stream.recv() == b""
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)  # it delays its acknowledgements
    stream.send(b"last words")
    assert peer.receive_data(10) == b"last words"
    peer.close()
    with pytest.raises(StreamError, match=r"ECONNRESET|when the connection was reset"):
        stream.close()


@pytest.mark.parametrize("layer", ["userspace", "userspace-rustls"])
@pytest.mark.parametrize("version", Version)
def test_a_peer_that_has_everything_and_is_gone_is_no_failure_of_the_end(hand_peers, layer, version, io_engine):
    """A client such as curl closes as soon as it has the body, and answers the server's close_notify by a reset."""
    stream, peer = hand_peers.open(layer, io_engine, "server", version=version)
    stream.send(b"the whole answer")
    assert peer.receive_data(16) == b"the whole answer"
    peer.close_notify()
    peer.close()
    while tcpinfo.state(stream.connection.socket) != CLOSE_WAIT:
        time.sleep(0.001)
    stream.send_eof()
    stream.close()


@pytest.mark.parametrize("layer", ["userspace", "userspace-rustls"])
@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("role", ["client", "server"])
def test_user_canceled_before_close_notify_is_a_clean_end(hand_peers, layer, version, role, io_engine):
    """Java sends both when it closes (RFC 8446, 6.1)."""
    stream, peer = hand_peers.open(layer, io_engine, role, version=version)
    peer.send(b"data")
    peer.alert(AlertDescription.USER_CANCELED, AlertLevel.WARNING)
    peer.close_notify()
    peer.fin()
    assert [stream.recv(), stream.recv(), stream.recv()] == [b"data", b"", b""]
    stream.close()


def test_a_last_word_is_waited_for_no_longer_than_the_time_out(io_engine):
    with HandPeers() as peers:
        stream, peer = peers.open("userspace", io_engine, "client", timeout=0.05)
        peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(StreamError):
            stream.recv()
        started = time.monotonic()
        stream.close()
        assert time.monotonic() - started < DRAIN_S / 2


def test_a_peer_that_is_still_talking_is_listened_to(plain_pair, io_engine):
    """Were the socket closed under it, it would be reset, and might lose what it has not read yet."""
    connection, peer = plain_pair(io_engine=io_engine)
    stream = Stream(connection)
    stream.send(b"last words")

    def talk():
        for _ in range(10):
            peer.sendall(b"more")
            time.sleep(0.05)
        return peer.recv(100), peer.recv(100)

    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(talk)
        stream.close()
        assert heard.result() == (b"last words", b"")


@pytest.mark.parametrize("wait", [False, True])
def test_a_close_without_waiting_leaves_a_peer_that_reads_nothing_at_once(plain_pair, io_engine, wait):
    connection, peer = plain_pair(io_engine=io_engine, timeout=0.5)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stream = Stream(connection)
    stream.send(bytes(1 << 18))
    started = time.monotonic()
    try:
        stream.close(wait=wait)
    except Exception:  # noqa: BLE001 - not everything has arrived
        assert wait
    assert (time.monotonic() - started < 0.3) is not wait


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("io_engine", ["syscall", "uring"])
def test_a_client_without_a_certificate_always_learns_why_it_is_refused(certificates, version, io_engine):
    """In TLS 1.3 its request is on the way when the server refuses: unread, it would make the close a reset."""
    server = ServerConfig(certificate=certificates.server("good"), client_ca=certificates.ca, versions=(version,))
    client = certificates.config(server_name="localhost")
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        for _ in range(20):
            accepting = pool.submit(accept_session, listener, server, record_layer="userspace")
            with pytest.raises((AlertError, HandshakeError), match=r"certificate_required|handshake_failure") as caught:
                ask(listener.getsockname(), client, io_engine)
            assert "the peer sent the alert" in str(caught.value)
            with pytest.raises(CertificateError, match="did not return a certificate") as refused:
                accepting.result()
            assert "the peer sent" not in str(refused.value)


def ask(address, config: ClientConfig, io_engine):
    with open_session(*address, config=config, io_engine=io_engine, record_layer="userspace") as session:
        session.stream.send(b"GET / HTTP/1.1\r\n\r\n")
        session.stream.recv()


@pytest.mark.parametrize("version", Version)
def test_each_end_says_whose_alert_it_was_where_no_suite_is_common(certificates, version):
    ours, theirs = {
        Version.TLS12: (TLS12, Suite.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        Version.TLS13: (TLS13, Suite.TLS_AES_256_GCM_SHA384),
    }[version]
    server = ServerConfig(certificate=certificates.server("good"), suites=(theirs,))
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(accept_session, listener, server)
        with pytest.raises(HandshakeError, match="the peer sent the alert fatal handshake_failure"):
            ask(listener.getsockname(), certificates.config(server_name="localhost", suites=(ours,)), "syscall")
        with pytest.raises(HandshakeError, match="this end sent the alert fatal handshake_failure") as refused:
            accepting.result()
        assert "the peer sent" not in str(refused.value)
