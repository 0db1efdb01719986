"""What a signal does to each call: nothing if its handler returns; the end of the stream if the handler raises."""

from __future__ import annotations

import time

from tests.matrix.calls import RECEIVES, SENDS, possible
from tests.matrix.endings import UNREAD, leave_unread
from tests.matrix.rows import KERNEL, KERNEL_SENDS, PATIENCE_S, SMALL, row

MUCH = bytes(range(250)) * 1200
AFTER_A_RECEIVE = "Interrupt, then StreamError"  # nobody can know that nothing was taken


def interrupted(scene, call, *arguments):
    with scene.signals(raises=True):
        scene.fails(call, scene, *arguments)


def named(scene, error):
    scene.check("Interrupt" in str(error), f"which does not name the cause: {error}")


def then_send(scene, call):
    interrupted(scene, call, MUCH)
    named(scene, scene.fails(scene.stream.send, b"next"))
    named(scene, scene.fails(scene.stream.recv))


def then_close(scene, call):
    interrupted(scene, call, MUCH)
    reading = scene.meanwhile(read_all, scene.peer)
    named(scene, scene.fails(scene.stream.close))
    scene.check(scene.stream.connection.closed, "the socket is open")
    scene.does(scene.stream.close)
    scene.check(scene.does(reading.result, 10) is not True, "close_notify was sent")


# OpenSSL, writing to the socket itself, hears of a signal when its wait is over: that is why it gets a short one.
for layers, timeout in ((("plain", *KERNEL), PATIENCE_S), (("userspace",), 0.5)):
    for name, expected, act in (
        ("then send", "Interrupt, then StreamClosedError, then StreamError", then_send),
        ("then close", "Interrupt, then StreamError", then_close),
    ):
        row(f"an exception of a handler in a send, {name}", expected, layers=layers, each=SENDS, possible=possible,
            timeout=timeout, buffers=SMALL)(act)  # fmt: skip


def read_all(peer):
    """Return whether close_notify came; the last record may be cut off."""
    try:
        return any(kind == 21 for kind, _ in peer.rest(10))
    except (AssertionError, OSError):
        return False


@row("an exception of a handler in a receive, then receive", AFTER_A_RECEIVE, each=RECEIVES, possible=possible)
def _(scene, call):
    interrupted(scene, call, 10)
    scene.peer.send(b"after this")
    scene.same(scene.does(call, scene, 10), b"after this")


@row("the same in the middle of recv_exactly_into", AFTER_A_RECEIVE)
def _(scene):
    scene.peer.send(b"AAAA")
    with scene.signals(raises=True):
        scene.fails(scene.stream.recv_exactly_into, scene.room(10))
    scene.peer.send(b"BBBBBB")
    scene.receives(b"AAAABBBBBB")


@row("an exception of a handler in close", "Interrupt", buffers=SMALL)
def _(scene):
    leave_unread(scene)
    with scene.signals(raises=True):
        scene.fails(scene.stream.close)
    scene.check(scene.stream.connection.closed, "the socket is open")
    scene.does(scene.stream.close)


def wait_for(came):
    deadline = time.monotonic() + 10
    while len(came) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)


@row("handlers that return, in a receive", "delivered", each=RECEIVES, possible=possible, goes_on=True)
def _(scene, call):
    def later():
        wait_for(came)
        scene.peer.send(b"after them")

    with scene.signals(after=0.03, every=0.03) as came:
        scene.meanwhile(later)
        scene.same(scene.does(call, scene, 10), b"after them")


@row("handlers that return, in a send", "delivered", each=SENDS, possible=possible, buffers=SMALL, goes_on=True,
     where={f"{layer} starves": "no end or delivered" for layer in KERNEL_SENDS})  # fmt: skip
def _(scene, call):
    def later():
        wait_for(came)
        return scene.peer.receive_data(len(MUCH), 10)

    with scene.signals(after=0.03, every=0.03) as came:
        got = scene.meanwhile(later)
        scene.does(call, scene, MUCH)
        scene.same(scene.does(got.result), MUCH)


@row("handlers that return, in close", "delivered", buffers=SMALL)
def _(scene):
    def later():
        wait_for(came)
        return scene.peer.receive_data(UNREAD, 10)

    leave_unread(scene)
    with scene.signals(after=0.03, every=0.03) as came:
        got = scene.meanwhile(later)
        scene.does(scene.stream.close)
    scene.same(scene.does(got.result), bytes(UNREAD))
