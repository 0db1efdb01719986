"""A ring behaves alike however it is set up; a set-up that the kernel refuses is a sentence."""

from __future__ import annotations

import errno
import threading
import time

import pytest

from ktlslab.errors import RingUnavailableError
from ktlslab.linux.ring import Operation, Ring, transfer

LONG = 30.0


@pytest.fixture(params=[{}, {"sqpoll": True}, {"defer_taskrun": True}], ids=["plain", "sqpoll", "defer_taskrun"])
def made(request):
    with Ring(8, **request.param) as ring:
        yield ring


def test_calls_batches_and_operations(made, pair, once_waiting):
    ours, theirs = pair
    assert made.send(ours.fileno(), b"abc", 0, timeout=LONG) == 3
    assert made.send_many(ours.fileno(), [b"d"] * 50, timeout=LONG) == 50
    theirs.settimeout(5)
    got = b""
    while len(got) < 53:
        got += theirs.recv(100)
    assert got == b"abc" + b"d" * 50
    once_waiting(theirs.sendall, b"woken")
    buffer = bytearray(9)
    assert made.recv_into(ours.fileno(), buffer, 0, timeout=LONG) == 5
    assert transfer(made, [Operation.nop()] * 30, timeout=LONG) == [0] * 30
    tokens = made.start(*[Operation.nop(linked=True)] * 7, Operation.nop(), *[Operation.nop()] * 4)
    done = []
    while len(done) < 12:
        done += made.reap(0)
    assert sorted(c.token for c in done) == tokens
    assert [c.token for c in done if c.token in tokens[:8]] == tokens[:8]  # the chain's, in its order


def test_waits_are_bounded_and_lose_nothing(made, pair):
    ours, theirs = pair
    buffer = bytearray(9)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        made.recv_into(ours.fileno(), buffer, 0, timeout=0.1)
    assert 0.09 < time.monotonic() - started < 10
    buffer.append(0)
    theirs.sendall(b"late")
    assert made.recv_into(ours.fileno(), buffer, 0, timeout=LONG) == 4


def test_polling_sees_what_came(made, pair):
    ours, theirs = pair
    (token,) = made.start(Operation.recv(ours.fileno(), bytearray(9)))
    assert made.reap(0) == []
    theirs.sendall(b"x")
    deadline = time.monotonic() + LONG
    while not (done := made.reap(0)) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert [(c.token, c.result) for c in done] == [(token, 1)]


def test_multishot(made, pair, later, pattern):
    ours, theirs = pair
    later(0, lambda: (theirs.sendall(pattern(100_000)), theirs.close()))
    with made.buffer_ring(4, 500) as buffers, made.recvmsg_multishot(ours.fileno(), buffers, timeout=LONG) as incoming:
        assert b"".join(data for _, data in incoming) == pattern(100_000)


def test_a_deferring_ring_is_its_makers_alone_and_takes_the_buffer_of_no_one_else(pair):
    ours, theirs = pair
    buffer, answers = bytearray(b"other thread"), []

    def intrude():
        for call in (lambda: ring.send(ours.fileno(), buffer), lambda: ring.start(Operation.send(ours.fileno(), b"x"))):
            with pytest.raises(OSError, check=lambda e: e.errno) as caught:
                call()
            answers.append(caught.value.errno)

    with Ring(8, defer_taskrun=True) as ring:
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join(LONG)
        assert answers == [errno.EEXIST] * 2
        buffer.append(0)
        assert ring.in_flight == 0
        assert ring.send(ours.fileno(), b"mine", 0, timeout=LONG) == 4
    assert theirs.recv(100) == b"mine"


def test_both_together_are_refused_in_a_sentence():
    with pytest.raises(RingUnavailableError, match=r"with sqpoll and defer_taskrun: EINVAL .*leave it out"):
        Ring(8, sqpoll=True, defer_taskrun=True)
