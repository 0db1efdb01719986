"""The alert of a peer that gives up and closes: whichever call meets the end names it."""

from __future__ import annotations

import select
import socket
import time

from ktlslab.linux import tcpinfo
from ktlslab.tls.alerts import AlertDescription
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Version
from tests.matrix.calls import RECEIVES, SENDS, possible
from tests.matrix.rows import KERNEL_RECEIVES, LIMIT_S, LINGER_S, SMALL, TLS, row

FIRST = b"x" * 100
BOTH = (Version.TLS13, Version.TLS12)
ENDLESS = 1 << 16  # more than the peer sends
ESTABLISHED = 1  # include/net/tcp_states.h


def leave_unread(scene):
    """Let something lie unread at the peer, whose close then resets the connection."""
    scene.does(scene.stream.send, b"never read")
    poll = select.poll()
    poll.register(scene.peer.sock, select.POLLIN)
    poll.poll(LIMIT_S * 1000)


def give_up(scene):
    """Send data and an alert, then close, and wait until that is known here.

    Where something lies unread, TCP resets the connection. Else it sends FIN, and resets at the next thing that comes.
    """
    scene.peer.send(FIRST)
    scene.peer.send(FIRST)
    scene.peer.alert(AlertDescription.CERTIFICATE_REQUIRED)
    scene.peer.close()
    deadline = time.monotonic() + LIMIT_S
    while tcpinfo.state(scene.stream.connection.socket) == ESTABLISHED and time.monotonic() < deadline:
        time.sleep(0.001)


def names_it(scene, error):
    said = "the peer sent the alert" in str(error) and getattr(error, "alert", "") == "certificate_required"
    scene.check(said, f"it does not name the alert: {error}")


def fails(scene, call, data):
    """Call until it fails: the reset comes back when this machine gets to it."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if isinstance(error := scene.does(call, scene, data), BaseException):
            names_it(scene, error)
            return
        time.sleep(0.001)
    scene.says("no error")


@row("alert and reset, then a send", "AlertError", layers=TLS, versions=BOTH, each=SENDS, possible=possible)
def _(scene, call):
    leave_unread(scene)
    give_up(scene)
    fails(scene, call, b"too late")


@row("alert and FIN, then a send", "AlertError", layers=TLS, each=SENDS, possible=possible)
def _(scene, call):
    give_up(scene)
    fails(scene, call, b"too late")


@row("alert and reset in a long send", "AlertError", layers=TLS, each=SENDS, possible=possible, buffers=SMALL)
def _(scene, call):
    def late():
        time.sleep(LINGER_S)
        give_up(scene)

    scene.meanwhile(late)
    fails(scene, call, bytes(400_000))


@row("alert and reset, then a receive", "AlertError", layers=TLS, each=RECEIVES, possible=possible)
def _(scene, call):
    leave_unread(scene)
    give_up(scene)
    names_it(scene, scene.does(call, scene, ENDLESS))


@row("alert and reset, then a send and a receive", "AlertError, then AlertError", layers=TLS)
def _(scene):
    leave_unread(scene)
    give_up(scene)
    fails(scene, lambda scene, data: scene.stream.send(data), b"too late")
    names_it(scene, scene.does(scene.stream.recv))


@row("alert and reset, then a send between pieces", "AlertError", layers=KERNEL_RECEIVES)
def _(scene):
    """With io_uring, the alert has been received by then."""
    scene.peer.send(FIRST)
    every = scene.stream.pieces()
    while next(every)[0] != ContentType.APPLICATION_DATA:
        pass  # session tickets
    leave_unread(scene)
    give_up(scene)
    fails(scene, lambda scene, data: scene.stream.send(data), b"too late")
    every.close()


@row("alert and reset, then send_eof", "AlertError", layers=TLS)
def _(scene):
    leave_unread(scene)
    give_up(scene)
    names_it(scene, scene.does(scene.stream.send_eof))


@row("alert and reset, then close", "AlertError", layers=TLS)
def _(scene):
    leave_unread(scene)
    give_up(scene)
    names_it(scene, scene.does(scene.stream.close))
    scene.check(scene.stream.connection.closed, "the socket is open")


@row("close, and the peer sends an alert and resets meanwhile", "AlertError", layers=TLS, buffers=SMALL)
def _(scene):
    scene.stream.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
    scene.does(scene.stream.send, bytes(100_000))

    def late():
        time.sleep(LINGER_S)
        scene.peer.alert(AlertDescription.CERTIFICATE_REQUIRED)
        scene.peer.close()

    scene.meanwhile(late)
    names_it(scene, scene.does(scene.stream.close))


@row("user_canceled and reset, then a send", "StreamError", layers=TLS)
def _(scene):
    """Which is no reason."""
    leave_unread(scene)
    scene.peer.send(bytes([1, AlertDescription.USER_CANCELED]), ContentType.ALERT)
    scene.peer.close()
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if isinstance(scene.does(scene.stream.send, b"too late"), BaseException):
            return
        time.sleep(0.001)
