"""One call, one operation; and whatever interrupts it, the buffer is this program's again and no byte is lost."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ktlslab.errors import MachineError, RingUnavailableError, UsageError
from ktlslab.linux.ring import Operation, Ring, transfer

LONG = 30.0  # more than any of these waits takes


def is_free(buffer: bytearray) -> bool:
    """Whether no one holds the buffer: Python refuses to resize one that is held."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_connect_reaches_a_listener_of_either_family(ring, family, host):
    with socket.create_server((host, 0), family=family) as listener, socket.socket(family) as sock:
        ring.connect(sock.fileno(), family, listener.getsockname(), timeout=LONG)
        accepted, peer = listener.accept()
        accepted.close()
        assert peer == sock.getsockname()


def test_connect_to_a_closed_port_is_refused(ring):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        ring.connect(sock.fileno(), socket.AF_INET, address, timeout=LONG)


@pytest.mark.parametrize("data", [b"bytes", bytearray(b"bytes"), memoryview(b"bytes")])
def test_send_takes_any_buffer_and_recv_into_fills_one(ring, pair, data):
    ours, theirs = pair
    assert ring.send(ours.fileno(), data, 0, timeout=LONG) == 5
    assert theirs.recv(100) == b"bytes"
    theirs.sendall(b"answer")
    buffer = bytearray(100)
    assert ring.recv_into(ours.fileno(), buffer, 0, timeout=LONG) == 6
    assert buffer[:7] == b"answer\0"
    assert is_free(buffer)


def test_recv_into_refuses_a_buffer_that_cannot_be_written(ring, pair):
    with pytest.raises(UsageError, match="cannot be written to"):
        ring.recv_into(pair[0].fileno(), b"constant")


def test_recv_into_is_zero_at_the_end(ring, pair):
    pair[1].close()
    assert ring.recv_into(pair[0].fileno(), bytearray(1), 0, timeout=LONG) == 0


def test_recv_flags_reach_the_kernel(ring, pair):
    pair[1].sendall(b"seen")
    for _ in range(2):
        assert ring.recv_into(pair[0].fileno(), bytearray(9), socket.MSG_PEEK, timeout=LONG) == 4


def test_a_broken_pipe_is_an_error_and_no_signal(ring, pair):
    ours, _ = pair
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        ring.send(ours.fileno(), b"x", 0, timeout=LONG)


def test_records_on_a_plain_socket_are_plain_bytes_without_a_type(ring, pair):
    ours, theirs = pair
    assert ring.send_record(ours.fileno(), b"alert", 21, timeout=LONG) == 5
    assert theirs.recv(100) == b"alert"
    theirs.sendall(b"data")
    buffer = bytearray(100)
    assert ring.recv_record(ours.fileno(), buffer, 0, timeout=LONG) == (4, -1)
    assert buffer[:4] == b"data"


def test_shutdown_ends_one_direction(ring, pair):
    ours, theirs = pair
    ring.shutdown(ours.fileno(), socket.SHUT_WR)
    assert theirs.recv(1) == b""
    theirs.sendall(b"still")
    assert ours.recv(9) == b"still"


def test_close_fd_closes_the_descriptor(ring, pair):
    descriptor = os.dup(pair[0].fileno())
    ring.close_fd(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_supports_tells_known_operations_from_unknown_ones(ring):
    assert ring.supports(0)  # NOP
    assert not ring.supports(250)


# Many in flight


def test_started_operations_are_reaped_by_their_tokens(ring, pair):
    ours, theirs = pair
    buffer = bytearray(10)
    receive, send = ring.start(Operation.recv(ours.fileno(), buffer), Operation.send(ours.fileno(), b"ping"))
    assert [(c.token, c.result) for c in ring.reap(1, timeout=LONG)] == [(send, 4)]
    assert ring.in_flight == 1
    theirs.sendall(theirs.recv(10))
    assert [(c.token, c.result) for c in ring.reap(1, timeout=LONG)] == [(receive, 4)]
    assert (ring.in_flight, buffer[:4]) == (0, b"ping")


def test_a_started_buffer_cannot_be_resized_until_it_is_reaped(ring, pair):
    ours, theirs = pair
    buffer = bytearray(10)
    ring.start(Operation.recv(ours.fileno(), buffer))
    with pytest.raises(BufferError):
        buffer.extend(b"more")
    theirs.sendall(b"x")
    assert len(ring.reap(1, timeout=LONG)) == 1
    assert is_free(buffer)


def test_a_started_buffer_lives_though_its_owner_forgot_it(ring, pair):
    ours, theirs = pair
    (token,) = ring.start(Operation.send(ours.fileno(), bytes(5) + b"kept"))
    assert theirs.recv(100) == bytes(5) + b"kept"
    assert [c.token for c in ring.reap(1, timeout=LONG)] == [token]


def test_a_cancelled_operation_says_so(ring, pair):
    buffer = bytearray(10)
    (token,) = ring.start(Operation.recv(pair[0].fileno(), buffer))
    ring.cancel(token)
    assert [(c.token, c.result) for c in ring.reap(1, timeout=LONG)] == [(token, -errno.ECANCELED)]
    assert is_free(buffer)


def test_linked_operations_run_in_order_and_fall_with_the_first_that_fails(ring, pair):
    ours, theirs = pair
    buffer = bytearray(4)
    parts = Operation.send(ours.fileno(), b"ask", linked=True), Operation.recv(ours.fileno(), buffer)
    theirs.sendall(b"told")
    assert transfer(ring, parts, timeout=LONG) == [3, 4]
    assert (theirs.recv(9), buffer) == (b"ask", b"told")
    ours.shutdown(socket.SHUT_WR)
    assert transfer(ring, parts, timeout=LONG) == [-errno.EPIPE, -errno.ECANCELED]


def test_a_call_between_start_and_reap_takes_no_completion_away(ring, pair):
    ours, theirs = pair
    tokens = ring.start(*[Operation.nop()] * 5)
    theirs.sendall(b"x")
    assert ring.recv_into(ours.fileno(), bytearray(1), 0, timeout=LONG) == 1
    assert sorted(c.token for c in ring.reap(5, timeout=LONG)) == tokens


def test_more_operations_than_the_ring_has_entries_all_complete():
    with Ring(4) as ring:
        tokens = ring.start(*[Operation.nop()] * 100)
        seen = []
        while len(seen) < 100:
            seen += [c.token for c in ring.reap(1, timeout=LONG)]
        assert sorted(seen) == tokens


def test_reaping_nothing_in_time_is_a_time_out(ring, pair):
    ring.start(Operation.recv(pair[0].fileno(), bytearray(1)))
    with pytest.raises(TimeoutError):
        ring.reap(1, timeout=0.05)
    assert ring.in_flight == 1


def test_signals_do_not_put_off_the_end_of_a_reap(ring, pair):
    ring.start(Operation.recv(pair[0].fileno(), bytearray(1)))
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    stop = threading.Timer(LONG, signal.setitimer, (signal.ITIMER_REAL, 0))  # were there no end
    stop.start()
    try:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            ring.reap(1, timeout=0.1)
        assert time.monotonic() - started < LONG / 2
    finally:
        stop.cancel()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("every", [0, 0.03], ids=["no signals", "signals all the time"])
def test_a_time_out_is_waited_for_once(ring, pair, every):
    """A wait that submitted something tells neither of its time-out nor of a signal: what is left of the time does."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, every, every)
    try:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            ring.recv_into(pair[0].fileno(), bytearray(1), 0, timeout=1.0)
        assert time.monotonic() - started < 1.9
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_transfer_leaves_what_others_started_to_them(ring, pair):
    ours, theirs = pair
    buffer = bytearray(4)
    mine = ring.start(Operation.recv(ours.fileno(), buffer))[0]
    theirs.sendall(b"mine")
    assert transfer(ring, [Operation.send(ours.fileno(), b"yours")], timeout=LONG) == [5]
    assert [(c.token, c.result) for c in ring.reap(1, timeout=LONG)] == [(mine, 4)]
    assert buffer == b"mine"


def test_polling_for_completions_does_not_wait(ring, pair):
    ring.start(Operation.recv(pair[0].fileno(), bytearray(1)))
    started = time.monotonic()
    assert ring.reap(0) == []
    assert time.monotonic() - started < 5


# What interrupts a wait


def test_another_thread_runs_while_the_kernel_waits(ring, pair, once_waiting):
    ours, theirs = pair
    once_waiting(theirs.sendall, b"woken")
    assert ring.recv_into(ours.fileno(), bytearray(9), 0, timeout=LONG) == 5
    once_waiting(theirs.sendall, b"again")
    ring.start(Operation.recv(ours.fileno(), bytearray(9)))
    assert [c.result for c in ring.reap(1, timeout=LONG)] == [5]


def test_a_time_out_frees_the_buffer_and_loses_nothing(ring, pair):
    ours, theirs = pair
    buffer = bytearray(10)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        ring.recv_into(ours.fileno(), buffer, 0, timeout=0.1)
    assert 0.09 < time.monotonic() - started < LONG / 2
    assert is_free(buffer)
    theirs.sendall(b"late")
    time.sleep(0.05)
    assert buffer == bytes(10)
    assert ring.recv_into(ours.fileno(), buffer, 0, timeout=LONG) == 4
    assert buffer[:4] == b"late"


def test_a_failed_call_lets_go_of_the_buffer_even_while_its_error_is_being_handled(pair):
    ring, buffer = Ring(), bytearray(10)
    descriptor = pair[0].fileno()
    for kind in (TimeoutError, UsageError):
        for call in (
            lambda view: ring.recv_into(descriptor, view, 0, timeout=0.01),
            lambda view: ring.recv_record(descriptor, view, 0, timeout=0.01),
        ):
            with pytest.raises(kind), memoryview(buffer) as whole, whole[2:] as view:
                call(view)
        ring.close()
    assert is_free(buffer)


def test_a_time_out_leaves_started_operations_in_flight(ring, pair):
    ours, theirs = pair
    (token,) = ring.start(Operation.recv(ours.fileno(), bytearray(9)))
    with pytest.raises(TimeoutError):
        ring.recv_into(theirs.fileno(), bytearray(9), 0, timeout=0.05)
    theirs.sendall(b"x")
    assert [(c.token, c.result) for c in ring.reap(1, timeout=LONG)] == [(token, 1)]


def test_an_operation_that_can_complete_at_once_does_so_even_with_no_time(ring, pair):
    ours, theirs = pair
    theirs.sendall(b"there")
    time.sleep(0.05)
    assert ring.recv_into(ours.fileno(), bytearray(9), 0, timeout=0.0) == 5


def test_a_handler_that_raises_leaves_no_operation_in_flight(ring, pair, once_waiting, raising_signal):
    ours, theirs = pair
    buffer = bytearray(10)
    once_waiting(signal.pthread_kill, threading.get_ident(), raising_signal.number)
    with pytest.raises(raising_signal.error):
        ring.recv_into(ours.fileno(), buffer, 0, timeout=LONG)
    assert is_free(buffer)
    theirs.sendall(b"after")
    time.sleep(0.05)
    assert buffer == bytes(10)
    assert ring.recv_into(ours.fileno(), buffer, 0, timeout=LONG) == 5


def test_a_handler_that_returns_does_not_end_the_wait(ring, pair, once_waiting):
    ours, theirs = pair
    seen = []

    def interrupt(thread):
        for count in (1, 2):
            signal.pthread_kill(thread, signal.SIGUSR1)
            deadline = time.monotonic() + 10
            while len(seen) < count and time.monotonic() < deadline:
                time.sleep(0.005)
        theirs.sendall(b"data")

    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(time.monotonic()))
    try:
        once_waiting(interrupt, threading.get_ident())
        assert ring.recv_into(ours.fileno(), bytearray(9), 0, timeout=LONG) == 4
        returned = time.monotonic()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(seen) == 2
    assert seen[1] < returned


def test_ctrl_c_ends_a_wait(ring, pair, once_waiting):
    ours, theirs = pair
    buffer = bytearray(10)
    once_waiting(os.kill, os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ring.recv_into(ours.fileno(), buffer, 0, timeout=LONG)
    assert is_free(buffer)
    theirs.sendall(b"x")
    assert ring.recv_into(ours.fileno(), buffer, 0, timeout=LONG) == 1


def test_an_interrupted_reap_hands_its_completions_out_later(ring, pair, once_waiting, raising_signal):
    ours, theirs = pair
    tokens = ring.start(Operation.nop(), Operation.recv(ours.fileno(), bytearray(9)))
    once_waiting(signal.pthread_kill, threading.get_ident(), raising_signal.number)
    with pytest.raises(raising_signal.error):  # noqa: PT012
        while True:
            done = ring.reap(2, timeout=LONG)
            assert [c.token for c in done] == tokens[:1]  # the first may come alone; the wait for the second is broken
            tokens.pop(0)
    theirs.sendall(b"x")
    seen = []
    while len(seen) < len(tokens):
        seen += [c.token for c in ring.reap(1, timeout=LONG)]
    assert seen == tokens


def test_a_second_thread_is_turned_away(ring, pair, once_waiting):
    ours, theirs = pair
    answers = []

    def intrude():
        for call in (lambda: ring.send(ours.fileno(), b"x"), lambda: ring.reap(0), lambda: ring.start(Operation.nop())):
            with pytest.raises(OSError, match="busy") as caught:
                call()
            answers.append(caught.value.errno)
        theirs.sendall(b"end")

    once_waiting(intrude)
    buffer = bytearray(9)
    assert ring.recv_into(ours.fileno(), buffer, 0, timeout=LONG) == 3
    assert buffer[:3] == b"end"
    assert answers == [errno.EBUSY] * 3


# The ring's own life


def test_closing_cancels_what_is_in_flight_and_frees_its_buffers(pair):
    ours, theirs = pair
    buffers = [bytearray(9) for _ in range(3)]
    ring = Ring()
    ring.start(*[Operation.recv(ours.fileno(), buffer) for buffer in buffers])
    started = time.monotonic()
    ring.close()
    assert time.monotonic() - started < 10
    assert ring.closed
    assert all(is_free(buffer) for buffer in buffers)
    theirs.sendall(b"x")
    assert ours.recv(9) == b"x"


def test_a_closed_ring_refuses_everything_and_may_be_closed_again(pair):
    ring = Ring()
    ring.close()
    ring.close()
    descriptor = pair[0].fileno()
    for call in (
        lambda: ring.send(descriptor, b"x"),
        lambda: ring.recv_into(descriptor, bytearray(1)),
        lambda: ring.send_record(descriptor, b"x", 23),
        lambda: ring.recv_record(descriptor, bytearray(1)),
        lambda: ring.connect(descriptor, socket.AF_INET, ("127.0.0.1", 1)),
        lambda: ring.start(Operation.nop()),
        ring.reap,
        ring.fileno,
        lambda: ring.cancel(1),
        lambda: ring.supports(0),
    ):
        with pytest.raises((UsageError, ValueError), match="the ring is closed"):
            call()
    assert repr(ring) == "Ring(closed)"


def test_a_context_closes_the_ring_and_its_descriptor():
    with Ring() as ring:
        descriptor = ring.fileno()
        assert f"fd={descriptor}" in repr(ring)
        os.fstat(descriptor)
    assert ring.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("entries", [0, 1 << 20])
def test_an_impossible_size_is_refused_with_the_sizes_there_are(entries):
    with pytest.raises(UsageError, match=r"`entries` is \d+.*from 1 to 32768"):
        Ring(entries)


def test_no_descriptor_left_is_a_sentence_with_a_remedy():
    code = """
import resource
from ktlslab.errors import RingUnavailableError
from ktlslab.linux.ring import Ring
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    Ring()
except RingUnavailableError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("setting up an io_uring: EMFILE (Too many open files). ")
    assert "ulimit -n" in done.stdout
    assert issubclass(RingUnavailableError, MachineError)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 3
