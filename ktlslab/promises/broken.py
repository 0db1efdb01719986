"""Input that is not a record, is a changed record, or belongs elsewhere."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import socket

from ktlslab.linux.counters import Counters
from ktlslab.promises.check import Group
from ktlslab.promises.pair import ALERT, CLOSE_NOTIFY, HANDSHAKE, Pair, pattern
from ktlslab.promises.splice_out import SPLICE_F_NONBLOCK, splice_through_pipe

promise = Group("broken input")
ERRORS = "tls.rst, Receiving TLS application data"
BAD_RECORD_MAC = b"\x02\x14"  # a fatal alert, RFC 8446 6.2


def changed(record: bytes) -> bytes:
    """Return a record with its last bit flipped."""
    return record[:-1] + bytes((record[-1] ^ 1,))


@promise(f"{ERRORS}: EINVAL")
def another_version_says_einval(pair: Pair) -> None:
    """A header with another TLS version says EINVAL."""
    record = pair.peer.seal(b"other version")
    pair.peer.sock.sendall(record[:2] + b"\x02" + record[3:])
    pair.expect("recv", pair.recv(64), "EINVAL")


@promise(f"{ERRORS}: EMSGSIZE")
def too_large_a_record_says_emsgsize(pair: Pair) -> None:
    """A header that announces 20,000 bytes says EMSGSIZE before they come."""
    pair.peer.sock.sendall(b"\x17\x03\x03" + (20_000).to_bytes(2, "big") + bytes(100))
    pair.expect("recv", pair.recv(64), "EMSGSIZE")


@promise("selftest bad_rec")
def what_is_no_record_is_reported_once(pair: Pair) -> None:
    """Sixty-four bytes of 0x55 say EMSGSIZE, and then there is nothing."""
    pair.peer.sock.sendall(b"\x55" * 64)
    pair.expect("recv", pair.recv(64), "EMSGSIZE")
    pair.expect("recv again", pair.recv_now(64), "EAGAIN")


@promise("a user's expectation: a stream that cannot go on says so")
def what_is_no_record_stays_an_error(pair: Pair) -> None:
    """After bytes that are no record, every receive is an error, so that no program waits for more."""
    pair.peer.sock.sendall(b"\x55" * 64)
    pair.expect("recv", pair.recv(64), "EMSGSIZE")
    pair.one_of("recv again", pair.recv_now(64), ("EMSGSIZE", "EBADMSG", "EINVAL"))


@promise(f"{ERRORS}: EBADMSG; selftest bad_auth")
def a_changed_record_says_ebadmsg_for_good(pair: Pair) -> None:
    """A record that does not authenticate says EBADMSG, and again."""
    pair.peer.sock.sendall(changed(pair.peer.seal(pattern(64))))
    pair.expect("recv", pair.recv(128), "EBADMSG")
    pair.expect("recv again", pair.recv(128), "EBADMSG")


@promise("selftest bad_auth_splice")
def a_changed_record_stops_splices_too(pair: Pair) -> None:
    """After EBADMSG a splice says EBADMSG as well."""
    pair.peer.sock.sendall(changed(pair.peer.seal(pattern(64))))
    pair.expect("recv", pair.recv(128), "EBADMSG")
    pair.expect("splice", splice_through_pipe(pair, pair.pipe(), 128, SPLICE_F_NONBLOCK), "EBADMSG")


@promise("selftest bad_in_large_read")
def good_records_before_a_changed_one_are_given(pair: Pair) -> None:
    """Of three records, the last one changed, a large read gives the first two; then EBADMSG, for good."""
    good = pair.peer.seal(pattern(64)) + pair.peer.seal(pattern(64, 64))
    pair.peer.sock.sendall(good + changed(pair.peer.seal(pattern(64, 128))))
    pair.settled()
    pair.expect("recv", pair.recv(400), pattern(128))
    pair.expect("recv", pair.recv(400), "EBADMSG")
    pair.expect("recv", pair.recv(400), "EBADMSG")


@promise("selftest bad_cmsg")
def a_changed_control_record_says_ebadmsg(pair: Pair) -> None:
    """Data, then a changed control record: the data, then EBADMSG, for good."""
    pair.peer.send(pattern(64))
    pair.peer.sock.sendall(changed(pair.peer.seal(b"\x04\x00\x00\x06ticket", HANDSHAKE)))
    pair.settled()
    pair.expect("recv", pair.recv(128), pattern(64))
    pair.expect("recv", pair.recv(128), "EBADMSG")
    pair.expect("recvmsg", pair.recv_typed(128), "EBADMSG")


@promise(f"{ERRORS}: EBADMSG")
def a_record_sent_twice_says_ebadmsg(pair: Pair) -> None:
    """A record repeated on the wire does not open a second time."""
    record = pair.peer.seal(b"once")
    pair.peer.sock.sendall(record + record)
    pair.expect("recv", pair.recv(4), b"once")
    pair.expect("recv of its copy", pair.recv(64), "EBADMSG")


@promise(f"{ERRORS}: EBADMSG")
def a_dropped_record_is_noticed(pair: Pair) -> None:
    """A record that follows one that never came does not open."""
    pair.peer.seal(b"dropped")
    pair.peer.send(b"next")
    pair.expect("recv", pair.recv(64), "EBADMSG")


@promise("tls.rst, Statistics: TlsDecryptError")
def a_changed_record_is_counted(pair: Pair) -> None:
    """TlsDecryptError rises by one for one changed record, read once."""
    before = Counters.read()
    pair.peer.sock.sendall(changed(pair.peer.seal(b"changed")))
    pair.expect("recv", pair.recv(64), "EBADMSG")
    pair.expect("TlsDecryptError", (Counters.read() - before)["TlsDecryptError"], 1)


@promise("a user's expectation of TlsDecryptError: it counts records")
def reading_a_changed_record_again_is_not_counted(pair: Pair) -> None:
    """TlsDecryptError counts records: five reads of one changed record count one."""
    before = Counters.read()
    pair.peer.sock.sendall(changed(pair.peer.seal(b"changed")))
    for _ in range(5):
        pair.recv(64)
    pair.expect("TlsDecryptError", (Counters.read() - before)["TlsDecryptError"], 1)


@promise("RFC 8446 5.2: bad_record_mac is sent")
def an_alert_can_be_sent_after_a_changed_record(pair: Pair) -> None:
    """After EBADMSG on receive, a fatal alert can be sent at once."""
    pair.peer.sock.sendall(changed(pair.peer.seal(b"changed")))
    pair.expect("recv", pair.recv(64), "EBADMSG")
    pair.expect("sendmsg of an alert", pair.send_typed(BAD_RECORD_MAC, ALERT), 2)
    pair.expect("record", pair.peer.record(), (ALERT, BAD_RECORD_MAC))


@promise("experience: SO_ERROR is to be read first")
def after_so_error_was_read_an_alert_can_be_sent(pair: Pair) -> None:
    """After EBADMSG on receive and a look at SO_ERROR, a fatal alert goes out."""
    pair.peer.sock.sendall(changed(pair.peer.seal(b"changed")))
    pair.expect("recv", pair.recv(64), "EBADMSG")
    pair.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    pair.expect("sendmsg of an alert", pair.send_typed(BAD_RECORD_MAC, ALERT), 2)
    pair.expect("record", pair.peer.record(), (ALERT, BAD_RECORD_MAC))


@promise("RFC 8446 5.2: a plaintext record is unexpected")
def a_record_in_clear_is_not_given(pair: Pair) -> None:
    """A record that was never sealed is an error, not data."""
    pair.peer.sock.sendall(b"\x17\x03\x03\x00\x20" + b"A plaintext record of 32 bytes!!")
    pair.expect("recv", pair.recv(64), "EBADMSG")
    pair.send(b"meanwhile")
    pair.expect("and nothing else", pair.recv_now(64), "EBADMSG")


@promise("RFC 8446 5.2, RFC 5246 6.2.3.3: a record's type is authenticated")
def a_changed_type_is_noticed(pair: Pair) -> None:
    """A record whose header was changed from data to alert does not open."""
    record = pair.peer.seal(CLOSE_NOTIFY)
    pair.peer.sock.sendall(bytes((ALERT,)) + record[1:])
    pair.expect("recvmsg", pair.recv_typed(64), "EBADMSG")
