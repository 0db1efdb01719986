"""Receives through io_uring: single and multishot, into the program's buffers and into provided ones."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import os
import socket

from ktlslab.errors import RingUnavailableError
from ktlslab.linux.buffers import BufferRing
from ktlslab.linux.operations import Operation
from ktlslab.linux.ring import Ring
from ktlslab.promises.check import TLS13, Absent, Group, attempt
from ktlslab.promises.key_update import can_rekey
from ktlslab.promises.pair import ALERT, CLOSE_NOTIFY, DATA, ENOUGH_S, HANDSHAKE, KEY_UPDATE, Pair, pattern
from ktlslab.promises.uring import finished, ran, ring_for, waits

promise = Group("io_uring receiving")
FULL = 1 << 14
TICKET = b"\x04\x00\x00\x06ticket"


def provided(pair: Pair, count: int = 8, size: int = 256) -> tuple[Ring, BufferRing]:
    """Return a ring with provided buffers. Absent where the kernel has none."""
    ring = ring_for(pair)
    try:
        return ring, pair.keep(ring.buffer_ring(count, size))
    except RingUnavailableError as error:
        raise Absent(error.answered) from error


@promise("io_uring_prep_recv(3)")
def a_ring_receives_what_a_record_holds(pair: Pair) -> None:
    """IORING_OP_RECV gives decrypted data."""
    buffer = bytearray(FULL)
    pair.peer.send(pattern(FULL))
    pair.expect("recv", ran(ring_for(pair), Operation.recv(pair.sock.fileno(), buffer)), FULL)
    pair.expect("received", bytes(buffer), pattern(FULL))


@promise("io_uring_prep_recv(3)")
def a_receive_waits_for_the_whole_record(pair: Pair) -> None:
    """A receive put in flight before a record came ends with its last byte, not with its first."""
    ring, buffer, record = ring_for(pair), bytearray(64), pair.peer.seal(b"in two parts")
    (token,) = ring.start(Operation.recv(pair.sock.fileno(), buffer))
    pair.peer.sock.sendall(record[:9])
    pair.expect("waits with half a record", waits(ring, token), wanted=True)
    pair.peer.sock.sendall(record[9:])
    pair.expect("recv", finished(ring, token), 12)
    pair.expect("received", bytes(buffer[:12]), b"in two parts")


@promise("io_uring_prep_recvmsg(3); tls.rst, Receiving TLS control messages")
def a_ring_receives_types(pair: Pair) -> None:
    """IORING_OP_RECVMSG with room for a type names each record's."""
    ring = ring_for(pair)
    for data, kind in ((b"data", DATA), (TICKET, HANDSHAKE), (CLOSE_NOTIFY, ALERT)):
        buffer = bytearray(64)
        pair.peer.send(data, kind)
        operation = Operation.recvmsg(pair.sock.fileno(), buffer)
        pair.expect("recvmsg", ran(ring, operation), len(data))
        pair.expect("record", (kind if operation.record_type == kind else -1, bytes(buffer[: len(data)])), (kind, data))


@promise("tls.rst, Receiving TLS control messages")
def a_ring_loses_no_control_record(pair: Pair) -> None:
    """IORING_OP_RECV says EIO on a control record, twice, and IORING_OP_RECVMSG then takes it."""
    ring, buffer, fd = ring_for(pair), bytearray(64), pair.sock.fileno()
    pair.peer.send(TICKET, HANDSHAKE)
    for _ in range(2):
        pair.expect("recv", ran(ring, Operation.recv(fd, buffer)), "EIO")
    operation = Operation.recvmsg(fd, buffer)
    pair.expect("recvmsg", ran(ring, operation), len(TICKET))
    pair.expect("type", operation.record_type, int(HANDSHAKE))


@promise("io_uring_prep_recv(3): MSG_PEEK")
def a_ring_peeks(pair: Pair) -> None:
    """A receive with MSG_PEEK shows what the next one takes."""
    ring, buffer, fd = ring_for(pair), bytearray(64), pair.sock.fileno()
    pair.peer.send(b"look first")
    for flags in (socket.MSG_PEEK, 0):
        pair.expect("recv", ran(ring, Operation.recv(fd, buffer, flags=flags)), 10)
        pair.expect("received", bytes(buffer[:10]), b"look first")


@promise("io_uring_prep_recv(3): MSG_WAITALL")
def a_ring_waits_for_all(pair: Pair) -> None:
    """A receive with MSG_WAITALL for 20 bytes ends with the second record of ten, not with the first."""
    ring, buffer = ring_for(pair), bytearray(20)
    (token,) = ring.start(Operation.recv(pair.sock.fileno(), buffer, flags=socket.MSG_WAITALL))
    pair.peer.send(pattern(10))
    pair.expect("waits after the first", waits(ring, token), wanted=True)
    pair.peer.send(pattern(10, 10))
    pair.expect("recv", finished(ring, token), 20)
    pair.expect("received", bytes(buffer), pattern(20))


@promise("io_uring_prep_read(3)")
def a_ring_reads(pair: Pair) -> None:
    """IORING_OP_READ gives decrypted data as read(2) does."""
    buffer = bytearray(64)
    pair.peer.send(b"to be read")
    pair.expect("read", ran(ring_for(pair), Operation.read(pair.sock.fileno(), buffer)), 10)
    pair.expect("received", bytes(buffer[:10]), b"to be read")


@promise("io_uring_prep_read_fixed(3), io_uring_register_buffers(3)")
def a_ring_reads_into_a_registered_buffer(pair: Pair) -> None:
    """IORING_OP_READ_FIXED decrypts into a registered buffer."""
    ring, buffer = ring_for(pair), bytearray(FULL)
    pair.expect("register", attempt(ring.register_buffers, [buffer]), None)
    pair.peer.send(pattern(FULL))
    pair.expect("read", ran(ring, Operation.read_fixed(pair.sock.fileno(), buffer, 0)), FULL)
    pair.expect("received", bytes(buffer), pattern(FULL))


@promise("io_uring_prep_splice(3)")
def a_ring_splices_a_record_out(pair: Pair) -> None:
    """IORING_OP_SPLICE puts what a record holds into a pipe."""
    reading, writing = pair.pipe()
    pair.peer.send(pattern(FULL))
    pair.expect("splice", ran(ring_for(pair), Operation.splice(pair.sock.fileno(), writing, FULL)), FULL)
    pair.expect("in the pipe", os.read(reading, FULL), pattern(FULL))


@promise("io_uring_prep_recv_multishot(3)")
def a_multishot_receive_gives_record_after_record(pair: Pair) -> None:
    """One multishot receive gives the data of five records that come one by one, and ends with the stream."""
    ring, buffers = provided(pair)
    incoming = pair.keep(ring.recv_multishot(pair.sock.fileno(), buffers, timeout=ENOUGH_S))
    for at in range(5):
        pair.peer.send(pattern(50, at))
        got = attempt(next, incoming)
        pair.needs("recv", got, "EINVAL")
        pair.expect("recv", got, (-1, pattern(50, at)))
    pair.peer.sock.shutdown(socket.SHUT_WR)
    pair.expect("then", incoming.take(), [])
    pair.expect("ended", incoming.ended, wanted=True)


@promise("tls.rst, Receiving TLS control messages")
def a_multishot_receive_stops_at_a_control_record(pair: Pair) -> None:
    """Without room for types a multishot receive ends with EIO at a control record, after the data before it."""
    ring, buffers = provided(pair)
    incoming = pair.keep(ring.recv_multishot(pair.sock.fileno(), buffers, timeout=ENOUGH_S))
    pair.peer.send(b"before")
    got = attempt(next, incoming)
    pair.needs("recv", got, "EINVAL")
    pair.expect("recv", got, (-1, b"before"))
    pair.peer.send(TICKET, HANDSHAKE)
    pair.expect("recv", attempt(next, incoming), "EIO")
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, TICKET))


@promise("io_uring_prep_recvmsg_multishot(3); tls.rst, Receiving TLS control messages")
def a_multishot_recvmsg_types_every_record(pair: Pair) -> None:
    """One multishot recvmsg with provided buffers gives data, ticket, data and alert, each with its type."""
    ring, buffers = provided(pair)
    incoming = pair.keep(ring.recvmsg_multishot(pair.sock.fileno(), buffers, timeout=ENOUGH_S))
    for data, kind in ((b"data", DATA), (TICKET, HANDSHAKE), (b"more", DATA), (CLOSE_NOTIFY, ALERT)):
        pair.peer.send(data, kind)
        got = attempt(next, incoming)
        pair.needs("recvmsg", got, "EINVAL")
        pair.expect("recvmsg", got, (int(kind), data))


@promise("io_uring_prep_recvmsg_multishot(3): provided buffers")
def a_large_record_fills_several_provided_buffers(pair: Pair) -> None:
    """A record larger than a provided buffer comes in parts, in order, each with its type."""
    ring, buffers = provided(pair, 8, 1024)
    incoming = pair.keep(ring.recvmsg_multishot(pair.sock.fileno(), buffers, timeout=ENOUGH_S))
    pair.peer.send(pattern(3000))
    types, whole = set(), b""
    while len(whole) < 3000 and not isinstance(got := attempt(next, incoming), str):
        types.add(got[0])
        whole += got[1]
    pair.expect("all parts", whole, pattern(3000))
    pair.expect("their types", types, {int(DATA)})


@promise("io_uring_prep_recv_multishot(3): -ENOBUFS")
def running_out_of_buffers_loses_nothing(pair: Pair) -> None:
    """Ten records into two provided buffers: the receive is ended, armed anew, and gives all ten in order."""
    ring, buffers = provided(pair, 2, 256)
    incoming = pair.keep(ring.recvmsg_multishot(pair.sock.fileno(), buffers, timeout=ENOUGH_S))
    pair.peer.sock.sendall(b"".join(pair.peer.seal(bytes((at,)) * 100, HANDSHAKE) for at in range(10)))
    got = [attempt(next, incoming) for _ in range(10)]
    pair.needs("recvmsg", got[0], "EINVAL")
    pair.expect("records in order", got == [(HANDSHAKE, bytes((at,)) * 100) for at in range(10)], wanted=True)


@promise("tls.rst, TLS 1.3 Key Updates", suites=TLS13)
def a_ring_is_told_of_a_missing_key(pair: Pair) -> None:
    """After a KeyUpdate was received, a receive through the ring says EKEYEXPIRED."""
    can_rekey(pair)
    ring, buffer, fd = ring_for(pair), bytearray(64), pair.sock.fileno()
    pair.peer.update_keys()
    pair.peer.send(b"after")
    pair.expect("recvmsg", ran(ring, Operation.recvmsg(fd, buffer)), len(KEY_UPDATE))
    pair.expect("recv", ran(ring, Operation.recv(fd, buffer)), "EKEYEXPIRED")
