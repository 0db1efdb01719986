"""A socket shared by several processes, invalid memory, and input that TCP cannot pass on unchanged."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections import Counter

from ktlslab.linux.ktls import Direction
from ktlslab.promises.check import Group
from ktlslab.promises.elsewhere import Elsewhere
from ktlslab.promises.pair import Pair, pattern

promise = Group("processes and memory")
ROUNDS = 2  # sends of each writer
SIZE = 8000  # bytes of each


def shared(pair: Pair, readers: int, writers: int, *, from_file: bool) -> None:
    """Write and read the same socket in several processes at once; each byte must arrive once."""
    size, rounds = SIZE, ROUNDS * max(1, readers // writers)
    files = [pair.file(bytes((number,)) * size) for number in range(writers)]

    def write(number: int) -> int:
        if from_file:
            return sum(os.sendfile(pair.sock.fileno(), files[number], 0, size) for _ in range(rounds))
        return sum(pair.sock.send(bytes((number,)) * size) for _ in range(rounds))

    def read() -> dict[int, int]:
        counts: Counter[int] = Counter()
        while data := pair.sock.recv(SIZE + 1):
            counts += tally(data)
        return dict(counts)

    reading = [Elsewhere(read) for _ in range(readers)]
    writing = [Elsewhere(lambda number=number: write(number)) for number in range(writers)]  # type: ignore[misc]
    whole, sent = writers * rounds * size, Counter[int]()
    while sent.total() < whole and (record := pair.peer.record()):
        sent += tally(record[1])
        pair.peer.send(record[1])
    pair.expect(f"{writers} writers sent", sum(writer.result() for writer in writing), whole)
    pair.expect("the peer got of each", set(sent.values()), {rounds * size})
    pair.peer.sock.shutdown(socket.SHUT_WR)
    got = sum((Counter(reader.result()) for reader in reading), Counter[int]())
    pair.expect(f"{readers} readers got of each", set(got.values()), {rounds * size})
    pair.expect("in all", got.total(), whole)


def tally(data: bytes) -> Counter[int]:
    """Count bytes by value; each writer has its own value."""
    return Counter({value: data.count(value) for value in set(data)})


@promise("selftest mutliproc_even, smaller")
def as_many_readers_as_writers(pair: Pair) -> None:
    """Three processes send and three receive at once; every byte passes once."""
    shared(pair, 3, 3, from_file=False)


@promise("selftest mutliproc_readers, smaller")
def more_writers_than_readers(pair: Pair) -> None:
    """Six processes send and two receive at once; every byte passes once."""
    shared(pair, 2, 6, from_file=False)


@promise("selftest mutliproc_writers, smaller")
def more_readers_than_writers(pair: Pair) -> None:
    """One process sends and five receive at once; every byte passes once."""
    shared(pair, 5, 1, from_file=False)


@promise("selftest mutliproc_sendpage_even, smaller")
def as_many_readers_as_writers_of_files(pair: Pair) -> None:
    """Three processes sendfile and three receive at once; every byte passes once."""
    shared(pair, 3, 3, from_file=True)


@promise("selftest mutliproc_sendpage_readers, smaller")
def more_writers_of_files_than_readers(pair: Pair) -> None:
    """Six processes sendfile and two receive at once; every byte passes once."""
    shared(pair, 2, 6, from_file=True)


@promise("selftest mutliproc_sendpage_writers, smaller")
def more_readers_than_writers_of_files(pair: Pair) -> None:
    """One process sends a file and five receive at once; every byte passes once."""
    shared(pair, 5, 1, from_file=True)


@promise("selftest oob_pressure", installed=(Direction.RX,))
def urgent_data_does_not_upset_the_kernel(pair: Pair) -> None:
    """Urgent bytes and 64 KiB that are no records end in an error for the reader, and in nothing worse."""
    pair.expect("urgent", pair.peer.sock.send(b"\x16urge", socket.MSG_OOB), 5)
    pair.peer.sock.settimeout(0)
    pair.peer.sock.send(pattern(1 << 16, 55))
    for _ in range(64):
        if pair.peer.sock.send(b"urgnt", socket.MSG_OOB) != 5:
            break
    answer = pair.recv(1 << 16)
    pair.expect("recv is an error", answer in {"EMSGSIZE", "EINVAL", "EBADMSG"}, wanted=True)


@promise("selftest recv_efault")
def bad_memory_loses_only_what_was_for_it(pair: Pair) -> None:
    """Recvmsg into a good buffer and a bad address gives what fits the good one, in order."""
    first, second = b"1111111111", b"2222222222"
    pair.peer.sock.sendall(pair.peer.seal(first) + pair.peer.seal(second))
    pair.settled()
    pair.expect("recv of 1", pair.recv(1), b"1")
    buffer = ctypes.create_string_buffer(12)
    vector = (ctypes.c_void_p * 4)(ctypes.addressof(buffer), len(buffer), None, 1)
    header = (ctypes.c_void_p * 7)(None, None, ctypes.addressof(vector), 2, None, None, None)
    count = ctypes.CDLL(None, use_errno=True).recvmsg(pair.sock.fileno(), ctypes.byref(header), 0)
    if count < 0:
        pair.expect("recvmsg", errno.errorcode[ctypes.get_errno()], "9 to 12 bytes")
    pair.expect("at least the first record", count >= 9, wanted=True)
    pair.expect("the good buffer", buffer.raw[:count], (first[1:] + second)[:count])
