"""Receives that stay armed: every byte once and in order, whatever ends or interrupts them."""

from __future__ import annotations

import errno
import signal
import socket
import threading
import time

import pytest

from ktlslab.errors import UsageError
from ktlslab.linux.buffers import RECORD_HEAD
from ktlslab.linux.ring import Operation, Ring

LONG = 30.0


@pytest.fixture
def buffers(ring):
    with ring.buffer_ring(8, 1024) as buffers:
        yield buffers


@pytest.fixture(params=["recv", "recvmsg"])
def receive(request, ring):
    """Give each kind of multishot receive; on these plain sockets they differ by their heads alone."""
    return ring.recv_multishot if request.param == "recv" else ring.recvmsg_multishot


def joined(pieces):
    assert {kind for kind, _ in pieces} <= {-1}
    return b"".join(data for _, data in pieces)


def until(incoming, count):
    got = b""
    while len(got) < count:
        got += joined(incoming.take())
    return got


def test_what_comes_is_handed_out_piece_by_piece_to_the_end(receive, pair, buffers):
    ours, theirs = pair
    with receive(ours.fileno(), buffers, timeout=LONG) as incoming:
        theirs.sendall(b"one")
        assert next(incoming) == (-1, b"one")
        theirs.sendall(b"two")
        assert next(incoming) == (-1, b"two")
        theirs.sendall(b"three")
        theirs.shutdown(socket.SHUT_WR)
        assert joined(list(incoming)) == b"three"
        assert incoming.ended
        assert incoming.take() == []


@pytest.mark.parametrize("count", [1, 2, 8, 256])
def test_many_times_more_than_the_buffers_hold_arrives_whole(  # noqa: PLR0917 - fixtures
    ring, receive, pair, later, pattern, count
):
    ours, theirs = pair
    whole = pattern(1_000_003)
    later(0, lambda: (theirs.sendall(whole), theirs.shutdown(socket.SHUT_WR)))
    with ring.buffer_ring(count, 777) as buffers, receive(ours.fileno(), buffers, timeout=LONG) as incoming:
        assert joined(list(incoming)) == whole


def test_one_take_hands_out_all_that_is_there(receive, pair, buffers, pattern):
    ours, theirs = pair
    theirs.sendall(pattern(3000))
    time.sleep(0.1)
    with receive(ours.fileno(), buffers, timeout=LONG) as incoming:
        assert joined(incoming.take()) == pattern(3000)
        assert incoming.take(wait=False) == []
        assert not incoming.ended
        theirs.sendall(b"more")
        time.sleep(0.1)
        assert joined(incoming.take(wait=False)) == b"more"


def test_nothing_in_time_is_a_time_out_after_which_it_goes_on(receive, pair, buffers):
    ours, theirs = pair
    with receive(ours.fileno(), buffers, timeout=0.1) as incoming:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="timed out"):
            next(incoming)
        assert 0.09 < time.monotonic() - started < 10
        theirs.sendall(b"late")
        assert next(incoming) == (-1, b"late")


def test_what_had_come_when_it_is_left_is_not_lost(receive, pair, buffers):
    ours, theirs = pair
    with receive(ours.fileno(), buffers, timeout=LONG) as incoming:
        assert incoming.take(wait=False) == []  # armed
        theirs.sendall(b"came before")
        time.sleep(0.1)
    assert incoming.closed
    assert joined(list(incoming)) == b"came before"
    theirs.sendall(b"came after")
    assert ours.recv(100) == b"came after"


def test_a_stopped_one_hands_out_the_rest_and_ends(receive, pair, buffers):
    ours, theirs = pair
    incoming = receive(ours.fileno(), buffers, timeout=LONG)
    incoming.take(wait=False)
    theirs.sendall(b"abc")
    time.sleep(0.1)
    incoming.stop()
    theirs.sendall(b"def")
    assert joined(list(incoming)) == b"abc"
    assert incoming.ended
    incoming.close()
    incoming.close()
    assert ours.recv(9) == b"def"


def test_other_operations_on_the_ring_take_nothing_away_and_get_theirs(ring, receive, pair, buffers):
    ours, theirs = pair
    with receive(ours.fileno(), buffers, timeout=LONG) as incoming:
        incoming.take(wait=False)
        tokens = ring.start(*[Operation.nop()] * 3)
        for part in (b"1", b"2", b"3"):
            assert ring.send(theirs.fileno(), part, 0, timeout=LONG) == 1
            time.sleep(0.02)
        assert sorted(c.token for c in ring.reap(3, timeout=LONG)) == tokens
        with pytest.raises(TimeoutError):
            ring.reap(1, timeout=0.05)
        assert until(incoming, 3) == b"123"


def test_two_share_the_buffers_and_a_starved_one_is_told(ring, receive, pattern):
    pairs = [socket.socketpair() for _ in range(2)]
    with ring.buffer_ring(2, 100) as buffers:
        first, second = (receive(ours.fileno(), buffers, timeout=LONG) for ours, _ in pairs)
        first.take(wait=False)
        pairs[0][1].sendall(pattern(1000))
        time.sleep(0.1)
        assert ring.reap(0) == []  # looked, so that the first holds both buffers
        pairs[1][1].sendall(b"waiting")
        with pytest.raises(OSError, check=lambda e: e.errno == errno.ENOBUFS):
            second.take()
        assert until(first, 1000) == pattern(1000)
        assert until(second, 7) == b"waiting"
    assert first.closed
    assert second.closed
    for sock in sum(pairs, ()):
        sock.close()


def test_an_error_comes_after_the_data_and_stays(receive, pair, buffers):
    ours, theirs = pair
    with receive(ours.fileno(), buffers, timeout=LONG) as incoming:
        incoming.take(wait=False)
        theirs.sendall(b"last words")
        time.sleep(0.1)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        time.sleep(0.1)
        assert next(incoming) == (-1, b"last words")
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                next(incoming)


def test_a_handler_that_raises_loses_nothing(receive, pair, buffers, once_waiting, raising_signal):
    ours, theirs = pair
    with receive(ours.fileno(), buffers, timeout=LONG) as incoming:
        once_waiting(signal.pthread_kill, threading.get_ident(), raising_signal.number)
        with pytest.raises(raising_signal.error):
            incoming.take()
        theirs.sendall(b"after")
        assert until(incoming, 5) == b"after"


def test_another_thread_is_turned_away_and_frees_nothing(ring, receive, pair, buffers, once_waiting):
    ours, theirs = pair
    answers = []

    def intrude():
        for call in (lambda: incoming.take(wait=False), incoming.stop, incoming.close, buffers.close, ring.close):
            with pytest.raises(OSError, check=lambda e: e.errno) as caught:
                call()
            answers.append(caught.value.errno)
        theirs.sendall(b"end")

    with receive(ours.fileno(), buffers, timeout=LONG) as incoming:
        once_waiting(intrude)
        assert next(incoming) == (-1, b"end")
    assert answers == [errno.EBUSY] * 5


def test_closing_the_ring_closes_all_in_order(pair):
    ours, theirs = pair
    ring = Ring()
    buffers = ring.buffer_ring(4, 100)
    incoming = ring.recv_multishot(ours.fileno(), buffers, timeout=LONG)
    theirs.sendall(b"here")
    assert next(incoming) == (-1, b"here")
    theirs.sendall(b"kept")
    time.sleep(0.1)
    ring.close()
    assert incoming.closed
    assert buffers.closed
    assert list(incoming) == [(-1, b"kept")]
    with pytest.raises(UsageError, match="the ring is closed"):
        ring.buffer_ring(4, 100)


def test_closed_in_two_threads_at_once(pair):
    """As by a stream that is closed while `pieces` ends in another thread: the second finds it closed."""
    for _ in range(200):
        ring = Ring()
        buffers = ring.buffer_ring(4, 100)
        incoming = ring.recv_multishot(pair[0].fileno(), buffers, timeout=LONG)
        assert incoming.take(wait=False) == []  # it is armed
        start, errors = threading.Barrier(3), []

        def close(what, start=start, errors=errors):
            start.wait()
            try:
                what.close()
            except OSError as error:
                errors.append(error.errno)

        threads = [threading.Thread(target=close, args=(what,)) for what in (incoming, buffers, ring)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        ring.close()
        assert set(errors) <= {errno.EBUSY}
        assert ring.closed
        assert buffers.closed
        assert incoming.closed


@pytest.mark.parametrize(("count", "size"), [(0, 100), (3, 100), (1 << 16, 100), (4, RECORD_HEAD)])
def test_impossible_buffers_are_refused(ring, count, size):
    with pytest.raises(UsageError, match=r"`(count|size)` is \d+\. It is a (power of two|whole number)"):
        ring.buffer_ring(count, size)


def test_closed_or_foreign_buffers_are_refused(ring, pair, buffers):
    with Ring() as other, pytest.raises(UsageError, match="belong to another ring"):
        other.recv_multishot(pair[0].fileno(), buffers)
    buffers.close()
    with pytest.raises(UsageError, match="closed"):
        ring.recv_multishot(pair[0].fileno(), buffers)
    assert "closed" in repr(buffers)


def test_groups_come_and_go(ring, pair):
    for _ in range(50):
        with (
            ring.buffer_ring(2, 64) as buffers,
            ring.recv_multishot(pair[0].fileno(), buffers, timeout=LONG) as incoming,
        ):
            pair[1].sendall(b"x")
            assert next(incoming) == (-1, b"x")
