"""What a peer can do to a stream, met by every call: the error is typed, and a receive raises the same again."""

from __future__ import annotations

import time

from ktlslab.linux import tcpinfo
from ktlslab.tls.records import ContentType
from tests.matrix.calls import RECEIVES, SENDS, possible
from tests.matrix.rows import LIMIT_S, SHORT_S, SMALL, TLS, row

FIRST = b"x" * 100
ENDLESS = 1 << 16  # more than the peer sends
PLAIN_END = {f"plain {call.__name__}": "the end" for call in RECEIVES if call.__name__ != "recv_exactly_into"}


def arrived(scene):
    """Wait until a reset is known here: a receive that it finds waiting may see the end before the error."""
    deadline = time.monotonic() + LIMIT_S
    while tcpinfo.state(scene.stream.connection.socket) != tcpinfo.CLOSED and time.monotonic() < deadline:
        time.sleep(0.001)


def meets(scene, call):
    """Receive until it fails, and once more."""
    error = scene.does(call, scene, ENDLESS)
    if not isinstance(error, BaseException):
        scene.says("the end")
        return
    again = scene.words.pop()
    scene.fails(call, scene, ENDLESS)
    scene.check(scene.words[-1] == again, f"the second time, the first: {again}")


@row("FIN without close_notify", "TruncatedError", where=PLAIN_END, each=RECEIVES, possible=possible)
def _(scene, call):
    scene.peer.send(FIRST)
    scene.peer.fin()
    meets(scene, call)


@row("close_notify without FIN", "the end", layers=TLS, where={"recv_exactly_into": "TruncatedError"}, each=RECEIVES,
     possible=possible)  # fmt: skip
def _(scene, call):
    scene.peer.send(FIRST)
    scene.peer.close_notify()
    meets(scene, call)


@row("close_notify at once, without FIN", "the end", layers=TLS, where={"recv_exactly_into": "TruncatedError"},
     each=RECEIVES, possible=possible)  # fmt: skip
def _(scene, call):
    scene.peer.close_notify()
    meets(scene, call)


@row("FIN in a record", "TruncatedError", layers=TLS, each=RECEIVES, possible=possible)
def _(scene, call):
    scene.peer.send(FIRST)
    scene.peer.sock.sendall(scene.peer.seal(ContentType.APPLICATION_DATA, FIRST)[:-3])
    scene.peer.fin()
    meets(scene, call)


@row("reset", "StreamError", each=RECEIVES, possible=possible)
def _(scene, call):
    scene.peer.send(FIRST)
    scene.peer.reset()
    arrived(scene)
    meets(scene, call)


@row("damaged record", "StreamError", layers=TLS, each=RECEIVES, possible=possible)
def _(scene, call):
    scene.peer.send(FIRST)
    scene.peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    meets(scene, call)


@row("fatal alert", "AlertError", layers=TLS, each=RECEIVES, possible=possible)
def _(scene, call):
    scene.peer.send(FIRST)
    scene.peer.alert(20)
    meets(scene, call)


@row("silence", "PeerTimeoutError, then delivered", each=RECEIVES, possible=possible, timeout=SHORT_S, goes_on=True)
def _(scene, call):
    scene.in_time(call, scene, 10)
    scene.peer.send(b"late, late")
    scene.same(scene.does(call, scene, 10), b"late, late")


@row("half a record, silence, the rest", "PeerTimeoutError, then delivered", layers=TLS, each=RECEIVES,
     possible=possible, timeout=SHORT_S, goes_on=True)  # fmt: skip
def _(scene, call):
    record = scene.peer.seal(ContentType.APPLICATION_DATA, b"late, late")
    scene.peer.sock.sendall(record[:20])
    scene.in_time(call, scene, 10)
    scene.peer.sock.sendall(record[20:])
    scene.same(scene.does(call, scene, 10), b"late, late")


@row("reset while sending", "StreamError", each=SENDS, possible=possible, buffers=SMALL)
def _(scene, call):
    scene.peer.reset()
    for _ in range(100):
        if isinstance(scene.does(call, scene, bytes(100_000)), BaseException):
            return


@row("nothing is read of what is sent", "PeerTimeoutError, then StreamClosedError", each=SENDS, possible=possible,
     timeout=SHORT_S, buffers=SMALL)  # fmt: skip
def _(scene, call):
    scene.in_time(call, scene, bytes(1_000_000))
    scene.fails(scene.stream.send, b"x")
