"""The two engines behave alike: every promise is checked with both."""

from __future__ import annotations

import socket
import time

import pytest

from ktlslab.linux.engines import RingEngine, SyscallEngine
from ktlslab.linux.ring import Ring


@pytest.fixture
def make(io_engine):
    """make(timeout) -> an engine, closed at the end."""
    engines = []

    def build(timeout=20.0):
        engines.append(RingEngine(None, timeout) if io_engine == "uring" else SyscallEngine(timeout))
        assert engines[-1].name == io_engine
        return engines[-1]

    yield build
    for engine in engines:
        engine.close()


@pytest.fixture
def connected(make):
    """connected(timeout) -> (engine, our socket, the peer's)."""
    sockets = []

    def build(timeout=20.0):
        engine = make(timeout)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.socket()
            sockets.append(ours)
            engine.connect(ours, listener.getsockname())
            theirs, _ = listener.accept()
            sockets.append(theirs)
        theirs.settimeout(20)
        return engine, ours, theirs

    yield build
    for sock in sockets:
        sock.close()


def test_bytes_go_both_ways(connected):
    engine, ours, theirs = connected()
    assert engine.send(ours, b"ping") == 4
    assert theirs.recv(9) == b"ping"
    theirs.sendall(b"pong!")
    buffer = bytearray(9)
    assert engine.recv_into(ours, buffer) == 5
    assert buffer[:5] == b"pong!"


def test_the_end_is_zero_bytes(connected):
    engine, ours, theirs = connected()
    theirs.shutdown(socket.SHUT_WR)
    assert engine.recv_into(ours, bytearray(9)) == 0
    assert engine.recv_record(ours, bytearray(9)) == (0, -1)


def test_a_plain_socket_names_no_record_type(connected):
    engine, ours, theirs = connected()
    assert engine.send_record(ours, b"data", 23) == 4
    assert theirs.recv(9) == b"data"
    theirs.sendall(b"data")
    assert engine.recv_record(ours, bytearray(9)) == (4, -1)


def test_flags_reach_the_kernel(connected):
    engine, ours, theirs = connected()
    engine.send(ours, b"ab", socket.MSG_OOB)
    assert theirs.recv(9) == b"a"


def test_a_large_send_says_how_much_was_taken(connected):
    engine, ours, _ = connected(0.2)
    taken = engine.send(ours, bytes(64 << 20))  # no one reads
    assert 0 < taken < 64 << 20


def test_every_wait_is_bounded(connected):
    engine, ours, theirs = connected(0.2)
    buffer = bytearray(9)
    for receive in (engine.recv_into, engine.recv_record):
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="timed out"):
            receive(ours, buffer)
        assert 0.15 < time.monotonic() - started < 10
    buffer.append(0)  # no one holds it
    theirs.sendall(b"late")
    assert engine.recv_into(ours, buffer) == 4


def test_sending_to_a_peer_that_does_not_read_is_bounded(connected):
    engine, ours, _ = connected(0.2)
    started = time.monotonic()
    for send in (lambda: engine.send(ours, bytes(1 << 20)), lambda: engine.send_record(ours, bytes(1 << 20), 23)):
        with pytest.raises(TimeoutError):  # noqa: PT012
            while True:
                send()
    assert time.monotonic() - started < 20


def test_connecting_is_bounded(make, full_listener):
    engine = make(0.3)
    started = time.monotonic()
    with socket.socket() as sock, pytest.raises(TimeoutError):
        engine.connect(sock, full_listener)
    assert 0.25 < time.monotonic() - started < 10


def test_a_refused_connection_and_a_broken_pipe_are_the_kernels_errors(make, connected):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        make().connect(sock, address)
    engine, ours, _ = connected()
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        engine.send(ours, b"x")


def test_the_socket_stays_blocking(connected):
    _, ours, _ = connected()
    assert ours.getblocking()


def test_no_bound_means_waiting_for_ever(connected, later):
    engine, ours, theirs = connected(None)
    later(0.3, theirs.sendall, b"x")
    assert engine.recv_into(ours, bytearray(1)) == 1


def test_a_lent_ring_stays_open_and_an_own_one_is_closed():
    with Ring() as ring:
        RingEngine(ring).close()
        assert not ring.closed
    engine = RingEngine()
    engine.close()
    assert engine.ring.closed
