"""Each operation does what its system call does, and gives its buffer back when the kernel has let go of it."""

from __future__ import annotations

import errno
import os
import select
import socket
import time

import pytest

from ktlslab.errors import UsageError
from ktlslab.linux import capabilities
from ktlslab.linux.operations import Operation
from ktlslab.linux.ring import Ring, transfer

LONG = 30.0


def is_free(buffer: bytearray) -> bool:
    """Whether no one holds the buffer: Python refuses to resize one that is held."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True


def run(ring, *operations):
    return transfer(ring, operations, timeout=LONG)


def test_messages_go_and_come(ring, pair):
    ours, theirs = pair
    buffer = bytearray(9)
    receive = Operation.recvmsg(ours.fileno(), buffer)
    assert run(ring, Operation.sendmsg(ours.fileno(), b"data", 23)) == [4]
    theirs.sendall(theirs.recv(9))
    assert run(ring, receive) == [4]
    assert (buffer[:4], receive.record_type) == (b"data", -1)  # no kTLS, no type


def test_reads_and_writes(ring, pair):
    ours, theirs = pair
    buffer = bytearray(9)
    theirs.sendall(b"told")
    assert run(ring, Operation.write(ours.fileno(), b"ask"), Operation.read(ours.fileno(), buffer)) == [3, 4]
    assert (theirs.recv(9), buffer[:4]) == (b"ask", b"told")


def test_splice_moves_a_file_through_a_pipe_into_a_socket(ring, pair, tmp_path):
    ours, theirs = pair
    (tmp_path / "file").write_bytes(b"0123456789")
    reader, writer = os.pipe()
    with (tmp_path / "file").open("rb") as file:
        into = Operation.splice(file.fileno(), writer, 4, offset_in=3, linked=True)
        assert run(ring, into, Operation.splice(reader, ours.fileno(), 4)) == [4, 4]
        assert theirs.recv(100) == b"3456"
        assert file.tell() == 0
    os.close(reader)
    os.close(writer)


def test_shutdown_and_close(ring, pair):
    ours, theirs = pair
    descriptor = os.dup(ours.fileno())
    shutdown = Operation.shutdown(ours.fileno(), socket.SHUT_WR, linked=True)
    assert run(ring, shutdown, Operation.close(descriptor)) == [0, 0]
    assert theirs.recv(1) == b""
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_poll_waits_for_what_was_asked(ring, pair):
    ours, theirs = pair
    (token,) = ring.start(Operation.poll_add(ours.fileno(), select.POLLIN))
    assert ring.reap(0) == []
    theirs.sendall(b"x")
    (done,) = ring.reap(1, timeout=LONG)
    assert (done.token, done.result & select.POLLIN, done.more) == (token, select.POLLIN, False)


def test_a_timeout_comes_when_its_time_has(ring):
    started = time.monotonic()
    assert run(ring, Operation.timeout(0.1)) == [-errno.ETIME]
    assert 0.09 < time.monotonic() - started < 10


def test_a_linked_timeout_bounds_the_operation_before(ring, pair):
    ours, theirs = pair
    buffer = bytearray(9)
    bounded = Operation.recv(ours.fileno(), buffer, linked=True), Operation.link_timeout(0.1)
    started = time.monotonic()
    assert run(ring, *bounded) == [-errno.ECANCELED, -errno.ETIME]
    assert 0.09 < time.monotonic() - started < 10
    theirs.sendall(b"x")
    time.sleep(0.05)
    assert run(ring, *bounded) == [1, -errno.ECANCELED]
    del bounded
    assert is_free(buffer)


def test_a_hard_link_holds_after_a_failure_and_a_soft_one_does_not(ring, pair):
    ours, _ = pair
    ours.shutdown(socket.SHUT_WR)
    for how, second in (({"linked": True}, -errno.ECANCELED), ({"hardlinked": True}, 0)):
        assert run(ring, Operation.send(ours.fileno(), b"x", **how), Operation.nop()) == [-errno.EPIPE, second]


def test_a_zero_copy_send_holds_its_buffer_until_the_notification(ring, pair):
    ours, theirs = pair
    buffer = bytearray(b"zero" * 25_000)
    (token,) = ring.start(Operation.send_zc(ours.fileno(), buffer))
    (first,) = ring.reap(1, timeout=LONG) if not (waiting := ring.reap(0)) else waiting[:1]
    seen = [first, *waiting[1:]]
    sent = seen[0].result
    assert (seen[0].token, seen[0].more, seen[0].notification) == (token, True, False)
    got = b""
    while len(got) < sent:
        got += theirs.recv(1 << 16)
    while len(seen) < 2:
        assert not is_free(buffer)
        assert ring.in_flight == 1
        seen += ring.reap(1, timeout=LONG)
    assert (seen[1].token, seen[1].more, seen[1].notification) == (token, False, True)
    assert ring.in_flight == 0
    assert is_free(buffer)
    assert got == bytes(buffer[:sent])


def test_transfer_answers_with_the_result_and_waits_for_the_notification(ring, pair):
    ours, _ = pair
    assert run(ring, Operation.send_zc(ours.fileno(), b"abc"), Operation.nop()) == [3, 0]
    ours.shutdown(socket.SHUT_WR)
    assert run(ring, Operation.send_zc(ours.fileno(), b"abc")) == [-errno.EPIPE]
    assert ring.in_flight == 0
    assert ring.reap(0) == []


def test_socket_options_are_set_in_a_chain_with_the_first_send(ring, pair):
    ours, theirs = pair
    on = (1).to_bytes(4, "little")
    option = Operation.setsockopt(ours.fileno(), socket.IPPROTO_TCP, socket.TCP_NODELAY, on, linked=True)
    done = run(ring, option, Operation.send(ours.fileno(), b"x"))
    if not (answer := capabilities.uring_setsockopt()):  # a kernel before 6.7
        assert done == [-answer.errno, -errno.ECANCELED]
        return
    assert done == [0, 1]
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert theirs.recv(9) == b"x"
    wrong = Operation.setsockopt(ours.fileno(), socket.IPPROTO_TCP, 31, b"no such protocol", linked=True)
    assert run(ring, wrong, Operation.send(ours.fileno(), b"x")) == [-errno.ENOENT, -errno.ECANCELED]


def test_registered_files_are_named_by_index(ring, pair):
    ours, theirs = pair
    ring.register_files([theirs.fileno(), ours.fileno()])
    assert run(ring, Operation.send(1, b"by index", fixed_file=True)) == [8]
    assert theirs.recv(100) == b"by index"
    ring.register_files([theirs.fileno()])
    assert run(ring, Operation.send(1, b"gone", fixed_file=True)) == [-errno.EBADF]
    ring.unregister_files()
    ring.unregister_files()
    assert run(ring, Operation.send(0, b"gone", fixed_file=True)) == [-errno.EBADF]
    with pytest.raises(OSError, match="Bad file descriptor"):
        ring.register_files([1 << 20])


def test_registered_buffers_are_held_and_used_by_index(ring, pair):
    ours, theirs = pair
    out, back = bytearray(b"fixed buffer"), bytearray(100)
    ring.register_buffers([out, back])
    assert not is_free(out)
    whole = memoryview(out)
    theirs.sendall(b"answer")
    operations = (
        Operation.write_fixed(ours.fileno(), whole[6:], 0),
        Operation.read_fixed(ours.fileno(), back, 1),
        Operation.write_fixed(ours.fileno(), bytes(5), 0),  # not in the registered buffer
    )
    assert run(ring, *operations) == [6, 6, -errno.EFAULT]
    assert (theirs.recv(100), back[:6]) == (b"buffer", b"answer")
    (token,) = ring.start(Operation.read_fixed(ours.fileno(), back, 1))
    with pytest.raises(OSError, match="busy"):
        ring.unregister_buffers()
    ring.cancel(token)
    assert [c.result for c in ring.reap(1, timeout=LONG)] == [-errno.ECANCELED]
    del operations
    whole.release()
    ring.unregister_buffers()
    assert is_free(out)
    assert is_free(back)
    with pytest.raises(UsageError, match="cannot be written to"):
        ring.register_buffers([b"constant"])


def test_closing_the_ring_lets_go_of_registered_buffers():
    out = bytearray(9)
    with Ring() as ring:
        ring.register_buffers([out])
        ring.register_files([ring.fileno()] * 0 or [0])
    assert is_free(out)


def test_an_operation_may_be_started_again_and_again(ring, pair):
    ours, theirs = pair
    send = Operation.send(ours.fileno(), b"ab")
    for _ in range(3):
        assert run(ring, *[send] * 5) == [2] * 5
        assert theirs.recv(100) == b"ab" * 5


def test_what_is_no_operation_is_refused_and_starts_nothing(ring):
    with pytest.raises(UsageError, match=r"`operations\[1\]` is of type str"):
        ring.start(Operation.nop(), "nonsense")
    assert ring.in_flight == 0
    assert ring.reap(0) == []
