"""Files and pipes into a socket that is full: blocking calls wait and go on, others say EAGAIN, and no byte is lost."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from ktlslab.promises.check import Group, attempt
from ktlslab.promises.elsewhere import Elsewhere
from ktlslab.promises.pair import QUIET_S, Pair, bound, pattern, readable
from ktlslab.promises.splice_in import SPLICE_F_NONBLOCK

promise = Group("a full socket")
FULL = 1 << 14
SIZE = 100_000  # of what a blocking call sends: several times what the socket holds
MANY = 400_000  # of what non-blocking calls send
SMALL = 8192  # bytes of send buffer: less than a record
STALLED_S = 1.0
Step = Callable[[int], Any]  # send what follows the first N bytes: how many were taken, or the errno's name


def file_step(pair: Pair, size: int) -> Step:
    """Send a file of this size: sendfile of all that is left."""
    file = pair.file(pattern(size))
    return lambda at: attempt(os.sendfile, pair.sock.fileno(), file, at, size - at)


def pipe_step(pair: Pair, size: int, flags: int = 0) -> Step:
    """Send the same through a pipe, which is filled as far as it goes; splice of all that is in it."""
    reading, writing = pair.pipe(flags=os.O_NONBLOCK)
    data, put = pattern(size), [0]

    def step(at: int) -> Any:
        if at == put[0]:
            put[0] += os.write(writing, data[at : at + FULL * 3])
        return attempt(lambda: os.splice(reading, pair.sock.fileno(), put[0] - at, flags=flags))

    return step


def fill(pair: Pair, step: Step) -> int:
    """Repeat a non-blocking send until the socket is full; return how many bytes it took."""
    taken = 0
    while isinstance(count := step(taken), int) and count:
        taken += count
    pair.expect("in the end", count, "EAGAIN")
    return taken


def drained(pair: Pair, size: int) -> bytes:
    """Return the data of the peer's next records: `size` bytes, or what came before a stall."""
    got = b""
    while len(got) < size and (records := pair.peer.records(1, within=STALLED_S)):
        got += records[0][1]
    return got


def through_small_buffer(pair: Pair, step: Step) -> None:
    """Send SIZE bytes by blocking calls from another process, through a send buffer smaller than a record."""
    pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    bound(pair.sock, STALLED_S)

    def all_of_it() -> list[Any]:
        at = 0
        said: list[Any] = []
        while at < SIZE and (not said or (isinstance(said[-1], int) and said[-1])):
            said.append(step(at))
            at += said[-1] if isinstance(said[-1], int) else 0
        return said

    sending = Elsewhere(all_of_it)
    got = drained(pair, SIZE)
    said = sending.result()
    answers = [answer for answer in said if not isinstance(answer, int)]
    if answers or len(got) < SIZE:
        pair.expect("arrived, taken", (len(got), said), (SIZE, [SIZE]))
    pair.expect("data", got, pattern(SIZE))


def goes_on(pair: Pair, step: Step, size: int, before: bytes = b"") -> None:
    """Send `size` bytes by non-blocking calls, and let the peer read whenever the socket is full."""
    pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, FULL * 2)
    pair.sock.settimeout(0)
    at, got, full = 0, b"", 0
    while at < size and (count := step(at)):
        if isinstance(count, int):
            at += count
        elif count == "EAGAIN" and (records := pair.peer.records(1, within=STALLED_S)):
            full += 1
            got += b"".join(data for _, data in records + pair.peer.records(size, within=0))
        else:
            break
    pair.expect("taken", at, size)
    pair.expect("the socket was full", full > 0, wanted=True)
    got += drained(pair, len(before) + size - len(got))
    pair.expect("data", got, before + pattern(size))
    pair.expect("on the wire", pair.peer.quiet(), [])


@promise("sendfile(2), socket(7): a blocking call waits for room")
def a_file_passes_a_small_send_buffer(pair: Pair) -> None:
    """A blocking sendfile through a send buffer smaller than a record goes on as the peer reads, to the end."""
    through_small_buffer(pair, file_step(pair, SIZE))


@promise("splice(2), socket(7): a blocking call waits for room")
def a_pipe_passes_a_small_send_buffer(pair: Pair) -> None:
    """A blocking splice through a send buffer smaller than a record goes on as the peer reads, to the end."""
    through_small_buffer(pair, pipe_step(pair, SIZE))


@promise("tcp(7): no more than the peer's reading delays a sender")
def a_file_passes_a_small_send_buffer_without_pauses(pair: Pair) -> None:
    """While it waits for room, sendfile does not leave records lying: the peer waits nowhere for 0.15 s."""
    pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    bound(pair.sock, STALLED_S)
    step = file_step(pair, SIZE)
    Elsewhere(lambda: step(0))
    got, pauses = b"", 0
    while len(got) < SIZE:
        pauses += bool(got) and not readable(pair.peer.sock, QUIET_S)
        if not (record := pair.peer.records(1, within=STALLED_S)):
            break
        got += record[0][1]
    pair.expect("a pause more than twice", pauses > 2, wanted=False)
    pair.expect("data", got, pattern(SIZE))


@promise("sendfile(2): EAGAIN, and the number of bytes taken")
def a_file_into_a_full_socket_goes_on_later(pair: Pair) -> None:
    """Sendfile into a full non-blocking socket says EAGAIN; repeated as the peer reads, it sends every byte once."""
    goes_on(pair, file_step(pair, MANY), MANY)


@promise("splice(2): EAGAIN, and the number of bytes taken")
def a_pipe_into_a_full_socket_goes_on_later(pair: Pair) -> None:
    """Splice into a full non-blocking socket says EAGAIN; repeated as the peer reads, it sends every byte once."""
    goes_on(pair, pipe_step(pair, MANY, SPLICE_F_NONBLOCK), MANY)


@promise("sendfile(2), tls.rst: MSG_MORE")
def a_file_after_msg_more_into_a_full_socket_goes_on_later(pair: Pair) -> None:
    """Where a header held by MSG_MORE comes before the file, both leave whole and in order through a full socket."""
    pair.expect("send with MSG_MORE", pair.send(b"header:" * 100, socket.MSG_MORE), 700)
    goes_on(pair, file_step(pair, MANY), MANY, before=b"header:" * 100)
