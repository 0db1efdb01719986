"""The calls that move bytes, in one form each: what a row's variants are.

`receive(scene, size)` returns that many bytes, fewer at the end of the stream. `send(scene, data)` sends all of it.
"""

from __future__ import annotations

import os
import tempfile

from tests.matrix.rows import KERNEL_RECEIVES, KERNEL_SENDS

PIECE = 16_384


def recv(scene, size):
    return _until(size, scene.stream.recv)


def recv_into(scene, size):
    def take(left):
        room = scene.room(left)
        return bytes(room[: scene.stream.recv_into(room)])

    return _until(size, take)


def recv_exactly_into(scene, size):
    room = scene.room(size)
    scene.stream.recv_exactly_into(room)
    return bytes(room)


def pieces(scene, size):
    every = scene.stream.pieces()
    try:
        return _until(size, lambda _: next((data for kind, data in every if kind == 23), b""))
    finally:
        every.close()


def splice_into(scene, size):
    ours, theirs = scene.pipe()
    return _until(size, lambda left: os.read(ours, count) if (count := scene.stream.splice_into(theirs, left)) else b"")


def _until(size, take):
    got = b""
    while len(got) < size and (part := take(size - len(got))):
        got += part
    return got


RECEIVES = (recv, recv_into, recv_exactly_into, splice_into, pieces)


def send(scene, data):
    scene.stream.send(data)


def send_many(scene, data):
    scene.stream.send_many([data[at : at + PIECE] for at in range(0, len(data), PIECE)])


def send_record(scene, data):
    for at in range(0, len(data), PIECE):
        scene.stream.send_record(data[at : at + PIECE], 23)


def sendfile(scene, data):
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        scene.stream.sendfile(file, 0, len(data))


def splice_from(scene, data):
    """Put as much as fits into a pipe of a MiB, so a longer send ends when the pipe is empty."""
    ours, theirs = scene.pipe(size=1 << 20)
    os.set_blocking(theirs, False)
    written = os.write(theirs, data)
    moved = scene.stream.splice_from(ours, written)
    scene.check(moved == written, f"{moved} of {written} bytes")


SENDS = (send, send_many, sendfile, splice_from, send_record)


def possible(layer, call):
    """Whether the layer has the call."""
    if call is pieces:
        return layer in KERNEL_RECEIVES
    return call is not send_record or layer in KERNEL_SENDS
