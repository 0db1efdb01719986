"""Many sends with one submission: every byte arrives, in order, whatever breaks the chain."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import socket
import threading
import time

import pytest

from ktlslab.errors import UsageError
from ktlslab.linux.ring import Operation, Ring, transfer

LONG = 30.0


def pieces(count, size):
    """Return buffers that can be told apart."""
    return [bytes([i % 251]) * size for i in range(count)]


@pytest.fixture
def narrow(pair):
    """Return a pair whose sending end takes little at once."""
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    return ours, theirs


def read(sock, count, pause=0.0):
    got = bytearray()
    while len(got) < count and (part := sock.recv(min(1 << 16, count - len(got)))):
        got += part
        time.sleep(pause)
    return bytes(got)


@pytest.mark.parametrize("count", [0, 1, 3, 16, 17, 64, 300])
def test_all_buffers_arrive_in_order(ring, pair, count):
    ours, theirs = pair
    parts = pieces(count, 100)
    assert ring.send_many(ours.fileno(), parts, timeout=LONG) == 100 * count
    assert ring.batch_sender(ours.fileno(), timeout=LONG)(tuple(parts)) == 100 * count
    assert read(theirs, 200 * count) == b"".join(parts) * 2


def test_small_buffers_and_large_ones_take_turns_and_stay_in_order(ring, pair, pattern):
    """The small ones are copied into registered memory until that is full."""
    ours, theirs = pair
    sizes = [1, 1024, 1025, 5000, 1023, 2] * 10
    parts = [pattern(size + at)[at:] for at, size in enumerate(sizes)]
    for _ in range(2):
        assert ring.send_many(ours.fileno(), parts, timeout=LONG) == sum(sizes)
        assert read(theirs, sum(sizes)) == b"".join(parts)


def test_buffers_that_the_caller_registers_take_the_place_of_the_rings_own(ring, pair):
    ours, theirs = pair
    fd, mine = ours.fileno(), bytearray(b"mine")
    refused = -errno.EFAULT
    assert ring.send_many(fd, [b"a", b"b"], timeout=LONG) == 2
    assert transfer(ring, [Operation.write_fixed(fd, mine, 0)], timeout=LONG) == [refused]  # not registered
    for _ in range(2):
        ring.register_buffers([mine])
        assert transfer(ring, [Operation.write_fixed(fd, mine, 0)], timeout=LONG) == [4]
        assert ring.send_many(fd, [b"c", b"d"], timeout=LONG) == 2
        ring.unregister_buffers()
        assert ring.send_many(fd, [b"e", b"f"], timeout=LONG) == 2
    assert read(theirs, 18) == b"ab" + b"minecdef" * 2


def test_registering_buffers_after_a_batch_does_not_wait_for_what_is_in_flight(ring, pair):
    ours, theirs = pair
    buffer, mine = bytearray(9), bytearray(b"mine")
    ring.register_files([ours.fileno()])
    assert ring.send_many(ours.fileno(), [b"a", b"b"], timeout=LONG) == 2
    (token,) = ring.start(Operation.recv(0, buffer, fixed_file=True))
    with pytest.raises(OSError, check=lambda e: e.errno == errno.EBUSY):
        ring.register_buffers([mine])
    theirs.sendall(b"arrived")
    assert [done.token for done in ring.reap(1, timeout=LONG)] == [token]
    assert buffer[:7] == b"arrived"
    ring.register_buffers([mine])
    assert transfer(ring, [Operation.write_fixed(ours.fileno(), mine, 0)], timeout=LONG) == [4]


def test_a_batch_leaves_no_completion_behind(ring, narrow):
    """Of a chain one operation completes aloud, whether it ends well, comes out short, is cancelled or fails."""
    ours, theirs = narrow
    assert ring.send_many(ours.fileno(), pieces(50, 10), timeout=LONG) == 500
    sent = 0
    with pytest.raises(TimeoutError):  # noqa: PT012 - the kernel may find room for more in between
        while True:
            sent += ring.send_many(ours.fileno(), pieces(400, 1000), timeout=0.05)
    assert read(theirs, 500 + sent)[:500] == b"".join(pieces(50, 10))
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        ring.send_many(ours.fileno(), pieces(50, 10), timeout=LONG)
    assert ring.in_flight == 0
    assert transfer(ring, [Operation.nop()], timeout=LONG) == [0]
    assert ring.reap(0, timeout=0.0) == []


def test_what_is_sent_after_a_fork_is_what_was_given(ring, pair):
    """Memory that a child shares would be copied at the next write, and the kernel would send the old pages."""
    ours, theirs = pair
    assert ring.send_many(ours.fileno(), [b"before"], timeout=LONG) == 6
    child = os.fork()
    if not child:
        time.sleep(LONG)
        os._exit(0)
    try:
        assert ring.send_many(ours.fileno(), [b"after", b" it"], timeout=LONG) == 8
        assert read(theirs, 14) == b"beforeafter it"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_any_buffers_will_do_and_empty_ones_are_nothing(ring, pair):
    parts = [b"", b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3], b""]
    assert ring.send_many(pair[0].fileno(), parts, timeout=LONG) == 6
    assert pair[1].recv(100) == b"abcdef"
    assert ring.send_many(pair[0].fileno(), [b"", b""], timeout=LONG) == 0


def test_a_batch_is_one_submission(pair):
    with Ring(8) as ring:  # fewer entries than buffers: several chains, still in order
        parts = pieces(100, 10)
        assert ring.send_many(pair[0].fileno(), parts, timeout=LONG) == 1000
        assert read(pair[1], 1000) == b"".join(parts)


@pytest.mark.parametrize("flags", [0, int(socket.MSG_MORE)])
def test_a_slow_reader_breaks_the_chains_and_still_gets_every_byte_in_order(ring, narrow, later, flags):
    ours, theirs = narrow
    parts = [hashlib.sha256(bytes([i % 256, i // 256])).digest() * 300 for i in range(200)]  # 1.9 MB
    whole, seen = b"".join(parts), []
    later(0.1, lambda: seen.append(read(theirs, len(whole), 0.0002)))
    assert ring.send_many(ours.fileno(), parts, timeout=LONG, flags=flags) == len(whole)
    ours.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + LONG
    while not seen and time.monotonic() < deadline:
        time.sleep(0.01)
    assert hashlib.sha256(seen[0]).digest() == hashlib.sha256(whole).digest()


def test_a_reader_that_stops_ends_it_with_the_count_of_what_went(ring, narrow):
    ours, theirs = narrow
    parts = pieces(400, 10_000)
    whole, taken = b"".join(parts), []
    started = time.monotonic()
    with pytest.raises(TimeoutError):  # noqa: PT012 - the kernel may find room for more in between
        while True:
            taken.append(ring.send_many(ours.fileno(), parts, timeout=0.2))
    assert 0 < taken[0] < len(whole)
    assert time.monotonic() - started < 20
    ours.shutdown(socket.SHUT_WR)
    expected = b"".join(whole[:count] for count in taken)
    assert read(theirs, len(expected) + 1) == expected


def test_a_socket_that_broke_is_an_error_and_frees_the_buffers(ring, pair):
    ours, _ = pair
    ours.shutdown(socket.SHUT_WR)
    buffer = bytearray(9)
    with pytest.raises(BrokenPipeError):
        ring.send_many(ours.fileno(), [buffer, b"more"], timeout=LONG)
    buffer.append(0)


def test_a_bad_descriptor_and_a_bad_buffer_send_nothing(ring, pair):
    with pytest.raises(OSError, match="Bad file descriptor"):
        ring.send_many(-1, [b"a", b"b"], timeout=LONG)
    first = bytearray(b"a")
    with pytest.raises(UsageError):
        ring.send_many(pair[0].fileno(), [first, "text"], timeout=LONG)
    first.append(0)
    with pytest.raises(UsageError):
        ring.send_many(pair[0].fileno(), 7, timeout=LONG)
    pair[1].settimeout(0)
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)


def test_a_handler_that_raises_leaves_nothing_in_flight(ring, narrow, once_waiting, raising_signal):
    ours, theirs = narrow
    buffers = [bytearray(b"x" * 50_000) for _ in range(200)]
    once_waiting(signal.pthread_kill, threading.get_ident(), raising_signal.number)
    with pytest.raises(raising_signal.error):
        ring.send_many(ours.fileno(), buffers, timeout=LONG)
    for buffer in buffers:
        buffer.append(0)
    theirs.settimeout(0)
    before = 0
    while part := _now(theirs):
        before += len(part)
        time.sleep(0.02)
    assert 0 < before < 10_000_000
    assert ring.send(ours.fileno(), b"after", 0, timeout=LONG) == 5


def _now(sock):
    try:
        return sock.recv(1 << 16)
    except BlockingIOError:
        return b""


def test_another_threads_operations_are_turned_away_meanwhile_and_the_ring_stays(ring, narrow, once_waiting):
    ours, theirs = narrow
    answers = []

    def intrude():
        for call in (lambda: ring.send(ours.fileno(), b"x"), ring.close):
            with pytest.raises(OSError, check=lambda e: e.errno) as caught:
                call()
            answers.append(caught.value.errno)
        read(theirs, 1_000_000)

    once_waiting(intrude)
    assert ring.send_many(ours.fileno(), pieces(20, 50_000), timeout=LONG) == 1_000_000
    assert answers == [errno.EBUSY] * 2
    assert not ring.closed


def test_a_handler_that_uses_the_waiting_ring_is_turned_away(ring, pair, once_waiting):
    ours, theirs = pair
    answers = []

    def handle(*_):
        for call in (lambda: ring.send(ours.fileno(), b"x"), lambda: ring.reap(1, timeout=0.0), ring.close):
            try:
                call()
            except OSError as error:
                answers.append(error.errno)

    def interrupt(thread):
        signal.pthread_kill(thread, signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while len(answers) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        theirs.sendall(b"data")

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        once_waiting(interrupt, threading.get_ident())
        assert ring.recv_into(ours.fileno(), bytearray(9), 0, timeout=LONG) == 4
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert answers == [errno.EBUSY] * 3


def test_bound_calls_do_what_the_rings_own_do_and_end_with_it(ring, pair):
    ours, theirs = pair
    send, receive = ring.sender(ours.fileno(), timeout=LONG), ring.receiver(ours.fileno(), timeout=0.05)
    send_record, receive_record = (
        ring.record_sender(ours.fileno(), timeout=LONG),
        ring.record_receiver(ours.fileno(), timeout=LONG),
    )
    assert (send(b"abc"), send_record(b"de", 23), theirs.recv(9)) == (3, 2, b"abcde")
    send(b"o", int(socket.MSG_OOB))
    buffer = bytearray(9)
    with pytest.raises(TimeoutError, match="timed out"):
        receive(buffer)
    buffer.append(0)
    theirs.sendall(b"12")
    time.sleep(0.05)
    assert receive(buffer, int(socket.MSG_PEEK)) == 2
    assert (receive(buffer), buffer[:2]) == (2, b"12")
    theirs.sendall(b"345")
    assert (receive_record(buffer), buffer[:3]) == ((3, -1), b"345")
    for wrong in (send, lambda: send_record(b"x")):
        with pytest.raises(TypeError, match="expected data and a number"):
            wrong()
    for wrong in (lambda: receive(b"constant"), lambda: send("text"), lambda: send_record(b"x", 256)):
        with pytest.raises(UsageError):
            wrong()
    ring.close()
    for call in (lambda: send(b"x"), lambda: receive(buffer), lambda: send_record(b"x", 23), lambda: ring.sender(0)):
        with pytest.raises(UsageError, match="the ring is closed"):
            call()


def test_a_chain_longer_than_the_ring_is_refused_whole():
    with Ring(4) as ring:
        chain = [Operation.nop(linked=True)] * 4 + [Operation.nop()]
        with pytest.raises(OSError, check=lambda e: e.errno == errno.E2BIG):
            ring.start(*chain)
        assert ring.in_flight == 0
        assert len(ring.start(*chain[1:], *chain[1:], *chain[1:])) == 12
