"""What a caller gets wrong on a ring is a UsageError that says so."""

from __future__ import annotations

import pytest

from ktlslab.errors import UsageError
from ktlslab.linux.ring import Operation, Ring

WRONG = {
    "text": (lambda ring: ring.send(0, "text"), "'text' is not a buffer"),
    "into text": (lambda ring: ring.recv_into(0, "text"), "'text' is not a buffer"),
    "a socket's name": (lambda ring: ring.send("socket", b"x"), "the descriptor is 'socket'"),
    "a time-out": (lambda ring: ring.send(0, b"x", 0, "soon"), "the timeout is 'soon'"),
    "a record's type": (lambda ring: ring.send_record(0, b"x", 256), "the record type is 256"),
    "typed, into nothing": (lambda ring: ring.recv_record(0, None), "None is not a buffer"),
    "many": (lambda ring: ring.send_many(0, [b"x", 7]), "7 is not a buffer"),
    "an operation's buffer": (lambda _: Operation.send(0, "text"), "'text' is not a buffer"),
    "an operation's room": (lambda _: Operation.recv(0, b"constant"), "is read-only"),
    "an operation's descriptor": (lambda _: Operation.send("socket", b"x"), "preparing an operation"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_is_named_with_a_remedy(wrong):
    call, match = WRONG[wrong]
    with Ring(4) as ring, pytest.raises(UsageError, match=match) as caught:
        call(ring)
    assert caught.value.remedy
