"""Sends, splices and closes through io_uring, where no process waits in a system call."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import os
import socket

from ktlslab.linux.operations import Operation
from ktlslab.promises.check import Group, attempt
from ktlslab.promises.pair import ALERT, CLOSE_NOTIFY, DATA, ENOUGH_S, QUIET_S, Pair, pattern
from ktlslab.promises.uring import finished, ran, ring_for, told

promise = Group("io_uring sending")
FULL = 1 << 14
TOO_MUCH = 4 << 20  # more than the buffers of both ends take


@promise("io_uring_prep_send(3)")
def a_ring_sends_a_record(pair: Pair) -> None:
    """IORING_OP_SEND makes one record of what was sent."""
    pair.expect("send", ran(ring_for(pair), Operation.send(pair.sock.fileno(), b"by the ring")), 11)
    pair.expect("record", pair.peer.record(), (DATA, b"by the ring"))


@promise("io_uring_prep_sendmsg(3); tls.rst, Send TLS control messages")
def a_ring_sends_a_typed_record(pair: Pair) -> None:
    """IORING_OP_SENDMSG with TLS_SET_RECORD_TYPE makes a record of that type."""
    operation = Operation.sendmsg(pair.sock.fileno(), CLOSE_NOTIFY, ALERT)
    pair.expect("sendmsg", ran(ring_for(pair), operation), 2)
    pair.expect("record", pair.peer.record(), (ALERT, CLOSE_NOTIFY))


@promise("io_uring_prep_send(3): MSG_MORE")
def a_ring_holds_a_record_open(pair: Pair) -> None:
    """MSG_MORE holds the record open, and the next send makes one record of both."""
    ring, fd = ring_for(pair), pair.sock.fileno()
    pair.expect("send with MSG_MORE", ran(ring, Operation.send(fd, b"first, ", flags=socket.MSG_MORE)), 7)
    pair.expect("on the wire", pair.peer.quiet(), [])
    pair.expect("send", ran(ring, Operation.send(fd, b"second")), 6)
    pair.expect("record", pair.peer.record(), (DATA, b"first, second"))


@promise("io_uring_enter(2), IOSQE_IO_LINK")
def linked_sends_keep_their_order(pair: Pair) -> None:
    """Eight linked sends, submitted at once, are eight records in that order."""
    texts = [f"number {at}".encode() for at in range(8)]
    fd = pair.sock.fileno()
    sends = [Operation.send(fd, text, linked=text is not texts[-1]) for text in texts]
    pair.expect("sends", ran(ring_for(pair), *sends), [8] * 8)
    pair.expect("records in order", pair.peer.records(8) == [(DATA, text) for text in texts], wanted=True)


def chained(pair: Pair, first: Operation, second: Operation) -> None:
    """Link a send that cannot complete with another: the second must be cancelled, or its bytes come too early."""
    ring = ring_for(pair)
    pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 60_000)
    pair.sock.settimeout(0)
    tokens = ring.start(first, second)
    done = {completion.token: told(completion.result) for completion in ring.reap(2, timeout=ENOUGH_S)}
    if tokens[1] not in done:
        ring.cancel(tokens[0])
    result = done.get(tokens[0]) or finished(ring, tokens[0])
    pair.expect("the first came out short", isinstance(result, int) and 0 < result < TOO_MUCH, wanted=True)
    pair.expect("the one behind it", done.get(tokens[1]) or finished(ring, tokens[1], QUIET_S), "ECANCELED")


@promise("a user's expectation of IOSQE_IO_LINK: for sends it takes MSG_WAITALL, which kTLS refuses")
def a_short_linked_send_stops_the_next(pair: Pair) -> None:
    """Where a linked IORING_OP_SEND comes out short, the send behind it is cancelled: no byte comes before its turn."""
    data, fd = bytearray(TOO_MUCH), pair.sock.fileno()
    chained(pair, Operation.send(fd, data, linked=True), Operation.send(fd, b"too early"))


@promise("io_uring_enter(2), IOSQE_IO_LINK: a short one breaks the chain")
def a_short_linked_write_stops_the_next(pair: Pair) -> None:
    """Where a linked IORING_OP_WRITE comes out short, the write behind it is cancelled."""
    data, fd = bytearray(TOO_MUCH), pair.sock.fileno()
    chained(pair, Operation.write(fd, data, linked=True), Operation.write(fd, b"too early"))


@promise("experience: what kTLS cannot do it refuses")
def a_ring_is_refused_msg_waitall(pair: Pair) -> None:
    """A send with MSG_WAITALL, by which io_uring would send all, says EOPNOTSUPP."""
    operation = Operation.send(pair.sock.fileno(), b"all of it", flags=socket.MSG_WAITALL)
    pair.expect("send", ran(ring_for(pair), operation), "EOPNOTSUPP")
    pair.expect("on the wire", pair.peer.quiet(), [])


@promise("io_uring_prep_send_zc(3): a result and a notification")
def a_ring_is_refused_a_zero_copy_send(pair: Pair) -> None:
    """IORING_OP_SEND_ZC says EOPNOTSUPP, and then still notifies that the buffer is free."""
    ring = ring_for(pair)
    (token,) = ring.start(Operation.send_zc(pair.sock.fileno(), pattern(4096)))
    done = ring.reap(1, timeout=ENOUGH_S)
    pair.needs("send_zc", told(done[0].result), "EINVAL")
    pair.expect("send_zc", told(done[0].result), "EOPNOTSUPP")
    pair.expect("another completion follows", done[0].more, wanted=True)
    done += [] if len(done) > 1 else ring.reap(1, timeout=ENOUGH_S)
    pair.expect("a notification", [one.notification for one in done if one.token == token][1:], [True])
    pair.expect("on the wire", pair.peer.quiet(), [])


@promise("io_uring_prep_write(3)")
def a_ring_writes_a_record(pair: Pair) -> None:
    """IORING_OP_WRITE makes a record as write(2) does."""
    pair.expect("write", ran(ring_for(pair), Operation.write(pair.sock.fileno(), b"written")), 7)
    pair.expect("record", pair.peer.record(), (DATA, b"written"))


@promise("io_uring_prep_write_fixed(3), io_uring_register_buffers(3)")
def a_ring_writes_from_a_registered_buffer(pair: Pair) -> None:
    """IORING_OP_WRITE_FIXED seals straight out of a registered buffer."""
    ring, buffer = ring_for(pair), bytearray(pattern(FULL))
    refused = attempt(ring.register_buffers, [buffer])
    pair.expect("register", refused, None)
    pair.expect("write", ran(ring, Operation.write_fixed(pair.sock.fileno(), buffer, 0)), FULL)
    pair.expect("data", pair.peer.data(FULL), pattern(FULL))


@promise("io_uring_register_files(3), IOSQE_FIXED_FILE")
def a_registered_socket_sends_and_receives(pair: Pair) -> None:
    """A kTLS socket registered with the ring is used by its index."""
    ring, buffer = ring_for(pair), bytearray(64)
    pair.expect("register", attempt(ring.register_files, [pair.sock.fileno()]), None)
    pair.expect("send", ran(ring, Operation.send(0, b"by its index", fixed_file=True)), 12)
    pair.expect("record", pair.peer.record(), (DATA, b"by its index"))
    pair.peer.send(b"back")
    pair.expect("recv", ran(ring, Operation.recv(0, buffer, fixed_file=True)), 4)
    pair.expect("received", bytes(buffer[:4]), b"back")


@promise("io_uring_prep_splice(3)")
def a_ring_splices_a_pipe_in(pair: Pair) -> None:
    """IORING_OP_SPLICE from a pipe makes records of what lies in it."""
    reading, writing = pair.pipe()
    os.write(writing, pattern(FULL))
    pair.expect("splice", ran(ring_for(pair), Operation.splice(reading, pair.sock.fileno(), FULL)), FULL)
    pair.expect("data", pair.peer.data(FULL), pattern(FULL))


@promise("io_uring_prep_splice(3), IOSQE_IO_LINK")
def a_ring_sends_a_file_by_two_splices(pair: Pair) -> None:
    """io_uring has no sendfile; two linked splices, file to pipe and pipe to socket, are one submission."""
    file, (reading, writing) = pair.file(pattern(FULL)), pair.pipe()
    fill = Operation.splice(file, writing, FULL, offset_in=0, linked=True)
    pair.expect("splices", ran(ring_for(pair), fill, Operation.splice(reading, pair.sock.fileno(), FULL)), [FULL] * 2)
    pair.expect("data", pair.peer.data(FULL), pattern(FULL))


@promise("io_uring_prep_shutdown(3); RFC 8446 6.1")
def a_ring_ends_in_order(pair: Pair) -> None:
    """A close_notify and a shutdown linked behind it arrive as alert and end of stream."""
    fd = pair.sock.fileno()
    alert = Operation.sendmsg(fd, CLOSE_NOTIFY, ALERT, linked=True)
    pair.expect("sendmsg, shutdown", ran(ring_for(pair), alert, Operation.shutdown(fd, socket.SHUT_WR)), [2, 0])
    pair.expect("record", pair.peer.record(), (ALERT, CLOSE_NOTIFY))
    pair.expect("then", attempt(pair.peer.sock.recv, 64), b"")


@promise("io_uring_prep_close(3)")
def a_ring_closes_after_its_send(pair: Pair) -> None:
    """A send and a close linked behind it: the record arrives, then the end of the stream."""
    ring, fd = ring_for(pair), pair.sock.detach()
    pair.expect("send, close", ran(ring, Operation.send(fd, b"last", linked=True), Operation.close(fd)), [4, 0])
    pair.expect("record", pair.peer.record(), (DATA, b"last"))
    pair.expect("then", attempt(pair.peer.sock.recv, 64), b"")
