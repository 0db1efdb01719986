"""The layers between a caller of `Stream` and the kernel, each called on its own.

A layer is a function from (stream, payload, room) to two calls, (send, arguments) and (receive, arguments), which do
what `Stream` does from there down. The difference between two neighbours is the cost of the upper one.

Runs in a guest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contestants import TIMEOUT_S

from ktlslab.stages import Stream

Call = tuple[Callable[..., Any], tuple[Any, ...]]
Layer = Callable[[Any, memoryview, memoryview], tuple[Call, Call]]


def whole(stream: Stream, one: memoryview, room: memoryview) -> tuple[Call, Call]:
    return (stream.send, (one,)), (stream.recv_exactly_into, (room,))


def part(stream: Stream, one: memoryview, room: memoryview) -> tuple[Call, Call]:
    return (stream.send, (one,)), (stream.recv_into, (room,))


def sides(stream: Stream, one: memoryview, room: memoryview) -> tuple[Call, Call]:
    return (stream._condition.sender.push, (one,)), (stream._condition.pull, (room,))


def ring(stream: Stream, one: memoryview, room: memoryview) -> tuple[Call, Call]:
    fd, below = stream.connection.socket.fileno(), stream.connection.engine.ring
    return (below.sender(fd, timeout=TIMEOUT_S), (one,)), (below.receiver(fd, timeout=TIMEOUT_S), (room,))


def bare(stream: Stream, one: memoryview, room: memoryview) -> tuple[Call, Call]:
    return (stream.connection.socket.send, (one,)), (stream.connection.socket.recv_into, (room,))


# From the caller down; below each the C program goes on.
LAYERS: dict[str, dict[str, Layer]] = {
    "uring": {
        "Stream, recv_exactly_into": whole,
        "Stream, recv_into": part,
        "its sides": sides,
        "the ring's callables": ring,
    },
    "syscall": {
        "Stream, recv_exactly_into": whole,
        "Stream, recv_into": part,
        "its sides": sides,
        "Python's socket": bare,
    },
}
