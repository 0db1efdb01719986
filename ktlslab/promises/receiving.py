"""How receives return records: how many at once, how much of one, and when there is nothing yet."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import socket

from ktlslab.linux import ktls
from ktlslab.promises.check import Group, attempt
from ktlslab.promises.pair import DATA, Pair, pattern

promise = Group("receive shaping")
FULL = 1 << 14
ALL = socket.MSG_WAITALL


@promise("tls.rst, Receiving TLS application data")
def nothing_comes_before_the_whole_record(pair: Pair) -> None:
    """All but the last byte of a record gives nothing; with that byte the whole record comes."""
    record = pair.peer.seal(b"whole or not at all")
    pair.peer.sock.sendall(record[:-1])
    pair.settled()
    pair.expect("recv before the last byte", pair.recv_now(64), "EAGAIN")
    pair.peer.sock.sendall(record[-1:])
    pair.expect("recv after it", pair.recv(64), b"whole or not at all")


@promise("selftest recv_max")
def a_full_record_comes_in_one_receive(pair: Pair) -> None:
    """A record of 16,384 bytes comes whole into a buffer of that size."""
    pair.peer.send(pattern(FULL))
    pair.expect("recv", pair.recv(FULL), pattern(FULL))


@promise("selftest recv_small")
def a_small_record_comes_in_one_receive(pair: Pair) -> None:
    """A record of 10 bytes comes into a buffer of just that size."""
    pair.peer.send(b"ten bytes!")
    pair.expect("recv", pair.recv(10), b"ten bytes!")


@promise("selftest recv_partial")
def a_record_can_be_read_in_parts(pair: Pair) -> None:
    """Two receives with MSG_WAITALL take the two parts of one record."""
    pair.peer.send(b"first,second")
    pair.expect("recv of 6", pair.recv(6, ALL), b"first,")
    pair.expect("recv of the rest", pair.recv(6, ALL), b"second")


@promise("selftest single_send_multiple_recv_non_align")
def the_last_part_of_a_record_is_what_is_left(pair: Pair) -> None:
    """Of a record of 15 bytes, reads of 10 give 10 and then 5."""
    pair.peer.send(pattern(15))
    pair.expect("recv", pair.recv(10), pattern(10))
    pair.expect("recv", pair.recv(10), pattern(5, 10))


@promise("selftest recv_nonblock")
def nothing_there_says_eagain(pair: Pair) -> None:
    """MSG_DONTWAIT with no record there says EAGAIN."""
    pair.expect("recv", pair.recv_now(4096), "EAGAIN")


@promise("selftest recv_lowat")
def a_low_water_mark_does_not_keep_back_less(pair: Pair) -> None:
    """With SO_RCVLOWAT 8, receives of less than 8 bytes get what they ask for, and the last all that is left."""
    pair.peer.send(pattern(10))
    pair.peer.send(pattern(5, 10))
    pair.settled()
    pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 8)
    pair.expect("recv of 1", pair.recv(1, ALL), pattern(1))
    pair.expect("recv of 6", pair.recv(6, ALL), pattern(6, 1))
    pair.expect("recv of 10", pair.recv(10), pattern(8, 7))


@promise("selftest recvmsg_single")
def recvmsg_without_control_gets_data(pair: Pair) -> None:
    """Recvmsg with no room for a record's type gets data like recv."""
    pair.peer.send(b"just data")
    data, control, _, _ = pair.sock.recvmsg(64)
    pair.expect("recvmsg", data, b"just data")
    pair.expect("control messages", control, [])


@promise("selftest recvmsg_single_max")
def recvmsg_gets_a_full_record(pair: Pair) -> None:
    """A record of 16,384 bytes comes whole by recvmsg, with its type if there is room for it."""
    pair.peer.send(pattern(FULL))
    pair.expect("recvmsg", pair.recv_typed(FULL), (DATA, pattern(FULL)))


@promise("selftest recvmsg_multiple")
def recvmsg_fills_a_thousand_buffers(pair: Pair) -> None:
    """A record of 16,384 bytes is spread over 1,024 buffers of 16."""
    pair.peer.send(pattern(FULL))
    buffers = [bytearray(16) for _ in range(1024)]
    count, _, _, _ = pair.sock.recvmsg_into(buffers)
    pair.expect("recvmsg", count, FULL)
    pair.expect("the buffers hold", b"".join(buffers), pattern(FULL))


@promise("selftest single_send_multiple_recv")
def full_records_come_one_by_one_where_the_buffer_says_so(pair: Pair) -> None:
    """Two full records come in two receives of 16,384 bytes."""
    pair.peer.send(pattern(FULL))
    pair.peer.send(pattern(FULL, FULL))
    pair.expect("recv", pair.recv(FULL), pattern(FULL))
    pair.expect("recv", pair.recv(FULL), pattern(FULL, FULL))


@promise("selftest multiple_send_single_recv")
def msg_waitall_goes_over_records(pair: Pair) -> None:
    """MSG_WAITALL for 20 bytes takes two records of 10, the second of which comes later."""
    first, second = pair.peer.seal(pattern(10)), pair.peer.seal(pattern(10, 10))
    pair.peer.sock.sendall(first + second[:7])
    pair.settled()
    pair.peer.sock.sendall(second[7:])
    pair.expect("recv", pair.recv(20, ALL), pattern(20))


@promise("selftest zero_len data_data_data; asked in dotnet/runtime 125110")
def one_receive_takes_several_records(pair: Pair) -> None:
    """Three data records of 11 bytes that are there come in one receive of 33, typed or not."""
    for receive in (pair.recv, lambda size: pair.recv_typed(size)[1]):
        pair.peer.sock.sendall(b"".join(pair.peer.seal(b"Hello world") for _ in range(3)))
        pair.settled()
        pair.expect("one receive", receive(100), b"Hello world" * 3)


@promise("tls.rst, Receiving TLS control messages: data (23)")
def data_says_its_type_where_there_is_room(pair: Pair) -> None:
    """Recvmsg with room for a type names application data as 23."""
    pair.peer.send(b"data")
    _, control, _, _ = pair.sock.recvmsg(64, ktls.RECORD_TYPE_SPACE)
    pair.expect("control", control, [(ktls.SOL_TLS, ktls.TLS_GET_RECORD_TYPE, bytes((DATA,)))])


@promise("selftest bidir")
def both_directions_work_at_once(pair: Pair) -> None:
    """A socket with both keys sends and receives, neither waiting for the other."""
    pair.peer.send(b"from the peer")
    pair.expect("send before reading", pair.send(b"to the peer"), 11)
    pair.expect("the peer got", pair.peer.record(), (DATA, b"to the peer"))
    pair.expect("recv", pair.recv(64), b"from the peer")


@promise("recv(2), MSG_TRUNC on a stream; tcp(7)")
def msg_trunc_throws_data_away(pair: Pair) -> None:
    """As on TCP, MSG_TRUNC discards what it counts, and the next receive goes on after it."""
    pair.peer.send(b"drop me,keep me")
    got = attempt(pair.sock.recv, 8, socket.MSG_TRUNC)
    pair.expect("recv with MSG_TRUNC took", len(got), 8)
    pair.expect("recv", pair.recv(64), b"keep me")
