"""The stream's promises where OpenSSL or rustls makes the records, or nobody does: the same as with kernel TLS."""

from __future__ import annotations

import array
import hashlib
import signal
import socket
import struct
import threading
import time

import pytest
from OpenSSL import SSL

from ktlslab.errors import AlertError, PeerTimeoutError, StreamClosedError, StreamError, TruncatedError, UsageError
from ktlslab.session import open_session
from ktlslab.stages import Stream
from ktlslab.stages.transfer import ending
from ktlslab.tls.suites import Suite

TLS13 = Suite.TLS_AES_128_GCM_SHA256
TLS12 = Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
BOTH_VERSIONS = pytest.mark.parametrize("negotiated", [TLS12, TLS13], ids=["1.2", "1.3"])
MEBIBYTE = bytes(range(256)) * 4096


@pytest.fixture(autouse=True)
def no_long_farewell(monkeypatch):
    """Both ends are mostly in one thread here: no one answers a close."""
    monkeypatch.setattr(ending, "LINGER_S", 0.05)


@pytest.fixture
def ends(tls_pair, negotiated, io_engine, library):
    """(stream, pair): a userspace stream and the other end."""
    pair = tls_pair(suite=negotiated, io_engine=io_engine, library=library)
    return Stream(pair.connection, pair.handshake), pair


@pytest.fixture
def plain(plain_pair, io_engine):
    """(stream, socket): a stream without TLS and the other end."""
    connection, sock = plain_pair(io_engine=io_engine, timeout=20)
    return Stream(connection), sock


@BOTH_VERSIONS
def test_bytes_go_both_ways(ends):
    stream, pair = ends
    stream.send(b"to you")
    assert pair.tls.recv(100) == b"to you"
    pair.tls.sendall(b"to me")
    assert stream.recv() == b"to me"
    assert (stream.record_layer, stream.tickets) == ("userspace", [])


@BOTH_VERSIONS
def test_any_buffer_may_be_sent_and_a_small_one_filled_in_parts(ends):
    stream, pair = ends
    for data in (bytearray(b"ab"), memoryview(b"ab"), memoryview(b"a-b-")[::2].tobytes()):
        stream.send(data)
        assert pair.tls.recv(9) == b"ab"
    pair.tls.sendall(b"abcdef")
    assert [stream.recv(4), stream.recv(4)] == [b"abcd", b"ef"]


@BOTH_VERSIONS
def test_without_a_time_out_everything_is_waited_for(tls_pair, negotiated, io_engine, library):
    pair = tls_pair(suite=negotiated, io_engine=io_engine, library=library)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        pair.connection.socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", 0, 0))
    pair.connection.engine.timeout = None
    stream = Stream(pair.connection, pair.handshake)
    reader = threading.Thread(target=lambda: [pair.tls.recv(1 << 16) for _ in range(64)])
    reader.start()
    stream.send(MEBIBYTE)
    reader.join()
    pair.tls.sendall(b"x" * 20_000)
    got = bytearray(20_000)
    stream.recv_exactly_into(got)
    assert got == b"x" * 20_000
    stream.close()


@BOTH_VERSIONS
def test_an_array_counts_in_bytes(ends):
    stream, pair = ends
    numbers = array.array("I", range(1000))
    stream.send(numbers)
    got = b""
    while len(got) < 4000:
        got += pair.tls.recv(4000)
    assert got == numbers.tobytes()
    pair.tls.sendall(got)
    for room in (array.array("I", [0]) * 500, memoryview(bytearray(2000)).cast("I")):
        stream.recv_exactly_into(room)
        assert bytes(room) == got[:2000]
        got = got[2000:]


@BOTH_VERSIONS
def test_sending_nothing_sends_nothing_and_ends_nothing(ends):
    stream, pair = ends
    stream.send(b"")
    stream.send(b"x")
    assert pair.tls.recv(9) == b"x"


def digest(tls, _sock):
    seen = hashlib.sha256()
    while True:
        try:
            seen.update(tls.recv(1 << 16))
        except SSL.ZeroReturnError:
            return seen.hexdigest()


@BOTH_VERSIONS
def test_a_mebibyte_arrives_whole_by_send_and_by_sendfile_though_nothing_is_ever_received(  # noqa: PLR0917 - fixtures
    tls_peer, certificates, tmp_path, monkeypatch, negotiated, io_engine, library
):
    monkeypatch.setattr(ending, "LINGER_S", 20)
    (tmp_path / "file").write_bytes(MEBIBYTE)
    peer = tls_peer(digest, suite=negotiated, connections=2)
    for by_file in (True, False):
        options = {"config": certificates.config(library=library), "record_layer": "userspace", "io_engine": io_engine}
        with open_session("localhost", peer.port, **options) as session:
            if by_file:
                with (tmp_path / "file").open("rb") as file:
                    assert session.stream.sendfile(file) == len(MEBIBYTE)
            else:
                session.stream.send(MEBIBYTE)
    peer.join()
    assert peer.results == [hashlib.sha256(MEBIBYTE).hexdigest()] * 2


@BOTH_VERSIONS
def test_a_mebibyte_is_received_whole_up_to_its_clean_end(tls_peer, certificates, negotiated, io_engine, library):
    peer = tls_peer(lambda tls, _sock: (tls.sendall(MEBIBYTE), tls.shutdown()), suite=negotiated)
    options = {"config": certificates.config(library=library), "record_layer": "userspace", "io_engine": io_engine}
    with open_session("localhost", peer.port, **options) as session:
        got = bytearray(len(MEBIBYTE))
        session.stream.recv_exactly_into(got)
        assert got == MEBIBYTE
        assert session.stream.recv() == b""


@BOTH_VERSIONS
def test_closing_is_a_clean_end_for_the_peer_after_the_last_byte(ends):
    stream, pair = ends
    stream.send(b"last words")
    stream.close()
    stream.close()
    assert pair.tls.recv(100) == b"last words"
    with pytest.raises(SSL.ZeroReturnError):
        pair.tls.recv(100)
    assert pair.sock.recv(1) == b""
    assert "closed" in repr(stream)


@BOTH_VERSIONS
def test_close_notify_of_the_peer_is_a_clean_end_and_stays_one(ends):
    stream, pair = ends
    pair.tls.sendall(b"last words")
    pair.tls.shutdown()
    pair.close_peer()
    assert stream.recv() == b"last words"
    assert [stream.recv(), stream.recv()] == [b"", b""]


@BOTH_VERSIONS
def test_an_end_without_close_notify_is_a_truncation_for_good(ends):
    stream, pair = ends
    pair.tls.sendall(b"last words")
    pair.close_peer()
    assert stream.recv() == b"last words"
    for _ in range(2):
        with pytest.raises(TruncatedError, match=r"without close_notify\. Bytes may be missing"):
            stream.recv()
    with pytest.raises(StreamClosedError, match="without close_notify"):
        stream.send(b"x")


@BOTH_VERSIONS
def test_an_end_before_all_that_was_wanted_says_how_much_came(ends):
    stream, pair = ends
    pair.tls.sendall(b"four")
    pair.tls.shutdown()
    with pytest.raises(TruncatedError, match="after 4 of 10 bytes"):
        stream.recv_exactly_into(bytearray(10))


@BOTH_VERSIONS
def test_a_damaged_record_is_an_error_for_good(ends):
    stream, pair = ends
    pair.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    for _ in range(2):
        with pytest.raises(StreamError, match="Open a new session"):
            stream.recv()


@BOTH_VERSIONS
def test_the_alert_of_a_peer_that_could_not_read_us_is_named(ends):
    stream, pair = ends
    pair.connection.socket.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(SSL.Error):
        pair.tls.recv(1)
    with pytest.raises(AlertError, match="bad_record_mac") as caught:
        stream.recv()
    assert caught.value.alert == "bad_record_mac"


@BOTH_VERSIONS
def test_after_closing_nothing_is_sent_or_received(ends, tmp_path):
    stream, _ = ends
    (tmp_path / "file").write_bytes(b"x")
    stream.close()
    with pytest.raises(StreamClosedError, match="this end is closed"):
        stream.send(b"x")
    with (tmp_path / "file").open("rb") as file, pytest.raises(StreamClosedError, match="this end is closed"):
        stream.sendfile(file)
    with pytest.raises(StreamClosedError, match=r"receiving.*this end is closed"):
        stream.recv()


@BOTH_VERSIONS
def test_a_time_out_is_an_error_after_which_one_may_go_on(tls_pair, negotiated, io_engine, library):
    pair = tls_pair(suite=negotiated, io_engine=io_engine, timeout=0.3, library=library)
    stream = Stream(pair.connection, pair.handshake)
    with pytest.raises(PeerTimeoutError, match=r"nothing moved within 0\.3 s\. Try again"):
        stream.recv_exactly_into(bytearray(4))
    pair.tls.sendall(b"late")
    assert stream.recv() == b"late"


@BOTH_VERSIONS
def test_a_peer_that_vanished_with_a_reset_ends_the_stream_for_good(ends):
    stream, pair = ends
    pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.sock.close()
    with pytest.raises(StreamError, match=r"ECONNRESET|close_notify"):
        stream.recv()
    with pytest.raises(StreamClosedError):
        stream.send(b"x")
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("layer", ["plain", "userspace"])
def test_nothing_waits_for_ever_for_a_peer_that_does_not_read(tls_pair, plain_pair, tmp_path, layer, io_engine):
    if layer == "plain":
        connection, peer = plain_pair(io_engine=io_engine, timeout=0.2)  # `peer` stays open
        stream = Stream(connection)
    else:
        peer = tls_pair(suite=TLS13, io_engine=io_engine, timeout=0.2)
        stream = Stream(peer.connection, peer.handshake)
    (tmp_path / "file").write_bytes(bytes(1 << 24))
    started = time.monotonic()
    with pytest.raises(PeerTimeoutError, match="nothing moved"), (tmp_path / "file").open("rb") as file:  # noqa: PT012
        while True:
            stream.send(bytes(1 << 20))
            stream.sendfile(file)
    with pytest.raises(StreamClosedError, match="nothing moved"):  # half a record may be on the wire
        stream.send(b"x")
    stream.close()
    assert time.monotonic() - started < 20


def test_a_file_to_a_peer_that_does_not_read_is_bounded_too(plain, tmp_path):
    stream, _ = plain
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        stream.connection.socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", 0, 200_000))
    (tmp_path / "file").write_bytes(bytes(1 << 24))
    with pytest.raises(PeerTimeoutError, match="sending a file"), (tmp_path / "file").open("rb") as file:  # noqa: PT012
        while True:
            stream.sendfile(file)


# Without TLS


def test_plain_bytes_go_both_ways_and_the_end_is_the_peers(plain):
    stream, sock = plain
    stream.send(b"to you")
    assert sock.recv(9) == b"to you"
    sock.sendall(b"to me")
    assert stream.recv() == b"to me"
    sock.shutdown(socket.SHUT_WR)
    assert stream.recv() == b""
    assert stream.record_layer == "plain"
    stream.close()
    assert sock.recv(9) == b""


def test_a_plain_file_is_sent_whole_and_in_part(plain, tmp_path):
    stream, sock = plain
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        assert stream.sendfile(file) == 10
        assert stream.sendfile(file, offset=4, count=2) == 2
        assert stream.sendfile(file, offset=10) == 0
        assert stream.sendfile(file, offset=8, count=100) == 2
    stream.close()
    received = b""
    while part := sock.recv(99):
        received += part
    assert received == b"01234567894589"


def test_no_record_layer_but_the_known_ones():
    with pytest.raises(UsageError, match="one of auto, plain, userspace, kernel"):
        open_session("localhost", 1, record_layer="quantum")


@pytest.mark.parametrize("layer", ["userspace", "plain"])
def test_a_signal_whose_handler_returns_does_not_end_a_wait(tls_pair, plain, io_engine, layer):
    if layer == "plain":
        stream, sock = plain
        send = sock.sendall
    else:
        pair = tls_pair(io_engine=io_engine)
        stream, send = Stream(pair.connection, pair.handshake), pair.tls.sendall
    rang = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: rang.set())
    later = threading.Timer(0.6, send, [b"after the signal"])
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        later.start()
        assert stream.recv() == b"after the signal"
        assert rang.is_set()
    finally:
        signal.signal(signal.SIGALRM, before)
        later.join()
