"""The compiled calls on a socket and on OpenSSL, made by hand: bad input, time-outs, signals, closed sockets."""

from __future__ import annotations

import signal
import socket
import struct
import time

import pytest

from ktlslab.linux import _hot
from ktlslab.tls.traffic import FUNCTIONS

TIMEOUT_S = 0.2
NOT_TOLD = (False,)


def tls(*arguments):
    return _hot.Tls(*arguments, *NOT_TOLD)


class Half(_hot.Stream):
    """A stream whose condition has neither `push` nor `pull`."""

    def __init__(self):
        super().__init__(_hot.Flow())

    def _go_on(self, *arguments):
        raise arguments[-1]

    _send_on = _fill = _go_on


@pytest.fixture
def ends():
    one, two = socket.socketpair()
    with one, two:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            one.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", 0, int(TIMEOUT_S * 1e6)))
        yield one, two


def test_bytes_go_both_ways(ends):
    one, two = ends
    calls = _hot.Socket(one)
    assert calls.send(b"there") == 5
    assert calls.send(memoryview(b" and more"), socket.MSG_MORE) == 9
    assert two.recv(99) == b"there and more"
    two.send(b"back")
    room = bytearray(9)
    assert (calls.recv_into(room), room[:4]) == (4, b"back")
    two.close()
    assert calls.recv_into(room) == 0


def test_an_expired_wait_is_the_kernels_eagain_and_a_non_blocking_socket_waits_as_python_does(ends):
    one, _ = ends
    calls = _hot.Socket(one)
    with pytest.raises(BlockingIOError):
        calls.recv_into(bytearray(1))
    one.settimeout(TIMEOUT_S / 4)
    with pytest.raises(TimeoutError):
        calls.recv_into(bytearray(1))
    one.settimeout(0)
    with pytest.raises(BlockingIOError):
        calls.recv_into(bytearray(1))


def test_a_receive_of_nothing_tells_no_reset():
    listener = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listener.getsockname())
    two, _ = listener.accept()
    with listener, one:
        two.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        two.close()
        calls = _hot.Socket(one)
        assert calls.recv_into(bytearray()) == 0
        with pytest.raises(ConnectionResetError):
            calls.recv_into(bytearray(1))


def test_a_closed_sockets_number_is_not_used_again(ends):
    one, _ = ends
    calls = _hot.Socket(one)
    one.close()
    with socket.socket(), pytest.raises(OSError, match="Bad file descriptor"):
        calls.send(b"to no one")


@pytest.mark.parametrize("raises", [False, True])
def test_signals_all_the_time_do_not_keep_a_receive_waiting(ends, raises):
    one, _ = ends
    came = []

    def handler(*_):
        came.append(1)
        if raises:
            raise InterruptedError

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT_S / 4, TIMEOUT_S / 4)
    began = time.monotonic()
    try:
        with pytest.raises(InterruptedError if raises else BlockingIOError):
            _hot.Socket(one).recv_into(bytearray(1))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came
    assert time.monotonic() - began < 10 * TIMEOUT_S
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == struct.pack("@ll", 0, int(TIMEOUT_S * 1e6))


WRONG = {
    "no socket": lambda _: _hot.Socket(7),
    "text": lambda one: _hot.Socket(one).send("text"),
    "flags": lambda one: _hot.Socket(one).send(b"x", "flags"),
    "no data": lambda one: _hot.Socket(one).send(),
    "what cannot be written to": lambda one: _hot.Socket(one).recv_into(b"constant"),
    "few functions": lambda _: tls((1, 2), 1, 0, 0, None, 0, None),
    "no functions": lambda _: tls(tuple("functions"), 1, 0, 0, None, 0, None),
    "no ring's calls": lambda one: tls(FUNCTIONS, 1, 1, 1, one.recv_into, 0, None),
    "no time": lambda _: tls(FUNCTIONS, 1, 0, 0, None, 0, "soon"),
    "few numbers": lambda one: _hot.watched(one.fileno()),
    "no struct": lambda one: _hot.watched(one.fileno(), 500, 0),
    "no room for a number in the struct": lambda one: _hot.watched(one.fileno(), 40, 33),
    "no buffers": lambda _: _hot.total(["text"]),
    "no session, sending": lambda _: tls(FUNCTIONS, 0, 0, 0, None, 0, None).push(b"x"),
    "no session to tell": lambda _: tls(FUNCTIONS, 1, 0, 0, None, 0, None).tell(b"x"),
    "no flow": lambda _: _hot.Stream(None),
    "a stream that was not made": lambda _: _hot.Stream.__new__(_hot.Stream).send(b"x"),
    "a stream that cannot send": lambda _: Half().send(b"x"),
    "a stream that cannot receive": lambda _: Half().recv_exactly_into(bytearray(1)),
    "no session, receiving": lambda _: tls(FUNCTIONS, 0, 0, 0, None, 0, None).pull(bytearray(1)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_bad_input_raises_and_does_nothing(ends, wrong):
    with pytest.raises((TypeError, ValueError, AttributeError, BufferError)):
        WRONG[wrong](ends[0])


def test_nothing_moves_nothing_and_a_session_can_be_ended():
    session = tls(FUNCTIONS, 1, 0, 0, None, -1, 1.0)
    session.check_free()
    assert session.push(b"") == 0
    assert session.pull(bytearray()) == 0
    session.__init__(FUNCTIONS, 0, 0, 0, None, -1, None, *NOT_TOLD)
    with pytest.raises(ValueError, match="no session"):
        session.carry()


def test_a_socket_without_keys_has_a_state_and_no_sequence_numbers(pair):
    assert _hot.watched(pair[0].fileno(), 0, 0) == (1, 0, 0)  # TCP_ESTABLISHED
    assert _hot.watched(pair[0].fileno(), 40, 32) == (1, 0, 0)
    assert _hot.watched(-1, 40, 32) == (0, 0, 0)


def test_a_total_counts_bytes_and_not_items():
    assert _hot.total([b"123", memoryview(bytes(8)).cast("I"), bytearray()]) == 11
    assert _hot.total(()) == 0
