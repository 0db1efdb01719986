"""One bound per call, and nothing is lost by trying again."""

from __future__ import annotations

import threading

from ktlslab.tls.records import ContentType
from tests.matrix.calls import RECEIVES, SENDS, possible, recv_exactly_into, sendfile, splice_from, splice_into
from tests.matrix.rows import ENGINES, KERNEL, KERNEL_RECEIVES, SHORT_S, SMALL, row

LIMIT_S = 20.0  # of what a peer does again and again
LONG = 50_000_000
LESS = 4_000_000  # where OpenSSL would have to make the records, all before the first is sent


def again_and_again(scene, act):
    """Let the peer act several times within the stream's time-out, in another thread, until the scene is closed."""
    over = threading.Event()

    def drip():
        for _ in range(int(LIMIT_S / scene.timeout * 5)):
            if over.wait(scene.timeout / 5):
                return
            act()

    scene.meanwhile(drip)
    scene.owned.callback(over.set)


@row("a time-out in the middle of recv_exactly_into, then again", "PeerTimeoutError, then delivered", each=RECEIVES,
     possible=possible, timeout=SHORT_S, goes_on=True)  # fmt: skip
def _(scene, call):
    scene.peer.send(b"AAAA")
    scene.in_time(scene.stream.recv_exactly_into, scene.room(10))
    scene.peer.send(b"BBBBBB")
    scene.same(scene.does(call, scene, 10), b"AAAABBBBBB")


@row("the same twice, in a longer buffer", "PeerTimeoutError, then PeerTimeoutError, then delivered", timeout=SHORT_S)
def _(scene):
    scene.peer.send(b"A" * 20_000)
    scene.in_time(scene.stream.recv_exactly_into, scene.room(60_000))
    scene.peer.send(b"B" * 20_000)
    scene.in_time(scene.stream.recv_exactly_into, scene.room(60_000))
    scene.peer.send(b"C" * 20_000)
    scene.receives(b"A" * 20_000 + b"B" * 20_000 + b"C" * 20_000)


@row("recv_exactly_into from a peer that sends a byte now and then", "PeerTimeoutError", timeout=SHORT_S)
def _(scene):
    again_and_again(scene, lambda: scene.peer.send(b"."))
    scene.in_time(recv_exactly_into, scene, 10_000)


def byte_by_byte(scene, call):
    record = iter(scene.peer.seal(ContentType.APPLICATION_DATA, bytes(10_000)))
    again_and_again(scene, lambda: scene.peer.sock.sendall(bytes([next(record)])))
    scene.in_time(call, scene, 10)


# Not where OpenSSL reads the socket itself: it waits for each byte anew.
for layers, engines in ((KERNEL, ENGINES), (("userspace",), ("uring",))):
    row("a record that comes byte by byte", "PeerTimeoutError", layers=layers, engines=engines, each=RECEIVES,
        possible=possible, timeout=SHORT_S)(byte_by_byte)  # fmt: skip


@row("a send to a peer that reads a little now and then", "PeerTimeoutError", each=SENDS, possible=possible,
     timeout=SHORT_S, buffers=SMALL)  # fmt: skip
def _(scene, call):
    again_and_again(scene, lambda: scene.peer.sock.recv(500))
    scene.in_time(call, scene, bytes(LESS))


@row("a send of 50 MB to a peer that reads nothing", "PeerTimeoutError", where={"kernel-rx": "PeerTimeoutError"},
     timeout=SHORT_S, buffers=SMALL)  # fmt: skip
def _(scene):
    scene.in_time(scene.stream.send, bytes(LONG if scene.place.layer != "kernel-rx" else LESS))


# Only what goes through the ring: Python starts the wait of a system call anew after each signal (PEP 475).
@row("signals whose handler returns, all the time", "PeerTimeoutError", engines=("uring",), each=RECEIVES,
     possible=lambda layer, call: possible(layer, call) and not (call is splice_into and layer in KERNEL_RECEIVES),
     timeout=SHORT_S)  # fmt: skip
def _(scene, call):
    with scene.signals(after=SHORT_S / 5, every=SHORT_S / 5) as came:
        scene.in_time(call, scene, 10)
    scene.check(bool(came), "late: no signal came")


@row("signals all the time, in a send to a peer that reads nothing", "PeerTimeoutError", engines=("uring",), each=SENDS,
     possible=lambda layer, call: possible(layer, call) and call not in {sendfile, splice_from}, timeout=SHORT_S,
     buffers=SMALL)  # fmt: skip
def _(scene, call):
    with scene.signals(after=SHORT_S / 5, every=SHORT_S / 5) as came:
        scene.in_time(call, scene, bytes(1_000_000))
    scene.check(bool(came), "late: no signal came")


@row("a socket that does not block", "PeerTimeoutError that says so, then delivered", each=RECEIVES, possible=possible,
     timeout=SHORT_S, goes_on=True)  # fmt: skip
def _(scene, call):
    scene.stream.connection.socket.settimeout(0)
    error = scene.fails(call, scene, 10)
    scene.words[-1] += " that says so" if "not block" in str(error) else ""
    scene.stream.connection.socket.settimeout(None)
    scene.peer.send(b"late, late")
    scene.same(scene.does(call, scene, 10), b"late, late")


@row("a full socket that does not block", "PeerTimeoutError that says so", each=SENDS, possible=possible,
     timeout=SHORT_S, buffers=SMALL)  # fmt: skip
def _(scene, call):
    scene.stream.connection.socket.settimeout(0)
    error = scene.fails(call, scene, bytes(1_000_000))
    scene.words[-1] += " that says so" if "not block" in str(error) else ""
