"""A forked process cannot touch its parent's ring, and the parent does not notice that there was one."""

from __future__ import annotations

import gc
import multiprocessing
import os
import select
import signal
import socket
import time
from pathlib import Path

import pytest

from ktlslab.linux import forks
from ktlslab.linux.ring import Operation, Ring, transfer

LONG = 30.0


def calls(ring, fd):
    """Every call of a ring, by its name."""
    bound = {name: getattr(ring, name)(fd) for name in ("sender", "receiver", "record_sender", "batch_sender")}
    bound["record_receiver"] = ring.record_receiver(fd)
    return {
        "send": lambda: ring.send(fd, b"x"),
        "recv_into": lambda: ring.recv_into(fd, bytearray(1)),
        "send_record": lambda: ring.send_record(fd, b"x", 23),
        "recv_record": lambda: ring.recv_record(fd, bytearray(1)),
        "send_many": lambda: ring.send_many(fd, [b"x"]),
        "connect": lambda: ring.connect(fd, socket.AF_INET, ("127.0.0.1", 1)),
        "accept": lambda: ring.accept(fd),
        "shutdown": lambda: ring.shutdown(fd, socket.SHUT_WR),
        "close_fd": lambda: ring.close_fd(fd),
        "a bound send": lambda: bound["sender"](b"x"),
        "a bound recv": lambda: bound["receiver"](bytearray(1)),
        "a bound send_record": lambda: bound["record_sender"](b"x", 23),
        "a bound recv_record": lambda: bound["record_receiver"](bytearray(1)),
        "a bound send_many": lambda: bound["batch_sender"]([b"x"]),
        "binding": lambda: ring.sender(fd),
        "start": lambda: ring.start(Operation.nop()),
        "start nothing": ring.start,
        "reap": ring.reap,
        "transfer": lambda: transfer(ring, [Operation.nop()]),
        "cancel": lambda: ring.cancel(1),
        "buffer_ring": lambda: ring.buffer_ring(2, 4096),
        "register_files": lambda: ring.register_files([fd]),
        "register_buffers": lambda: ring.register_buffers([bytearray(1)]),
        "supports": lambda: ring.supports(1),
        "fileno": ring.fileno,
    }


def test_every_call_in_a_child_is_refused_and_names_the_owner(ring, pair, forked):
    ours, theirs = pair
    tried = calls(ring, ours.fileno())

    def all_of_them():
        said = {}
        for name, call in tried.items():
            try:
                said[name] = f"{call()!r}"
            except Exception as error:  # noqa: BLE001 - shown
                said[name] = f"{type(error).__name__}: {error}"
        expected = f"the ring belongs to process {os.getppid()}, from which this one was forked"
        return [name for name, answer in said.items() if not (answer.startswith("UsageError") and expected in answer)]

    assert forked(all_of_them) == "[]"
    assert forked(lambda: repr(ring)) == f"Ring(of process {os.getpid()})"
    assert ring.send(ours.fileno(), b"x", timeout=LONG) == 1
    assert theirs.recv(9) == b"x"


@pytest.mark.parametrize("use", ["send", "recv", "close", "end"])
def test_the_parents_time_out_holds_whatever_a_child_tried(ring, pair, forked, use):
    """On the shared ring, a child's operation left the parent spinning past its time-out, deaf to signals."""
    ours, _ = pair

    def in_child():
        if use == "send":
            ring.send(ours.fileno(), b"x", timeout=0.1)
        elif use == "recv":
            ring.recv_into(ours.fileno(), bytearray(1), timeout=0.1)
        elif use == "close":
            ring.close()
        else:
            gc.collect()

    said = forked(in_child)
    assert said == "None" if use in {"close", "end"} else said.startswith("UsageError")
    started, cpu = time.monotonic(), time.process_time()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            ring.recv_into(ours.fileno(), bytearray(1), timeout=0.1)
        assert ring.send(ours.fileno(), b"x", timeout=LONG) == 1
    assert 0.3 <= time.monotonic() - started < LONG
    assert time.process_time() - cpu < 0.3


def test_operations_in_flight_are_the_parents(ring, pair, forked):
    """Whatever the child does: their completions and their buffers are not its own."""
    ours, theirs = pair
    buffer = bytearray(5)
    (token,) = ring.start(Operation.recv(ours.fileno(), buffer))
    assert forked(lambda: (ring.in_flight, ring.close(), buffer.clear())) == "(0, None, None)"
    theirs.sendall(b"bytes")
    (done,) = ring.reap(1, timeout=LONG)
    assert (done.token, done.result, buffer) == (token, 5, b"bytes")


def test_a_multishot_receive_goes_on_in_the_parent_alone(ring, pair, forked):
    ours, theirs = pair
    with ring.buffer_ring(4, 4096) as buffers, ring.recv_multishot(ours.fileno(), buffers, timeout=LONG) as incoming:
        theirs.sendall(b"one")
        assert next(incoming) == (-1, b"one")
        said = forked(lambda: next(incoming))
        assert said.startswith("UsageError: receiving by a multishot receive: the ring belongs to process")
        assert forked(lambda: (incoming.close(), buffers.close(), ring.close())) == "(None, None, None)"
        theirs.sendall(b"two")
        assert next(incoming) == (-1, b"two")


def test_a_child_keeps_no_descriptor_of_the_ring(ring, forked):
    fd = ring.fileno()

    def target():
        try:
            return str(Path(f"/proc/self/fd/{fd}").readlink())
        except OSError as error:
            return error.strerror

    assert target() == "anon_inode:[io_uring]"
    assert forked(target) == "No such file or directory"
    assert forked(lambda: (os.closerange(3, 3), ring.close())) == "(None, None)"


def test_a_child_and_its_child_have_rings_of_their_own(pair, ring, forked):
    ours, theirs = pair

    def in_child():
        with Ring() as own:
            own.send(ours.fileno(), b"child", timeout=LONG)
            said = forked(lambda: own.send(ours.fileno(), b"grandchild", timeout=LONG))
            assert f"belongs to process {os.getpid()}," in said
            assert f"belongs to process {os.getppid()}," in forked(ring.fileno)
            return own.send(ours.fileno(), b"!", timeout=LONG)

    assert forked(in_child) == "1"
    assert theirs.recv(5) + theirs.recv(1) == b"child!"


@pytest.mark.parametrize("call", ["recv_into", "bound", "send_many", "reap", "multishot"])
def test_a_signals_handler_may_fork(ring, pair, once_waiting, fork, call):
    """The child comes back from the handler into a wait for what is the parent's: it must not go on with it."""
    ours, theirs = pair
    reading, writing = os.pipe()
    parent, buffer = os.getpid(), bytearray(7)

    def handle(_number, _frame):
        fork()

    before = signal.signal(signal.SIGUSR1, handle)
    said = []

    def interrupt():
        os.kill(parent, signal.SIGUSR1)
        if select.select([reading], [], [], LONG)[0]:
            said.append(os.read(reading, 1000).decode())
        drain(theirs, 1 << 24) if call == "send_many" else theirs.sendall(b"arrived")

    once_waiting(interrupt)
    try:
        with ring.buffer_ring(2, 4096) as buffers:
            incoming = ring.recv_multishot(ours.fileno(), buffers, timeout=LONG) if call == "multishot" else None
            try:
                got = {
                    "recv_into": lambda: ring.recv_into(ours.fileno(), buffer, timeout=LONG),
                    "bound": lambda: ring.receiver(ours.fileno(), timeout=LONG)(buffer),
                    "send_many": lambda: ring.send_many(ours.fileno(), [bytes(1 << 23)] * 2, timeout=LONG),
                    "reap": lambda: (ring.start(Operation.recv(ours.fileno(), buffer)), ring.reap(1, timeout=LONG))[1],
                    "multishot": lambda: next(incoming),
                }[call]()
            except BaseException as error:  # noqa: BLE001 - shown
                got = f"{type(error).__name__}: {error}"
            if os.getpid() != parent:
                os.write(writing, str(got).encode())
                os._exit(0)
            if incoming:
                incoming.close()
    finally:
        if os.getpid() != parent:
            os._exit(1)
        signal.signal(signal.SIGUSR1, before)
    os.wait()
    os.close(reading)
    os.close(writing)
    assert said[0].startswith("UsageError")
    assert f"the ring belongs to process {parent}" in said[0]
    assert "Error" not in str(got)


def drain(sock, count):
    while count:
        count -= len(sock.recv(count))


def test_multiprocessing_by_fork_works_beside_a_ring(ring, pair):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(own_ring) == 0
    assert ring.send(pair[0].fileno(), b"x", timeout=LONG) == 1


def own_ring():
    with Ring() as ring:
        return transfer(ring, [Operation.nop()], timeout=LONG)[0]


def test_what_is_gone_is_not_kept_for_a_fork():
    before = len(forks._here.objects)
    for _ in range(10):
        Ring(2).close()
    gc.collect()
    assert len(forks._here.objects) <= before
