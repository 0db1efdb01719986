"""Records that are not data: alerts and handshake messages, which are received with their type."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import socket

from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.promises.check import Group, attempt
from ktlslab.promises.pair import ALERT, CLOSE_NOTIFY, DATA, HANDSHAKE, QUIET_S, Pair, readable

promise = Group("control records")
TICKET = b"\x04\x00\x00\x06ticket"  # a handshake message that a server may send at any time
PEEK, ALL = socket.MSG_PEEK, socket.MSG_WAITALL


@promise("tls.rst, Send TLS control messages")
def a_typed_send_is_a_record_of_that_type(pair: Pair) -> None:
    """Sendmsg with TLS_SET_RECORD_TYPE makes one record of the type named."""
    pair.expect("sendmsg", pair.send_typed(CLOSE_NOTIFY, ALERT), 2)
    pair.expect("record", pair.peer.record(), (ALERT, CLOSE_NOTIFY))
    pair.expect("sendmsg", pair.send_typed(TICKET, HANDSHAKE), len(TICKET))
    pair.expect("record", pair.peer.record(), (HANDSHAKE, TICKET))


@promise("tls.rst, Receiving TLS control messages; selftest control_msg")
def a_control_record_comes_with_its_type(pair: Pair) -> None:
    """Recvmsg with room for a type gets a control record, by MSG_PEEK as well."""
    pair.peer.send(TICKET, HANDSHAKE)
    pair.expect("recv has no room", pair.recv(64), "EIO")
    pair.expect("peek", pair.recv_typed(64, ALL | PEEK)[0], HANDSHAKE)
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, TICKET))


@promise("tls.rst, Receiving TLS control messages")
def a_plain_receive_loses_no_control_record(pair: Pair) -> None:
    """Recv says EIO on a control record, as often as it is asked, until recvmsg takes it."""
    pair.peer.send(b"before")
    pair.peer.send(TICKET, HANDSHAKE)
    pair.peer.send(b"after")
    pair.settled()
    pair.expect("recv", pair.recv(64), b"before")
    for _ in range(3):
        pair.expect("recv", pair.recv(64), "EIO")
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, TICKET))
    pair.expect("recv", pair.recv(64), b"after")


@promise("tls.rst, Receiving TLS control messages: mixed types; selftest control_msg_nomerge")
def control_records_are_not_merged(pair: Pair) -> None:
    """Two handshake records come by two receives, however large the buffer; peeks see only the first."""
    pair.peer.sock.sendall(pair.peer.seal(b"1111", HANDSHAKE) + pair.peer.seal(b"2222", HANDSHAKE))
    pair.settled()
    for _ in range(2):
        pair.expect("peek", pair.recv_typed(64, PEEK), (HANDSHAKE, b"1111"))
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, b"1111"))
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, b"2222"))


@promise("tls.rst, Receiving TLS control messages: mixed types; selftest data_control_data")
def data_and_control_are_not_mixed(pair: Pair) -> None:
    """Of data, control, data each comes by itself, though all are there."""
    for data, kind in ((b"1111", DATA), (b"2222", HANDSHAKE), (b"3333", DATA)):
        pair.peer.send(data, kind)
    pair.settled()
    for _ in range(2):
        pair.expect("peek", pair.recv(64, PEEK), b"1111")
    for data, kind in ((b"1111", DATA), (b"2222", HANDSHAKE), (b"3333", DATA)):
        pair.expect("recvmsg", pair.recv_typed(64), (kind, data))


@promise("selftest cmsg_msg_more")
def a_control_record_cannot_be_held_open(pair: Pair) -> None:
    """MSG_MORE with a type that is not data says EINVAL."""
    pair.expect("sendmsg", pair.send_typed(TICKET, HANDSHAKE, socket.MSG_MORE), "EINVAL")
    pair.expect("on the wire", pair.peer.quiet(), [])


@promise("selftest msg_more_then_cmsg")
def a_control_record_lets_open_data_go_first(pair: Pair) -> None:
    """Data that MSG_MORE held open leaves as its own record before a control record."""
    pair.send(b"held open", socket.MSG_MORE)
    pair.expect("on the wire", pair.peer.quiet(), [])
    pair.expect("sendmsg", pair.send_typed(CLOSE_NOTIFY, ALERT), 2)
    pair.expect("records", pair.peer.records(2), [(DATA, b"held open"), (ALERT, CLOSE_NOTIFY)])


@promise("tls.rst, Send TLS control messages")
def a_wrong_control_message_is_refused(pair: Pair) -> None:
    """A control message of another number or of the wrong length says EINVAL, and nothing leaves."""
    for kind, value in ((77, b"\x15"), (ktls.TLS_SET_RECORD_TYPE, b"")):
        sent = attempt(pair.sock.sendmsg, [b"x"], [(ktls.SOL_TLS, kind, value)])
        pair.expect(f"control message {kind} of {len(value)} bytes", sent, "EINVAL")
    pair.expect("on the wire", pair.peer.quiet(), [])


@promise("a user's expectation: naming a record type never sends in clear", installed=(Direction.RX,))
def without_send_keys_a_record_type_is_refused(pair: Pair) -> None:
    """On a socket with TLS_RX alone, sendmsg with a record type is refused and puts nothing on the wire."""
    sent = pair.send_typed(CLOSE_NOTIFY, ALERT)
    came = pair.peer.sock.recv(64) if readable(pair.peer.sock, QUIET_S) else b""
    pair.expect("on the wire", came, b"")
    pair.expect("sendmsg", sent, "EINVAL")
