"""What a caller gets wrong on a ring is a UsageError that says so."""

from __future__ import annotations

import socket

import pytest

from ktlslab.errors import UsageError
from ktlslab.linux.ring import Operation, Ring

WRONG = {
    "text": (lambda ring: ring.send(0, "text"), "is of type str"),
    "into text": (lambda ring: ring.recv_into(0, "text"), "is of type str"),
    "a socket's name": (lambda ring: ring.send("socket", b"x"), "`fd` is of type str"),
    "a time-out": (lambda ring: ring.send(0, b"x", timeout="soon"), "`timeout` is of type str"),
    "a record's type": (lambda ring: ring.send_record(0, b"x", 256), "`record_type` is 256"),
    "typed, into nothing": (lambda ring: ring.recv_record(0, None), "`buffer` is of type NoneType"),
    "many": (lambda ring: ring.send_many(0, [b"x", 7]), "`buffers.1.` is of type int"),
    "many, with odd flags": (lambda ring: ring.send_many(0, [b"x"], "x"), "`flags` is of type str"),
    "a time-out below none": (lambda ring: ring.recv_into(0, bytearray(1), timeout=-1), "`timeout` is -1"),
    "a time-out that is no number": (lambda ring: ring.accept(0, timeout=float("nan")), "`timeout` is nan"),
    "a descriptor beyond C's": (lambda ring: ring.send(1 << 32, b"x"), "`fd` is 4294967296"),
    "an address": (lambda ring: ring.connect(0, socket.AF_INET, "localhost"), "not an address"),
    "an address's name": (lambda ring: ring.connect(0, socket.AF_INET, ("localhost", 443)), "not an address"),
    "an address's port": (lambda ring: ring.connect(0, socket.AF_INET, ("127.0.0.1", 1 << 20)), "not an address"),
    "a family": (lambda ring: ring.connect(0, "inet", ("127.0.0.1", 443)), "not an address"),
    "what connects": (lambda ring: ring.connect("x", socket.AF_INET, ("127.0.0.1", 443)), "`fd` is of type str"),
    "a listener": (lambda ring: ring.accept(None), "`fd` is of type NoneType"),
    "how much to shut": (lambda ring: ring.shutdown(0, 3), "`how` is 3"),
    "what is shut": (lambda ring: ring.shutdown("x", 0), "`fd` is of type str"),
    "what is closed": (lambda ring: ring.close_fd(None), "`fd` is of type NoneType"),
    "what is started": (lambda ring: ring.start("nonsense"), "`operations.0.` is of type str"),
    "how many are reaped": (lambda ring: ring.reap("x"), "`wait_for` is of type str"),
    "how long for": (lambda ring: ring.reap(1, timeout="x"), "`timeout` is of type str"),
    "what is cancelled": (lambda ring: ring.cancel("x"), "`token` is of type str"),
    "an opcode": (lambda ring: ring.supports("send"), "`opcode` is of type str"),
    "files": (lambda ring: ring.register_files(["x"]), "`fds.0.` is of type str"),
    "no files": (lambda ring: ring.register_files(7), "`fds` is of type int"),
    "buffers": (lambda ring: ring.register_buffers([b"constant"]), "`buffers.0.` .* cannot be written to"),
    "how many buffers": (lambda ring: ring.buffer_ring("x", 64), "`count` is of type str"),
    "how large ones": (lambda ring: ring.buffer_ring(2, 1 << 40), "`size` is 1099511627776"),
    "whose buffers": (lambda ring: ring.recv_multishot(0, [bytearray(9)]), "`buffers` is of type list"),
    "entries": (lambda _: Ring("many"), "`entries` is of type str"),
    "no entries": (lambda _: Ring(0), "`entries` is 0"),
    "a bound call's text": (lambda ring: ring.sender(0)("text"), "`data` is of type str"),
    "a bound call's flags": (lambda ring: ring.sender(0)(b"x", "more"), "`flags` is of type str"),
    "a bound call's room": (lambda ring: ring.receiver(0)(b"constant"), "cannot be written to"),
    "a bound call's type": (lambda ring: ring.record_sender(0)(b"x", 256), "`record_type` is 256"),
    "a bound call's place": (lambda ring: ring.record_receiver(0)(None), "`buffer` is of type NoneType"),
    "a bound call's many": (lambda ring: ring.batch_sender(0)([b"x", 7]), "`buffers.1.` is of type int"),
    "what is bound": (lambda ring: ring.sender("x"), "`fd` is of type str"),
    "how long it is bound for": (lambda ring: ring.sender(0, timeout="x"), "`timeout` is of type str"),
    "an operation's time": (lambda _: Operation.timeout("soon"), "`seconds` is of type str"),
    "an operation's endless time": (lambda _: Operation.link_timeout(float("inf")), "`seconds` is inf"),
    "an option's level": (lambda _: Operation.setsockopt(0, "x", 1, b""), "`level` is of type str"),
    "an option's value": (lambda _: Operation.setsockopt(0, 1, 1, 1), "`data` is of type int"),
    "an operation's record type": (lambda _: Operation.sendmsg(0, b"x", 256), "`record_type` is 256"),
    "an operation's flags": (lambda _: Operation.send(0, b"x", flags="x"), "`flags` is of type str"),
    "an operation's offset": (lambda _: Operation.splice(0, 1, 2, offset_in="x"), "`offset_in` is of type str"),
    "an operation's link": (lambda _: Operation.nop(linked="yes"), "preparing an operation"),
    "an operation's buffer": (lambda _: Operation.send(0, "text"), "is of type str"),
    "an operation's room": (lambda _: Operation.recv(0, b"constant"), "cannot be written to"),
    "an operation's descriptor": (lambda _: Operation.send("socket", b"x"), "preparing an operation"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_is_named_with_a_remedy(wrong):
    call, match = WRONG[wrong]
    with Ring(4) as ring, pytest.raises(UsageError, match=match) as caught:
        call(ring)
    assert caught.value.remedy
