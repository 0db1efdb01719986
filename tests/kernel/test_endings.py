"""How a stream ends, and that nothing but close_notify is ever taken for a good end."""

from __future__ import annotations

import errno
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from OpenSSL import SSL

from ktlslab.errors import AlertError, PeerTimeoutError, StreamClosedError, StreamError, TruncatedError
from ktlslab.linux.ktls import Direction
from ktlslab.session import session_pair
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite

TLS13 = Suite.TLS_AES_128_GCM_SHA256
TLS12 = Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
BOTH_VERSIONS = pytest.mark.parametrize("negotiated", [TLS12, TLS13], ids=["1.2", "1.3"])


pytestmark = pytest.mark.usefixtures("no_long_farewell")


@pytest.fixture
def ends(kernel_pair, negotiated, io_engine):
    return kernel_pair(suite=negotiated, io_engine=io_engine)


def raises_again(stream, kind, words):
    """Expect the same error twice: a stream that broke stays broken, and does not block."""
    for _ in range(2):
        with pytest.raises(kind, match=words) as caught:
            stream.recv()
    return caught.value


@BOTH_VERSIONS
def test_closing_is_a_clean_end_for_the_peer_after_the_last_byte(ends):
    ends.stream.send(b"last words")
    ends.stream.close()
    ends.stream.close()
    assert ends.pair.tls.recv(100) == b"last words"
    with pytest.raises(SSL.ZeroReturnError):
        ends.pair.tls.recv(100)
    assert ends.pair.sock.recv(1) == b""
    assert "closed" in repr(ends.stream)


@BOTH_VERSIONS
def test_close_notify_of_the_peer_is_a_clean_end_and_stays_one(ends):
    ends.pair.tls.sendall(b"last words")
    ends.pair.tls.shutdown()
    ends.pair.close_peer()
    assert ends.stream.recv() == b"last words"
    assert [ends.stream.recv(), ends.stream.recv()] == [b"", b""]


@BOTH_VERSIONS
def test_an_empty_record_before_the_end_changes_nothing_about_it(ends):
    """The empty one makes a receive say 0, and TCP has ended by then: only the record behind it tells."""
    data = b"".join(
        ends.seal(kind, content)
        for kind, content in (
            (ContentType.APPLICATION_DATA, b"last words"),
            (ContentType.APPLICATION_DATA, b""),
            (ContentType.ALERT, b"\x01\x00"),
        )
    )
    ends.pair.sock.sendall(data)
    ends.pair.close_peer()
    assert [ends.stream.recv(10), ends.stream.recv(), ends.stream.recv()] == [b"last words", b"", b""]


@BOTH_VERSIONS
def test_nothing_is_lost_at_a_close_though_the_send_buffer_is_small_and_the_reader_slow(negotiated, io_engine, pattern):
    client, server = session_pair(suite=negotiated, io_engine=io_engine)
    with client, server, ThreadPoolExecutor(1) as pool:
        client.stream.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)

        def read_slowly():
            got = bytearray()
            while part := server.stream.recv(8192):
                got += part
                time.sleep(0.005)
            return bytes(got)

        reading = pool.submit(read_slowly)
        client.stream.send(pattern(400_000))
        client.close()
        assert reading.result(60) == pattern(400_000)


@BOTH_VERSIONS
def test_an_end_without_close_notify_is_a_truncation(ends):
    ends.pair.tls.sendall(b"last words")
    ends.pair.close_peer()
    assert ends.stream.recv() == b"last words"
    raises_again(ends.stream, TruncatedError, "without close_notify. Bytes may be missing")


@BOTH_VERSIONS
def test_an_end_in_the_middle_of_a_record_is_a_truncation(ends):
    ends.pair.sock.sendall(ends.seal(ContentType.APPLICATION_DATA, b"never whole")[:-3])
    ends.pair.close_peer()
    raises_again(ends.stream, TruncatedError, "without close_notify")


@BOTH_VERSIONS
def test_recv_exactly_into_says_how_much_was_missing(ends):
    ends.pair.tls.sendall(b"four")
    ends.pair.tls.shutdown()
    with pytest.raises(TruncatedError, match="after 4 of 10 bytes"):
        ends.stream.recv_exactly_into(bytearray(10))


@BOTH_VERSIONS
def test_a_fatal_alert_is_an_error_with_its_name(ends):
    ends.send(ContentType.ALERT, b"\x02\x28")
    assert raises_again(ends.stream, AlertError, "alert fatal handshake_failure").alert == "handshake_failure"


@BOTH_VERSIONS
def test_a_harmless_warning_ends_nothing(ends):
    ends.send(ContentType.ALERT, b"\x01\x5a")  # user_canceled
    ends.send(ContentType.APPLICATION_DATA, b"data")
    assert ends.stream.recv() == b"data"


def test_the_alert_of_an_openssl_that_could_not_read_us_has_its_name(kernel_pair, io_engine):
    ends = kernel_pair((Direction.RX,), suite=TLS13, io_engine=io_engine)
    ends.pair.connection.socket.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(SSL.Error):
        ends.pair.tls.recv(1)
    assert raises_again(ends.stream, AlertError, "bad_record_mac").alert == "bad_record_mac"


@BOTH_VERSIONS
def test_a_damaged_record_is_an_error_once_and_for_all(ends):
    record = bytearray(ends.seal(ContentType.APPLICATION_DATA, b"damaged on the way"))
    record[-1] ^= 1
    ends.pair.sock.sendall(record)
    started = time.monotonic()
    error = raises_again(ends.stream, StreamError, r"EBADMSG .*did not decrypt.*Open a new session")
    assert error.__cause__.errno == errno.EBADMSG
    assert time.monotonic() - started < 10
    with pytest.raises(StreamClosedError, match="EBADMSG"):
        ends.stream.send(b"x")


@BOTH_VERSIONS
def test_a_record_that_was_replayed_does_not_open(ends):
    record = ends.seal(ContentType.APPLICATION_DATA, b"once")
    ends.pair.sock.sendall(record + record)
    assert ends.stream.recv() == b"once"
    raises_again(ends.stream, StreamError, "EBADMSG")


@BOTH_VERSIONS
def test_sending_after_closing_is_an_error(ends):
    ends.stream.close()
    with pytest.raises(StreamClosedError, match="this end is closed"):
        ends.stream.send(b"x")


@BOTH_VERSIONS
def test_sending_a_file_after_closing_is_an_error_too(ends, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    ends.stream.close()
    with (tmp_path / "file").open("rb") as file, pytest.raises(StreamClosedError, match="this end is closed"):
        ends.stream.sendfile(file)


@BOTH_VERSIONS
def test_sending_to_a_peer_that_reset_the_connection_fails_sooner_or_later_and_for_good(ends):
    ends.pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.pair.sock.close()
    with pytest.raises((StreamError, TruncatedError)):
        ends.stream.recv()
    with pytest.raises(StreamClosedError):
        ends.stream.send(b"x")


def test_nothing_waits_for_ever_for_a_peer_that_does_not_read(kernel_pair, tmp_path, io_engine):
    ends = kernel_pair(suite=TLS13, io_engine=io_engine, timeout=0.5)
    (tmp_path / "file").write_bytes(bytes(1 << 23))
    started = time.monotonic()
    with pytest.raises(PeerTimeoutError, match="nothing moved"), (tmp_path / "file").open("rb") as file:  # noqa: PT012
        while True:
            ends.stream.send(bytes(1 << 18))
            ends.stream.sendfile(file)
    with pytest.raises(StreamClosedError, match="nothing moved"):  # half a record may be on the wire
        ends.stream.send(b"x")
    ends.stream.close()
    assert time.monotonic() - started < 30
