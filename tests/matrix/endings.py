"""A close that loses nothing or raises, and an end of the sending alone."""

from __future__ import annotations

import re
import socket
import time

from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Version
from tests.handpeer import CLOSE_NOTIFY, key_update
from tests.matrix.calls import SENDS, possible
from tests.matrix.rows import KERNEL, KERNEL_RECEIVES, KERNEL_SENDS, LINGER_S, SHORT_S, SMALL, TLS, row

MUCH = bytes(range(250)) * 8000  # 2,000,000 bytes
LESS = MUCH[:300_000]  # enough where an emulated machine makes and opens the records
UNREAD = 100_000
BOTH = (Version.TLS13, Version.TLS12)
NO_NEW_KEYS = {  # the kernel installs later keys since 6.14
    f"{layer} {series}": "KeyUpdateError" for layer in KERNEL_RECEIVES for series in ("6.1", "6.12")
}
ENDED = [(ContentType.ALERT, CLOSE_NOTIFY)]


def leave_unread(scene):
    """Send what goes into this end's socket, but not into the peer's, which does not read."""
    scene.stream.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * UNREAD)
    scene.does(scene.stream.send, bytes(UNREAD))


def says_how_many_bytes(scene, error):
    scene.check(bool(re.search(r"\d+ bytes", str(error))), f"without a number of bytes: {error}")


@row("close, and the peer is slow and sends", "delivered")
def _(scene):
    data = LESS if scene.place.layer in KERNEL else MUCH

    def slow():
        for _ in range(4):
            time.sleep(LINGER_S)
            scene.peer.send(b"not yet")
        return scene.peer.receive_data(len(data), 20)

    got = scene.meanwhile(slow)
    scene.does(scene.stream.send, data)
    scene.does(scene.stream.close)
    scene.same(scene.does(got.result, 30), data)


@row("close, and the peer reads late and is silent", "delivered", versions=BOTH, buffers=SMALL)
def _(scene):
    def late():
        time.sleep(3 * LINGER_S)
        return scene.peer.receive_data(UNREAD, 20)

    leave_unread(scene)
    got = scene.meanwhile(late)
    scene.does(scene.stream.close)
    scene.same(scene.does(got.result, 30), bytes(UNREAD))


@row("close, and the peer never reads", "PeerTimeoutError", buffers=SMALL, timeout=0.5)
def _(scene):
    leave_unread(scene)
    says_how_many_bytes(scene, scene.in_time(scene.stream.close))
    scene.check(scene.stream.connection.closed, "the socket is open")
    scene.does(scene.stream.close)


@row("close, and the peer resets meanwhile", "StreamError", buffers=SMALL)
def _(scene):
    leave_unread(scene)

    def cut():
        time.sleep(LINGER_S)
        scene.peer.reset()

    scene.meanwhile(cut)
    scene.fails(scene.stream.close)
    scene.check(scene.stream.connection.closed, "the socket is open")


@row("a send after a reset, then close", "StreamError")
def _(scene):
    scene.peer.reset()
    if not isinstance(scene.does(scene.stream.send, b"lost"), BaseException):
        scene.fails(scene.stream.close)


@row("close in the middle of the peer's KeyUpdate", "StreamError", layers=("userspace",), timeout=SHORT_S)
def _(scene):
    """Until the message ends, OpenSSL makes no close_notify."""
    scene.peer.send(key_update()[:4], ContentType.HANDSHAKE)
    scene.does(scene.stream.send, b"delivered")
    scene.fails(scene.stream.recv)
    scene.words.clear()
    scene.fails(scene.stream.close)
    scene.check(scene.stream.connection.closed, "the socket is open")


@row("a with block left by an error, whose close fails too", "KeyError with a note", buffers=SMALL, timeout=0.3)
def _(scene):
    def block():
        with scene.stream:
            leave_unread(scene)
            raise KeyError("of the block")

    error = scene.fails(block)
    scene.words[-1] += " with a note" if "bytes" in "".join(getattr(error, "__notes__", ())) else " alone"


@row("close twice, with nothing to say", "delivered")
def _(scene):
    scene.does(scene.stream.send, b"last words")
    scene.peer.fin()
    scene.does(scene.stream.close)
    scene.does(scene.stream.close)
    scene.peer_gets(b"last words")


@row("send_eof, then receive to the end", "delivered, then delivered, then the end", versions=BOTH)
def _(scene):
    scene.does(scene.stream.send, b"held back, ", more=True)
    scene.does(scene.stream.send, b"and last words", more=True)
    scene.does(scene.stream.send_eof)
    scene.does(scene.stream.send_eof)
    scene.peer_gets(b"held back, and last words")
    scene.check(scene.peer.rest() == ([] if scene.place.layer == "plain" else ENDED), "other records before the FIN")
    answer = scene.meanwhile(lambda: (scene.peer.send(LESS), scene.peer.close_notify(), scene.peer.fin()))
    scene.receives(LESS)
    scene.does(answer.result)
    scene.says("more" if scene.does(scene.stream.recv) else "the end")
    scene.does(scene.stream.close)


@row("a send after send_eof", "StreamClosedError", each=SENDS, possible=possible)
def _(scene, call):
    scene.does(scene.stream.send_eof)
    error = scene.fails(call, scene, b"too late")
    scene.check("send_eof" in str(error), f"not because of send_eof: {error}")


@row("a send after the socket's own shutdown(SHUT_WR), then close", "StreamError", each=SENDS, possible=possible)
def _(scene, call):
    scene.stream.connection.socket.shutdown(socket.SHUT_WR)
    if not isinstance(scene.does(call, scene, b"too late"), BaseException):
        scene.fails(scene.stream.close)


@row("a request for new keys after send_eof", "delivered, then the end", layers=TLS, where=NO_NEW_KEYS)
def _(scene):
    scene.does(scene.stream.send_eof)
    scene.peer.update_keys(request=True)
    scene.peer.send(b"with the new keys")
    scene.peer.close_notify()
    if isinstance(scene.does(receive, scene, b"with the new keys"), BaseException):
        return
    scene.says("more" if scene.does(scene.stream.recv) else "the end")
    scene.does(scene.stream.close)


def receive(scene, data):
    room = scene.room(len(data))
    scene.stream.recv_exactly_into(room)
    scene.same(room, data)


@row("send_eof while new keys are owed", "delivered", layers=KERNEL_SENDS, where=NO_NEW_KEYS)
def _(scene):
    scene.peer.update_keys(request=True)
    scene.peer.send(b"x")
    if isinstance(scene.does(receive, scene, b"x"), BaseException):
        return
    scene.words.clear()
    scene.does(scene.stream.send_eof)
    kinds = [data for _, data in scene.peer.rest()]
    scene.says("delivered" if kinds[-1:] == [CLOSE_NOTIFY] else f"the peer got {kinds}")
