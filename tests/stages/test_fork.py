"""A session has one process: with two, each would protect a record with the same key and nonce."""

from __future__ import annotations

import os
import socket
import tempfile

import pytest

from ktlslab.errors import UsageError
from ktlslab.session import session_pair
from ktlslab.stages import ServerConfig, Stream, accept, connect, export, handshake, install, install_linked

LAYERS = pytest.mark.parametrize("layer", ["plain", "userspace"])


@pytest.fixture
def ends(tls_pair, plain_pair, layer, io_engine):
    """(stream, the other end)."""
    if layer == "plain":
        connection, sock = plain_pair(io_engine=io_engine)
        return Stream(connection), sock
    pair = tls_pair(io_engine=io_engine)
    return Stream(pair.connection, pair.handshake), pair.tls


def pipe(stream, call):
    reading, writing = os.pipe()
    os.write(writing, b"x")
    return stream.splice_from(reading, 1) if call == "splice_from" else stream.splice_into(writing, 1)


def a_file(stream):
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
        return stream.sendfile(file)


CALLS = {
    "send": lambda stream: stream.send(b"x"),
    "send a lot": lambda stream: stream.send(bytes(1 << 20)),
    "hold back": lambda stream: stream.send(b"x", more=True),
    "send_many": lambda stream: stream.send_many([b"x", b"y"]),
    "sendfile": a_file,
    "splice_from": lambda stream: pipe(stream, "splice_from"),
    "recv": lambda stream: stream.recv(),
    "recv_into": lambda stream: stream.recv_into(bytearray(1)),
    "recv_exactly_into": lambda stream: stream.recv_exactly_into(bytearray(9)),
    "recv_exactly_into a lot": lambda stream: stream.recv_exactly_into(bytearray(1 << 20)),
    "splice_into": lambda stream: pipe(stream, "splice_into"),
    "send_eof": lambda stream: stream.send_eof(),
}


def answers(calls, *given):
    """Return what each call answers, by its name; to be run in a forked process."""
    said = {}
    for name, call in calls.items():
        try:
            said[name] = repr(call(*given))
        except Exception as error:  # noqa: BLE001 - shown
            said[name] = f"{type(error).__name__}: {error}"
    return said


def others(calls, *given, error, what):
    """Return the calls whose answer is not a refusal that names the parent."""
    text = f"{what} belongs to process {os.getppid()}, from which this one was forked"
    said = answers(calls, *given)
    return {name: answer for name, answer in said.items() if not (answer.startswith(error) and text in answer)}


@LAYERS
def test_in_a_child_every_call_of_a_stream_is_refused_and_the_parent_goes_on(ends, forked):
    stream, peer = ends
    stream.send(b"before")
    assert peer.recv(6) == b"before"
    peer.sendall(b"for the parent")
    assert forked(lambda: others(CALLS, stream, error="StreamClosedError", what="the stream")) == "{}"
    stream.send(b"after")
    assert peer.recv(99) == b"after"
    got = bytearray(14)
    if stream.record_layer == "userspace":
        stream.recv_exactly_into(got)
        assert got == b"for the parent"


@LAYERS
def test_a_close_in_a_child_closes_its_descriptor_and_says_nothing_to_the_peer(ends, forked):
    stream, peer = ends

    def in_child():
        descriptor = stream.connection.socket.fileno()
        with stream:
            pass
        stream.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        return stream

    assert forked(in_child).endswith("closed)")
    stream.send(b"still open")
    assert peer.recv(99) == b"still open"
    stream.send(b"x" * 100_000)


@LAYERS
def test_what_was_held_back_leaves_once(ends, forked):
    stream, peer = ends
    stream.send(b"held ", more=True)
    assert forked(stream.close) == "None"
    stream.send(b"back")
    got = b""
    while len(got) < 9:
        got += peer.recv(9)
    assert got == b"held back"


def test_in_a_child_no_stage_goes_on_with_what_the_parent_began(tls_pair, io_engine, forked):
    pair = tls_pair(io_engine=io_engine)
    keys = export(pair.handshake)
    stages = {
        "handshake": lambda: handshake(pair.connection),
        "export": lambda: export(pair.handshake),
        "install": lambda: install(pair.connection, keys),
        "Stream": lambda: Stream(pair.connection, pair.handshake),
        "plain Stream": lambda: Stream(pair.connection),
    } | ({"linked": lambda: install_linked(pair.connection, keys)} if io_engine == "uring" else {})
    assert forked(lambda: others(stages, error="UsageError", what="the session")) == "{}"
    stream = Stream(pair.connection, pair.handshake)
    stream.send(b"the parent's")
    assert pair.tls.recv(99) == b"the parent's"


def test_a_server_may_fork_for_each_connection_that_it_accepted(certificates, fork):
    """Nothing has begun on the connection yet: the child does the handshake, and the session is its own."""
    config = ServerConfig(certificate=certificates.server("good"))

    def serve(connection):
        with Stream(connection, handshake(connection, config)) as stream:
            stream.send(b"from the child")
            return stream.recv()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = connect("localhost", listener.getsockname()[1], io_engine="syscall")
        with accept(listener, io_engine="syscall") as connection:
            reading, writing = os.pipe()
            child = fork()
            if not child:
                os.write(writing, serve(connection))
                os._exit(0)
    with Stream(client, handshake(client, certificates.config())) as stream:
        assert stream.recv() == b"from the child"
        stream.send(b"and back")
        assert os.read(reading, 99) == b"and back"
    os.close(reading)
    os.close(writing)
    os.waitpid(child, 0)


def test_a_child_may_open_sessions_of_its_own(forked):
    client, server = session_pair(record_layer="userspace", io_engine="auto")

    def in_child():
        ours, theirs = session_pair(record_layer="userspace", io_engine="auto")
        with ours, theirs:
            ours.stream.send(b"fresh")
            return theirs.stream.recv()

    with client, server:
        assert forked(in_child) == "b'fresh'"
        client.stream.send(b"as before")
        assert server.stream.recv() == b"as before"


def test_a_connection_goes_to_one_stream(tls_pair, plain_pair):
    pair, (plain, _) = tls_pair(), plain_pair()
    for make in (lambda: Stream(pair.connection, pair.handshake), lambda: Stream(plain)):
        make()
        with pytest.raises(UsageError, match="Stream was already called on this connection"):
            make()
