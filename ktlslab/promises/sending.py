"""How sends become records: when one is made, how large, and what is refused."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import socket

from ktlslab.promises.check import Group, attempt
from ktlslab.promises.pair import DATA, Pair, pattern

promise = Group("send shaping")
FULL = 1 << 14  # the largest record's plaintext
MSG_ZEROCOPY = 0x4000000
SO_ZEROCOPY = 60


@promise("tls.rst, Sending TLS application data")
def a_send_is_a_record(pair: Pair) -> None:
    """Each send makes a record at once, of what was sent and nothing else."""
    for text in (b"one", b"two", b"three"):
        pair.expect("send", pair.send(text), len(text))
        pair.expect("record", pair.peer.record(), (DATA, text))


@promise("tls.rst, Sending TLS application data: 2^14")
def a_large_send_is_full_records_and_a_rest(pair: Pair) -> None:
    """40,000 bytes in one send become records of 16,384, 16,384 and 7,232 bytes."""
    pair.expect("send", pair.send(pattern(40_000)), 40_000)
    records = pair.peer.records(3)
    pair.expect("records", [len(data) for _, data in records], [FULL, FULL, 40_000 - 2 * FULL])
    pair.expect("their bytes", b"".join(data for _, data in records), pattern(40_000))


@promise("tls.rst, Sending TLS application data: MSG_MORE; selftest msg_more")
def msg_more_holds_the_record_open(pair: Pair) -> None:
    """With MSG_MORE nothing is sent; the next send without it makes one record of both."""
    pair.expect("send with MSG_MORE", pair.send(b"first, ", socket.MSG_MORE), 7)
    pair.expect("on the wire", pair.peer.quiet(), [])
    pair.expect("send", pair.send(b"second"), 6)
    pair.expect("record", pair.peer.record(), (DATA, b"first, second"))


@promise("selftest msg_more_unsent")
def what_msg_more_holds_is_not_sent_by_itself(pair: Pair) -> None:
    """A record held open by MSG_MORE does not leave in a while on its own."""
    pair.expect("send with MSG_MORE", pair.send(b"held", socket.MSG_MORE), 4)
    pair.expect("on the wire", pair.peer.quiet(), [])


@promise("tls.rst, Sending TLS application data: MSG_MORE")
def msg_more_lets_a_full_record_go(pair: Pair) -> None:
    """MSG_MORE holds back only what does not fill a record."""
    pair.expect("send with MSG_MORE", pair.send(pattern(FULL + 100), socket.MSG_MORE), FULL + 100)
    pair.expect("record", pair.peer.record(), (DATA, pattern(FULL)))
    pair.expect("of the rest", pair.peer.quiet(), [])
    pair.send(b"end")
    pair.expect("then", pair.peer.record(), (DATA, pattern(100, FULL) + b"end"))


@promise("selftest msg_eor")
def msg_eor_ends_the_record(pair: Pair) -> None:
    """MSG_EOR on a send ends the record that MSG_MORE had held open."""
    pair.send(b"begun, ", socket.MSG_MORE)
    sent = pair.send(b"ended", socket.MSG_EOR)
    pair.needs("send with MSG_EOR", sent, "EOPNOTSUPP", "EINVAL")
    pair.expect("send with MSG_EOR", sent, 5)
    pair.expect("record", pair.peer.record(), (DATA, b"begun, ended"))


@promise("selftest sendmsg_single")
def sendmsg_of_one_buffer_is_a_record(pair: Pair) -> None:
    """Sendmsg with one buffer and no control message is a send."""
    pair.expect("sendmsg", attempt(pair.sock.sendmsg, [b"one buffer"]), 10)
    pair.expect("record", pair.peer.record(), (DATA, b"one buffer"))


@promise("selftest sendmsg_fragmented")
def sendmsg_of_many_pieces_is_one_record(pair: Pair) -> None:
    """From 1 to 64 pieces in one sendmsg: each time one record, in order."""
    for count in (1, 2, 15, 16, 17, 18, 19, 31, 32, 33, 63, 64):
        pieces = [pattern(13, at) for at in range(count)]
        sent, record = attempt(pair.sock.sendmsg, pieces), pair.peer.record()
        if sent != 13 * count or record != (DATA, b"".join(pieces)):
            pair.expect(f"{count} pieces", (sent, record), (13 * count, (DATA, b"".join(pieces))))
    pair.expect("pieces in the last", count, 64)


@promise("selftest sendmsg_large")
def full_records_follow_each_other(pair: Pair) -> None:
    """Twelve sends of 16,384 bytes are as many records, every byte in its place."""
    good = 0
    for number in range(12):
        taken = attempt(pair.sock.sendmsg, [pattern(FULL, number)])
        good += taken == FULL and pair.peer.record() == (DATA, pattern(FULL, number))
    pair.expect("records of 16,384 bytes as sent", good, 12)


@promise("selftest sendmsg_multiple")
def sendmsg_keeps_the_order_of_buffers(pair: Pair) -> None:
    """Five buffers of different lengths arrive in their order."""
    buffers = [pattern(size, size) for size in (21, 1, 300, 5, 64)]
    pair.expect("sendmsg", attempt(pair.sock.sendmsg, buffers), 391)
    pair.expect("record", pair.peer.record(), (DATA, b"".join(buffers)))


@promise("selftest sendmsg_multiple_stress")
def sendmsg_takes_a_thousand_buffers(pair: Pair) -> None:
    """1,024 buffers of 16 bytes in one sendmsg are taken whole and arrive in order."""
    data = memoryview(pattern(FULL))
    buffers = [data[at : at + 16] for at in range(0, FULL, 16)]
    pair.expect("sendmsg", attempt(pair.sock.sendmsg, buffers), FULL)
    pair.expect("data", pair.peer.data(FULL), pattern(FULL))


@promise("send(2): a send of nothing sends nothing")
def an_empty_send_makes_no_record(pair: Pair) -> None:
    """Send of no bytes returns 0 and puts nothing on the wire."""
    pair.expect("send", pair.send(b""), 0)
    pair.expect("on the wire", pair.peer.quiet(), [])


@promise("experience: what kTLS cannot do it refuses")
def flags_that_cannot_be_kept_are_refused(pair: Pair) -> None:
    """MSG_WAITALL and MSG_OOB on a send say EOPNOTSUPP, and nothing leaves."""
    pair.expect("MSG_WAITALL", pair.send(b"x", socket.MSG_WAITALL), "EOPNOTSUPP")
    pair.expect("MSG_OOB", pair.send(b"x", socket.MSG_OOB), "EOPNOTSUPP")
    pair.expect("on the wire", pair.peer.quiet(), [])


@promise("experience: what kTLS cannot do it refuses")
def a_zero_copy_send_is_refused(pair: Pair) -> None:
    """MSG_ZEROCOPY says EOPNOTSUPP: the bytes must be sealed, so they are copied."""
    pair.sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    pair.expect("MSG_ZEROCOPY", pair.send(pattern(4096), MSG_ZEROCOPY), "EOPNOTSUPP")
    pair.expect("on the wire", pair.peer.quiet(), [])
