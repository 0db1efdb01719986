"""sendfile: a file's bytes become records without passing through the program."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import os
import socket

from ktlslab.promises.check import Group, attempt
from ktlslab.promises.pair import DATA, Pair, pattern

promise = Group("sendfile")
FULL = 1 << 14


def send_file(pair: Pair, file: int, offset: int, count: int) -> object:
    """Call sendfile(2); return the number of bytes, or the errno's name."""
    return attempt(os.sendfile, pair.sock.fileno(), file, offset, count)


@promise("tls.rst, Sending TLS application data: sendfile; selftest sendfile")
def a_file_leaves_in_full_records(pair: Pair) -> None:
    """Sendfile of 40,000 bytes makes records of 2**14 bytes and a rest, and they hold the file."""
    file = pair.file(pattern(40_000))
    pair.expect("sendfile", send_file(pair, file, 0, 40_000), 40_000)
    records = pair.peer.records(3)
    pair.expect("records", [len(data) for _, data in records], [FULL, FULL, 40_000 - 2 * FULL])
    pair.expect("their bytes", b"".join(data for _, data in records), pattern(40_000))


@promise("selftest send_then_sendfile")
def a_file_follows_a_send(pair: Pair) -> None:
    """After a send, sendfile goes on with the next record."""
    file = pair.file(pattern(20_000))
    pair.send(b"header")
    pair.expect("record", pair.peer.record(), (DATA, b"header"))
    pair.expect("sendfile", send_file(pair, file, 0, 20_000), 20_000)
    pair.expect("data", pair.peer.data(20_000), pattern(20_000))


@promise("selftest multi_chunk_sendfile")
def a_file_can_leave_in_chunks(pair: Pair) -> None:
    """Files sent in chunks of many sizes arrive whole, whatever the chunk and the rest."""
    for chunk, extra in ((4096, 4096), (4096, 0), (4096, 1), (8192, 2048), (12288, 2000), (15360, 300), (300, 3300)):
        size, sent = chunk + extra, 0
        file = pair.file(pattern(size))
        while sent < size and isinstance(count := send_file(pair, file, sent, min(chunk, size - sent)), int) and count:
            sent += count
        pair.expect(f"chunks of {chunk}", sent, size)
        pair.expect("data", pair.peer.data(size), pattern(size))


@promise("sendfile(2): offset and count")
def part_of_a_file_is_sent(pair: Pair) -> None:
    """Sendfile from an offset sends that part and no more, though the file goes on."""
    file = pair.file(pattern(10_000))
    pair.expect("sendfile", send_file(pair, file, 5000, 100), 100)
    pair.expect("record", pair.peer.record(), (DATA, pattern(100, 5000)))
    pair.expect("on the wire", pair.peer.quiet(), [])


@promise("tls.rst, Sending TLS application data: MSG_MORE")
def a_header_held_by_msg_more_joins_the_file(pair: Pair) -> None:
    """A header sent with MSG_MORE and a file after it share a record, in order."""
    file = pair.file(pattern(1000))
    pair.send(b"header:", socket.MSG_MORE)
    pair.expect("sendfile", send_file(pair, file, 0, 1000), 1000)
    pair.expect("record", pair.peer.record(), (DATA, b"header:" + pattern(1000)))


@promise("sendfile(2): the number of bytes")
def a_file_shorter_than_asked_is_sent_and_no_more(pair: Pair) -> None:
    """Sendfile of 60,000 bytes from a file of 20,000 sends these at once, and nothing that nobody wrote."""
    file = pair.file(pattern(20_000))
    pair.expect("sendfile", send_file(pair, file, 0, 60_000), 20_000)
    pair.expect("data", pair.peer.data(20_000), pattern(20_000))
    pair.expect("sendfile at the end", send_file(pair, file, 20_000, 60_000), 0)
    pair.expect("on the wire", pair.peer.quiet(), [])
    pair.send(b"next")
    pair.expect("record", pair.peer.record(), (DATA, b"next"))
