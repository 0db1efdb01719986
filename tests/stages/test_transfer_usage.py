"""What a caller gets wrong on a stream is a UsageError that says so, and the stream goes on as if nothing had been."""

from __future__ import annotations

import io
import os
import select
import socket

import pytest

from ktlslab.errors import CertificateError, StreamClosedError, UsageError
from ktlslab.stages import Direction, Stream, connect, handshake
from ktlslab.stages.transfer import ending

LAYERS = pytest.mark.parametrize("layer", ["plain", "userspace"])


@pytest.fixture(autouse=True)
def no_long_farewell(monkeypatch):
    monkeypatch.setattr(ending, "LINGER_S", 0.05)


@pytest.fixture
def ends(tls_pair, plain_pair, layer, io_engine):
    """(stream, the other end): one of each layer and engine."""
    if layer == "plain":
        connection, sock = plain_pair(io_engine=io_engine)
        return Stream(connection), sock
    pair = tls_pair(io_engine=io_engine)
    return Stream(pair.connection, pair.handshake), pair.tls


def closed_file(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with (tmp_path / "file").open("rb") as file:
        pass
    return file


def before_the_file(stream):
    with open(os.devnull, "rb") as file:  # noqa: PTH123 - no folder of ours
        stream.sendfile(file, -1)


WRONG = {
    "text": (lambda s, _: s.send("text"), r"`data` is of type str\. Encode it first"),
    "nothing": (lambda s, _: s.send(None), "is of type NoneType.*It takes a buffer"),
    "a number": (lambda s, _: s.send(7), "is of type int.*It takes a buffer"),
    "with holes": (lambda s, _: s.send(memoryview(b"a-b-")[::2]), "not in one piece"),
    "many numbers": (lambda s, _: s.send_many([b"", 7]), "is of type int.*It takes a buffer"),
    "many texts": (lambda s, _: s.send_many(["text"]), "is of type str"),
    "not many": (lambda s, _: s.send_many(7), "is of type int. Give a list of buffers"),
    "one for many": (lambda s, _: s.send_many(b"abc"), "one alone is for `send`"),
    "receive into text": (lambda s, _: s.recv_into("x"), "`buffer` is of type str"),
    "receive into bytes": (lambda s, _: s.recv_into(b"constant"), r"cannot be written to.*Give a bytearray"),
    "fill bytes": (lambda s, _: s.recv_exactly_into(b"constant"), "cannot be written to"),
    "fill nothing": (lambda s, _: s.recv_exactly_into(None), "is of type NoneType.*It takes a buffer"),
    "less than none": (lambda s, _: s.recv(-1), "`count` is -1"),
    "far less": (lambda s, _: s.recv(-(1 << 64)), "`count` is -18446744073709551616"),
    "a count of text": (lambda s, _: s.recv("many"), "`count` is of type str"),
    "a type of record": (lambda s, _: s.send_record(b"x", 21), "Let the kernel send"),
    "pieces": (lambda s, _: next(s.pieces()), "Let the kernel receive"),
    "a path": (lambda s, path: s.sendfile(str(path)), "not an open file"),
    "no file at all": (lambda s, _: s.sendfile(io.BytesIO(b"x")), "not an open file"),
    "a closed file": (lambda s, path: s.sendfile(closed_file(path)), r"not an open file: I/O operation on closed file"),
    "before the file": (lambda s, _: before_the_file(s), "`offset` is -1"),
    "no pipe": (lambda s, _: s.splice_from(-1, 1), "the descriptor -1 is not open: EBADF"),
    "no number": (lambda s, _: s.splice_from("pipe", 1), "`pipe` is of type str.*a descriptor's number"),
    "into no pipe": (lambda s, _: s.splice_into(-1, 1), "the descriptor -1 is not open"),
    "a negative count": (lambda s, _: s.splice_into(0, -1), "`count` is -1"),
    "records of no size": (lambda s, _: s.limit_records("x"), "the sending side is"),
}


@LAYERS
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_is_named_with_a_remedy_and_ends_nothing(ends, tmp_path, wrong):
    stream, peer = ends
    call, match = WRONG[wrong]
    with pytest.raises(UsageError, match=match) as caught:
        call(stream, tmp_path)
    assert caught.value.remedy
    stream.send(b"next")
    assert peer.recv(9) == b"next"


@LAYERS
def test_the_wrong_end_of_a_pipe_is_named(ends):
    stream, _ = ends
    reading, writing = os.pipe()
    try:
        with pytest.raises(UsageError, match=r"the pipe's other end.*Give the reading end"):
            stream.splice_from(writing, 1)
        with socket.socket() as sock, pytest.raises(UsageError, match="is not a pipe"):
            stream.splice_from(sock.fileno(), 1)
    finally:
        os.close(reading)
        os.close(writing)


@LAYERS
def test_what_a_pipe_does_not_take_is_received_next(ends):
    stream, peer = ends
    while stream.record_layer == "plain" and select.select([stream.connection.socket], [], [], 0.05)[0]:
        stream.recv()  # tickets of the handshake, which mean nothing here
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        peer.sendall(b"all that came")
        while True:
            try:
                os.write(writing, bytes(1 << 16))
            except BlockingIOError:
                break
        with pytest.raises(UsageError, match=r"the pipe took nothing: EAGAIN.*kept for the next receive"):
            stream.splice_into(writing, 100)
        os.close(reading)
        reading = -1
        with pytest.raises(UsageError, match=r"the pipe took nothing: EPIPE"):
            stream.splice_into(writing, 3)
        assert stream.recv(4) == b"all "
        assert stream.recv(100) == b"that came"
    finally:
        os.close(writing)
        if reading >= 0:
            os.close(reading)
    peer.sendall(b"more")
    assert stream.recv(100) == b"more"


@LAYERS
def test_buffers_may_be_handed_over_by_an_iterator(ends):
    stream, peer = ends
    stream.send_many(iter([b"a", b"b"]))
    got = peer.recv(9)
    assert (got if len(got) == 2 else got + peer.recv(9)) == b"ab"


@LAYERS
def test_a_closed_stream_says_that_it_was_closed(ends):
    stream, _ = ends
    stream.close()
    for call in (
        lambda: stream.send(b"x"),
        lambda: stream.send_many([b"x"]),
        stream.recv,
        lambda: stream.recv_into(bytearray(1)),
        lambda: stream.recv_exactly_into(bytearray(1)),
    ):
        with pytest.raises(StreamClosedError, match=r"close\(\) was called"):
            call()
    with pytest.raises(UsageError, match="the connection is closed"):
        Stream(stream.connection)


def test_what_does_not_belong_together_is_no_stream(tls_pair):
    one, other = tls_pair(), tls_pair()
    with pytest.raises(UsageError, match="a str is not a Connection"):
        Stream("localhost")
    with pytest.raises(UsageError, match="not the handshake of this connection"):
        Stream(one.connection, other.handshake)
    with pytest.raises(UsageError, match=r"TX and RX would carry clear text.*Give what `handshake` returned"):
        Stream(one.connection)
    with pytest.raises(UsageError, match="Give a tuple of directions"):
        Stream(one.connection, one.handshake, Direction.TX)
    for limit in (0, -1, "many", [1]):
        with pytest.raises(UsageError, match="`record_limit` is"):
            Stream(one.connection, one.handshake, record_limit=limit)


def test_after_a_handshake_that_failed_there_are_no_plain_bytes_either(s_server, certificates):
    """The peer, whose certificate is another's, must not get in clear text what was meant for the right one."""
    with connect("localhost", s_server(certificate="stranger")) as connection:
        with pytest.raises(CertificateError):
            handshake(connection, certificates.config())
        with pytest.raises(UsageError, match="TX and RX would carry clear text"):
            Stream(connection)


@LAYERS
def test_a_receive_of_more_than_the_memory_holds_takes_no_more_than_it_can_use(ends):
    stream, peer = ends
    while stream.record_layer == "plain" and select.select([stream.connection.socket], [], [], 0.05)[0]:
        stream.recv()  # tickets of the handshake, which mean nothing here
    peer.sendall(b"a little")
    assert stream.recv(1 << 40) == b"a little"
