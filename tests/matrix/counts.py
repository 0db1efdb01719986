"""Pipes that take less, empty buffers and zero counts, very large ones, and single records."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile

from ktlslab.tls.records import ContentType
from tests.matrix.calls import RECEIVES, possible
from tests.matrix.rows import KERNEL_SENDS, SHORT_S, SMALL, TLS, row

RECORD = bytes(range(250)) * 40
USER_CANCELED = bytes([1, 90])  # an alert that ends nothing
HUGE = (2 << 30) + 4096
NORESERVE = 0x4000  # MAP_NORESERVE


def recv_nothing(scene):
    return scene.stream.recv(0)


def recv_into_nothing(scene):
    return scene.stream.recv_into(bytearray())


def recv_exactly_into_nothing(scene):
    return scene.stream.recv_exactly_into(bytearray())


def splice_into_nothing(scene):
    return scene.stream.splice_into(scene.pipe()[1], 0)


def send_nothing(scene):
    return scene.stream.send(b"")


def send_no_buffers(scene):
    return scene.stream.send_many([])


def send_empty_buffers(scene):
    return scene.stream.send_many([b"", bytearray(), b""])


def sendfile_nothing(scene):
    with tempfile.TemporaryFile() as file:
        return scene.stream.sendfile(file, 0, 0)


def splice_from_nothing(scene):
    return scene.stream.splice_from(scene.pipe()[0], 0)


RECEIVES_OF_NOTHING = (recv_nothing, recv_into_nothing, recv_exactly_into_nothing, splice_into_nothing)
SENDS_OF_NOTHING = (send_nothing, send_no_buffers, send_empty_buffers, sendfile_nothing, splice_from_nothing)


@row("an empty buffer or a count of 0", "nothing, then delivered", each=RECEIVES_OF_NOTHING + SENDS_OF_NOTHING,
     timeout=SHORT_S, goes_on=True)  # fmt: skip
def _(scene, call):
    scene.says("something" if scene.does(call, scene) else "nothing")
    scene.goes_on()


@row("a wrong send while bytes are held back", "UsageError, then delivered", goes_on=True)
def _(scene):
    scene.does(scene.stream.send, b"held back, ", more=True)
    scene.fails(scene.stream.send, "text")
    if not isinstance(scene.does(scene.stream.send, b"and sent"), BaseException):
        scene.peer_gets(b"held back, and sent")


@row("a wrong send while bytes are held back, then close", "UsageError, then delivered")
def _(scene):
    scene.does(scene.stream.send, b"held back", more=True)
    scene.fails(scene.stream.send, "text")
    scene.peer.fin()
    scene.does(scene.stream.close)
    scene.peer_gets(b"held back")


def recv_into_none(scene):
    return scene.stream.recv_into(None)


def recv_exactly_into_none(scene):
    return scene.stream.recv_exactly_into(None)


def recv_into_bytes(scene):
    return scene.stream.recv_into(b"not writable")


@row("a buffer that is none, before and after the clean end", "UsageError, then the end, then UsageError",
     each=(recv_into_none, recv_exactly_into_none, recv_into_bytes))  # fmt: skip
def _(scene, call):
    scene.fails(call, scene)
    scene.peer.close_notify()
    scene.peer.fin()
    scene.says("more" if scene.stream.recv() else "the end")
    scene.fails(call, scene)


@row(
    "nothing is received while a control record waits",
    "nothing, then delivered",
    each=RECEIVES_OF_NOTHING,
    layers=TLS,
    goes_on=True,
)
def _(scene, call):
    scene.peer.send(USER_CANCELED, ContentType.ALERT)
    scene.peer.send(b"after it")
    scene.says("something" if scene.does(call, scene) else "nothing")
    scene.receives(b"after it")


@row("a full pipe", "UsageError, then delivered", each=RECEIVES, possible=possible, goes_on=True)
def _(scene, call):
    _, theirs = scene.pipe(blocking=False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(theirs, bytes(1 << 12))
    scene.peer.send(b"all that came")
    scene.fails(scene.stream.splice_into, theirs, 100)
    scene.same(scene.does(call, scene, 13), b"all that came")


@row("a pipe that nobody reads", "UsageError, then delivered", each=RECEIVES, possible=possible, goes_on=True)
def _(scene, call):
    ours, theirs = scene.pipe()
    os.close(ours)
    scene.peer.send(b"all that came")
    scene.fails(scene.stream.splice_into, theirs, 100)
    scene.same(scene.does(call, scene, 13), b"all that came")


@row("a pipe that holds a page, which is less than a record", "delivered", each=(True, False), goes_on=True)
def _(scene, blocking):
    ours, theirs = scene.pipe(size=mmap.PAGESIZE, blocking=blocking)
    scene.peer.send(RECORD)
    got = b""
    while len(got) < len(RECORD) and (count := scene.stream.splice_into(theirs, len(RECORD) - len(got))):
        got += os.read(ours, count)
    scene.same(got, RECORD)


@row(
    "a pipe that holds a page, and the rest by another call",
    "delivered",
    each=RECEIVES,
    possible=possible,
    goes_on=True,
)
def _(scene, call):
    ours, theirs = scene.pipe(size=mmap.PAGESIZE, blocking=False)
    scene.peer.send(RECORD)
    count = scene.stream.splice_into(theirs, len(RECORD))
    scene.same(os.read(ours, count) + call(scene, len(RECORD) - count), RECORD)


@row("a record of a type over 255", "UsageError, then delivered", each=(256, 300, -1), goes_on=True)
def _(scene, kind):
    scene.fails(scene.stream.send_record, b"x", kind)
    scene.goes_on()


@row(
    "a record of no bytes, or of more than 16,384",
    "UsageError, then delivered",
    each=(0, 16_385, 100_000),
    goes_on=True,
)
def _(scene, size):
    scene.fails(scene.stream.send_record, bytes(size), 23)
    scene.goes_on()


@row("records of 1 and of 16,384 bytes", "delivered", layers=KERNEL_SENDS, each=(1, 16_384), goes_on=True)
def _(scene, size):
    scene.stream.send_record(bytes(size), 23)
    scene.same(scene.peer.receive()[1], bytes(size))


@row("a record larger than limit_records allows", "UsageError, then delivered", layers=KERNEL_SENDS,
     where={"6.1": "MachineError, then delivered", "6.12": "MachineError, then delivered"})  # fmt: skip
def _(scene):
    if not isinstance(scene.does(scene.stream.limit_records, 1000), BaseException):
        scene.fails(scene.stream.send_record, bytes(1001), 23)
    scene.goes_on()


@row("single records until the socket is full", "PeerTimeoutError", layers=KERNEL_SENDS, timeout=SHORT_S, buffers=SMALL)
def _(scene):
    for _ in range(100):
        if isinstance(scene.does(scene.stream.send_record, bytes(16_384), 23), BaseException):
            return


def huge():
    """Return a buffer of over 2 GiB that takes no memory until it is written to."""
    return memoryview(mmap.mmap(-1, HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE))


@row("a receive into a buffer over 2 GiB", "delivered", each=("recv_into",))
def _(scene, _call):
    buffer = huge()
    scene.peer.send(b"a little")
    count = scene.stream.recv_into(buffer)
    scene.same(buffer[:count], b"a little")


@row("recv_exactly_into over 2 GiB, and the peer ends", "TruncatedError")
def _(scene):
    scene.peer.send(b"a little")
    scene.peer.fin()
    scene.fails(scene.stream.recv_exactly_into, huge())


@row("a send of over 2 GiB, and the peer resets", "StreamError", layers=("plain", "kernel", "kernel-tx"))
def _(scene):
    def cut():
        scene.peer.sock.recv(1000)
        scene.peer.reset()

    scene.meanwhile(cut)
    scene.fails(scene.stream.send, huge())
