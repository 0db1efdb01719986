"""splice into the socket: the bytes in a pipe become records."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import ctypes
import os
import socket

from ktlslab.promises.check import Group, attempt
from ktlslab.promises.pair import DATA, Pair, connected, pattern

promise = Group("splice in")
FULL = 1 << 14
SPLICE_F_NONBLOCK, SPLICE_F_MORE, SPLICE_F_GIFT = 2, 4, 8  # splice(2)


def splice_from_pipe(pair: Pair, pipe: int, count: int, flags: int = 0) -> object:
    """splice(2) from a pipe into the kernel's end: how many bytes, or the errno's name."""
    return attempt(lambda: os.splice(pipe, pair.sock.fileno(), count, flags=flags))


@promise("selftest splice_from_pipe")
def a_pipe_of_a_full_record_is_spliced_in(pair: Pair) -> None:
    """16,384 bytes in a pipe leave by one splice and arrive whole."""
    reading, writing = pair.pipe()
    os.write(writing, pattern(FULL))
    pair.expect("splice", splice_from_pipe(pair, reading, FULL), FULL)
    pair.expect("data", pair.peer.data(FULL), pattern(FULL))


@promise("selftest splice_from_pipe2")
def two_pipes_follow_each_other(pair: Pair) -> None:
    """8,000 bytes out of one pipe and 8,000 out of another arrive in order."""
    for start in (0, 8000):
        reading, writing = pair.pipe()
        os.write(writing, pattern(8000, start))
        pair.expect("splice", splice_from_pipe(pair, reading, 8000), 8000)
    pair.expect("data", pair.peer.data(16000), pattern(8000) + pattern(8000, 8000))


@promise("selftest send_and_splice")
def a_splice_follows_a_send(pair: Pair) -> None:
    """A splice after a send goes on with the next record."""
    reading, writing = pair.pipe()
    pair.send(b"sent")
    pair.expect("record", pair.peer.record(), (DATA, b"sent"))
    os.write(writing, pattern(FULL))
    pair.expect("splice", splice_from_pipe(pair, reading, FULL), FULL)
    pair.expect("data", pair.peer.data(FULL), pattern(FULL))


@promise("selftest splice_more")
def splice_more_holds_the_record_open(pair: Pair) -> None:
    """Thirty-two splices of one byte with SPLICE_F_MORE are all taken, and one record once a send ends it."""
    reading, writing = pair.pipe()
    os.write(writing, pattern(FULL))
    flags = SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT
    pair.expect("splices taken", [splice_from_pipe(pair, reading, 1, flags) for _ in range(32)], [1] * 32)
    pair.expect("send", pair.send(b"!"), 1)
    pair.expect("data", pair.peer.data(33), pattern(32) + b"!")


@promise(
    "selftest splice_onto_full_record",
    cve="CVE-2026-74610",
    mended=("6.6.152", "6.12.104", "6.18.45", "7.1.9"),
)
def splices_fill_a_record_to_its_last_piece(pair: Pair) -> None:
    """With 16 to 44 small splices, a send, a splice and a send in one record, every byte arrives in its place."""
    reading, writing = pair.pipe()
    for count in range(16, 45):
        data, at = pattern(100 * count + 102, count), 0
        for size, spliced in [(100, True)] * count + [(1, False), (100, True), (1, False)]:
            part, more = data[at : at + size], at + size < len(data)
            if spliced:
                os.write(writing, part)
                splice_from_pipe(pair, reading, size, SPLICE_F_MORE)
            else:
                pair.send(part, socket.MSG_MORE if more else 0)
            at += size
        if pair.peer.data(len(data)) != data:
            pair.expect(f"after {count} splices the data is as sent", False, wanted=True)  # noqa: FBT003
    pair.expect("splices in the last", count, 44)


@promise("selftest splice_short")
def a_splice_of_many_small_pieces_is_whole(pair: Pair) -> None:
    """Forty-eight pages of one byte each (vmsplice) and a longer piece leave by one splice, none left out."""
    reading, writing = pair.pipe(size=49 * 4096, flags=os.O_NONBLOCK)
    one = ctypes.create_string_buffer(b"S", 1)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(one), 1)
    libc = ctypes.CDLL(None, use_errno=True)
    pieces = [libc.vmsplice(writing, ctypes.byref(vector), ctypes.c_size_t(1), 0) for _ in range(48)]
    pair.expect("pieces in the pipe", sum(pieces), 48)
    os.write(writing, b"s" * 256)
    pair.expect("splice", splice_from_pipe(pair, reading, 48 + 4096), 48 + 256)
    pair.expect("data", pair.peer.data(48 + 256), b"S" * 48 + b"s" * 256)
    pair.expect("on the wire", pair.peer.quiet(), [])


@promise(
    "experience: the kind of CVE-2026-74610 in sendpage, which 6.5 replaced; Linux 6.1.192 goes down",
    cve="CVE-2026-74610",
    mended=("6.5",),
)
def pieces_held_by_msg_more_are_followed_by_a_splice(pair: Pair) -> None:
    """Up to 40 sends with MSG_MORE, a splice and a send: every byte arrives in its place, and no other."""
    other, far = pair.keep(connected())
    reading, writing = pair.pipe()
    for count in range(1, 41):
        data = pattern(50 * count + 107, count)
        for at in range(0, 50 * count, 50):
            pair.send(data[at : at + 50], socket.MSG_MORE)
            other.send(b"elsewhere")  # takes the memory after the piece, so that the next one cannot be joined to it
            far.recv(16)
        os.write(writing, data[50 * count : -7])
        splice_from_pipe(pair, reading, 100, SPLICE_F_MORE)
        pair.send(data[-7:])
        if (got := pair.peer.data(len(data))) != data:
            pair.expect(f"after {count} sends with MSG_MORE", got, data)
    pair.expect("sends with MSG_MORE in the last", count, 40)
    pair.expect("on the wire", pair.peer.quiet(), [])


@promise("splice(2): the number of bytes")
def a_splice_of_more_than_there_is_sends_what_there_is(pair: Pair) -> None:
    """Splice of 60,000 bytes from a pipe that has 20,000 sends these at once, and nothing that nobody wrote."""
    reading, writing = pair.pipe()
    os.write(writing, pattern(20_000))
    pair.expect("splice", splice_from_pipe(pair, reading, 60_000), 20_000)
    pair.expect("data", pair.peer.data(20_000), pattern(20_000))
    pair.expect("on the wire", pair.peer.quiet(), [])
    pair.send(b"next")
    pair.expect("record", pair.peer.record(), (DATA, b"next"))
