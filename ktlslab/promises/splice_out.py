"""splice out of the socket: the content of records goes into a pipe."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import os
import socket
from typing import Any

from ktlslab.promises.check import Group, attempt
from ktlslab.promises.pair import HANDSHAKE, Pair, pattern

promise = Group("splice out")
FULL = 1 << 14
SPLICE_F_NONBLOCK = 2
TICKET = b"\x04\x00\x00\x06ticket"


def splice_through_pipe(pair: Pair, pipe: tuple[int, int], count: int, flags: int = 0) -> Any:
    """splice(2) from the kernel's end through a pipe: the bytes, or the errno's name."""
    moved = attempt(lambda: os.splice(pair.sock.fileno(), pipe[1], count, flags=flags))
    return os.read(pipe[0], moved) if isinstance(moved, int) and moved else moved


@promise("selftest splice_to_pipe")
def a_full_record_is_spliced_out(pair: Pair) -> None:
    """A record of 16,384 bytes goes into a pipe by one splice."""
    pair.peer.send(pattern(FULL))
    pair.expect("splice", splice_through_pipe(pair, pair.pipe(), FULL), pattern(FULL))


@promise("selftest splice_to_pipe_small")
def a_small_pipe_takes_a_record_in_parts(pair: Pair) -> None:
    """Through a pipe of one page a full record goes in several splices, none of them empty, nothing lost."""
    pipe = pair.pipe(size=4096)
    pair.peer.send(pattern(FULL))
    pair.expect("readable", pair.readable(), wanted=True)
    whole, now = b"", SPLICE_F_NONBLOCK
    while len(whole) < FULL and isinstance(part := splice_through_pipe(pair, pipe, FULL - len(whole), now), bytes):
        whole += part
    pair.expect("all splices", whole, pattern(FULL))


@promise("selftest splice_cmsg_to_pipe")
def a_control_record_is_not_spliced(pair: Pair) -> None:
    """Splice says EINVAL on a control record, recv EIO, and recvmsg then gets it."""
    pair.peer.send(TICKET, HANDSHAKE)
    pair.expect("splice", splice_through_pipe(pair, pair.pipe(), 64), "EINVAL")
    pair.expect("recv", pair.recv(64), "EIO")
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, TICKET))


@promise("selftest splice_dec_cmsg_to_pipe")
def a_decrypted_control_record_is_not_spliced(pair: Pair) -> None:
    """The same after recv has already opened the record: EIO, EINVAL, and recvmsg then gets it."""
    pair.peer.send(TICKET, HANDSHAKE)
    pair.expect("recv", pair.recv(64), "EIO")
    pair.expect("splice", splice_through_pipe(pair, pair.pipe(), 64), "EINVAL")
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, TICKET))


@promise("selftest recv_and_splice")
def half_a_record_is_received_and_half_spliced(pair: Pair) -> None:
    """After recv took half of a record, splice takes the other half."""
    pair.peer.send(pattern(FULL))
    half = FULL // 2
    pair.expect("recv", pair.recv(half, socket.MSG_WAITALL), pattern(half))
    pair.expect("splice", splice_through_pipe(pair, pair.pipe(), half, SPLICE_F_NONBLOCK), pattern(FULL)[half:])


@promise("selftest peek_and_splice")
def what_was_peeked_at_is_spliced(pair: Pair) -> None:
    """Four records, two and a half of them peeked at, go through splices whole and in order."""
    quarter, data = FULL // 4, pattern(FULL)
    pair.peer.sock.sendall(b"".join(pair.peer.seal(data[at : at + quarter]) for at in range(0, FULL, quarter)))
    pair.settled()
    flags = socket.MSG_PEEK | socket.MSG_WAITALL
    pair.expect("peek", pair.recv(quarter * 5 // 2, flags), data[: quarter * 5 // 2])
    pipe, whole = pair.pipe(), b""
    while len(whole) < FULL and isinstance(part := splice_through_pipe(pair, pipe, FULL - len(whole)), bytes):
        whole += part
    pair.expect("all splices", whole, data)


@promise("splice(2), SPLICE_F_NONBLOCK")
def a_splice_of_nothing_says_eagain(pair: Pair) -> None:
    """Splice with SPLICE_F_NONBLOCK and no record there says EAGAIN."""
    pair.expect("splice", splice_through_pipe(pair, pair.pipe(), 64, SPLICE_F_NONBLOCK), "EAGAIN")
