"""Records through an asynchronous cipher: what is still being sealed or opened when a call returns or the socket goes.

Each of these checks runs within `answers_later`: the kernel's end gets keys for both directions, and uses cryptd or
pcrypt, as /proc/crypto shows. Several are about a published vulnerability, and a kernel that has it may go down.
"""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import os
import socket
import time

from ktlslab.linux.ktls import Direction
from ktlslab.promises.broken import changed
from ktlslab.promises.check import TLS13, Group, attempt
from ktlslab.promises.cipher import answers_later
from ktlslab.promises.full import drained, fill
from ktlslab.promises.key_update import can_rekey, rekeyed
from ktlslab.promises.pair import ALERT, CLOSE_NOTIFY, DATA, HANDSHAKE, KEY_UPDATE, QUIET_S, Keys, Pair, pattern
from ktlslab.promises.splice_out import splice_through_pipe

promise = Group("an asynchronous cipher", within=answers_later)
FULL = 1 << 14
TICKET = b"\x04\x00\x00\x06ticket"


@promise("tls.rst, Sending TLS application data; kernel commit a42055e8d2c3", installed=())
def records_sealed_later_leave_in_order(pair: Pair) -> None:
    """A send of several records, many short ones and a file, through a queue, arrive whole and in order."""
    pair.expect("send", pair.send(pattern(100_000)), 100_000)
    pair.expect("short sends", sum(pair.send(pattern(size, size)) for size in range(1, 40)), 780)
    pair.expect("sendfile", attempt(os.sendfile, pair.sock.fileno(), pair.file(pattern(40_000, 7)), 0, 40_000), 40_000)
    short = b"".join(pattern(size, size) for size in range(1, 40))
    pair.expect("data", pair.peer.data(140_780), pattern(100_000) + short + pattern(40_000, 7))


@promise(
    "selftest msg_more_then_cmsg; tls.rst, Sending TLS control messages",
    installed=(),
    cve="CVE-2026-31533",
    mended=("5.15.203", "6.1.169", "6.6.135", "6.12.82", "6.18.23", "6.19.13"),
)
def msg_more_and_a_typed_record_are_sealed_later(pair: Pair) -> None:
    """What MSG_MORE held leaves as data before a record of another type, again and again."""
    for number in range(20):
        pair.send(pattern(number + 1), socket.MSG_MORE)
        pair.send_typed(TICKET, HANDSHAKE)
    wanted = [record for number in range(20) for record in ((DATA, pattern(number + 1)), (HANDSHAKE, TICKET))]
    pair.expect("records as sent", pair.peer.records(40) == wanted, wanted=True)


@promise(
    "close(2), tcp(7): queued data is still sent",
    installed=(),
    cve="CVE-2024-26585",
    mended=("5.15.165", "6.1.84", "6.6.18", "6.7.6"),
)
def closing_sends_what_is_still_being_sealed(pair: Pair) -> None:
    """Everything that sends took, and a close_notify, arrives though the socket is closed at once."""
    pair.expect("send", pair.send(pattern(60_000)), 60_000)
    pair.send_typed(CLOSE_NOTIFY, ALERT)
    pair.sock.close()
    pair.expect("data", drained(pair, 60_000), pattern(60_000))
    pair.expect("record", pair.peer.record(), (ALERT, CLOSE_NOTIFY))


@promise(
    "experience: a close while the cipher works",
    installed=(),
    cve="CVE-2024-26583",
    mended=("5.15.160", "6.1.79", "6.6.18", "6.7.6"),
)
def closing_with_records_unread_does_no_harm(pair: Pair) -> None:
    """A socket closed with records half read and others not opened yet leaves the kernel and other sockets in order."""
    for _ in range(4):
        with Pair(pair.suite, tuple(Direction)) as other:
            other.peer.sock.sendall(b"".join(other.peer.seal(pattern(FULL)) for _ in range(4)))
            other.settled()
            half_read = other.recv(FULL + 100, socket.MSG_WAITALL)
        pair.expect("recv", half_read, pattern(FULL) + pattern(100))
    pair.peer.send(b"in order")
    pair.expect("recv", pair.recv(64), b"in order")


@promise(
    "send(2): EAGAIN, and the number of bytes taken",
    installed=(),
    cve="CVE-2023-6176",
    mended=("5.15.132", "6.1.54", "6.5.4", "6.6"),
)
def a_full_socket_keeps_what_is_being_sealed(pair: Pair) -> None:
    """Non-blocking sends fill the socket, and everything they took arrives once the peer reads, and then more."""
    pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * FULL)
    taken = fill(pair, lambda at: pair.send(pattern(FULL, at % 251), socket.MSG_DONTWAIT))
    pair.expect("data", drained(pair, taken), pattern(taken))
    pair.expect("send", pair.send(b"more"), 4)
    pair.expect("record", pair.peer.record(), (DATA, b"more"))


@promise("selftest bad_in_large_read", installed=())
def good_records_before_a_changed_one_are_opened_later(pair: Pair) -> None:
    """Of three records, the last one changed, a large read gives the first two; then EBADMSG, for good."""
    good = pair.peer.seal(pattern(64)) + pair.peer.seal(pattern(64, 64))
    pair.peer.sock.sendall(good + changed(pair.peer.seal(pattern(64, 128))))
    pair.settled()
    pair.expect("recv", pair.recv(400), pattern(128))
    pair.expect("recv", pair.recv(400), "EBADMSG")
    pair.expect("recv", pair.recv(400), "EBADMSG")


@promise(
    "selftest zero_len",
    installed=(),
    cve="CVE-2025-39682",
    mended=("6.1.149", "6.6.103", "6.12.44", "6.16.4"),
)
def empty_records_are_opened_later(pair: Pair) -> None:
    """Empty records before, between and after data are passed over, and an empty control record ends the data."""
    parts = [(b"", DATA), (b"one", DATA), (b"", DATA), (b"", DATA), (b"two", DATA), (b"", DATA), (TICKET, HANDSHAKE)]
    pair.peer.sock.sendall(b"".join(pair.peer.seal(data, kind) for data, kind in parts))
    pair.settled()
    pair.expect("recvmsg", pair.recv_typed(64), (DATA, b"onetwo"))
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, TICKET))


@promise(
    "selftest recv_partial, recv_peek, recv_and_splice",
    installed=(),
    cve="CVE-2024-26582",
    mended=("6.1.79", "6.6.18", "6.7.6"),
)
def records_opened_later_are_read_in_parts(pair: Pair) -> None:
    """Large reads, small ones, peeks and a splice take eight records whole and in order."""
    data = pattern(8 * 3000)
    pair.peer.sock.sendall(b"".join(pair.peer.seal(data[at : at + 3000]) for at in range(0, len(data), 3000)))
    pair.settled()
    pair.expect("peek", pair.recv(100, socket.MSG_PEEK), data[:100])
    got = bytearray()
    for size in (4000, 10, 5000, 2990):
        part = pair.recv(size, socket.MSG_WAITALL)
        pair.expect(f"recv({size})", part, data[len(got) : len(got) + size])
        got += part
    part = splice_through_pipe(pair, pair.pipe(), 3000)
    pair.expect("splice", part, data[12_000:15_000])
    pair.expect("recv", pair.recv(9000, socket.MSG_WAITALL), data[15_000:])


@promise(
    "recv(2): a buffer is the program's own once the call returns",
    installed=(),
    cve="CVE-2025-40176",
    mended=("6.1.158", "6.6.114", "6.12.55", "6.17.5"),
)
def what_was_received_does_not_change(pair: Pair) -> None:
    """A buffer of four records holds them when recv returns, is then the program's own, and stays as it is."""
    pair.peer.sock.sendall(b"".join(pair.peer.seal(pattern(FULL, at)) for at in range(4)))
    pair.settled()
    buffer = bytearray(4 * FULL)
    got = pair.sock.recv_into(buffer, len(buffer), socket.MSG_WAITALL)
    at_once = bytes(buffer)
    pair.expect("recv", got, len(buffer))
    pair.expect("its bytes", at_once, b"".join(pattern(FULL, at) for at in range(4)))
    buffer[:] = bytes(len(buffer))
    time.sleep(QUIET_S)
    pair.expect("changed later", any(buffer), wanted=False)


@promise("selftest data_control_data", installed=())
def a_control_record_between_data_is_opened_later(pair: Pair) -> None:
    """Data, a control record, data: each comes by its own recvmsg, with its type."""
    parts = ((b"one", DATA), (b"two", DATA), (TICKET, HANDSHAKE), (b"three", DATA))
    pair.peer.sock.sendall(b"".join(pair.peer.seal(data, kind) for data, kind in parts))
    pair.settled()
    for wanted in ((DATA, b"onetwo"), (HANDSHAKE, TICKET), (DATA, b"three")):
        pair.expect("recvmsg", pair.recv_typed(64), wanted)


@promise("tls.rst, TLS 1.3 Key Updates", suites=TLS13, installed=())
def new_keys_wait_for_what_is_being_sealed(pair: Pair) -> None:
    """Keys set again behind a large send, both ways: what came before has the old key, what follows the new one."""
    can_rekey(pair)
    pair.expect("send", pair.send(pattern(60_000)), 60_000)
    pair.send_typed(KEY_UPDATE, HANDSHAKE)
    rekeyed(pair, Direction.TX)
    pair.send(b"after")
    pair.expect("data", pair.peer.data(60_000), pattern(60_000))
    pair.expect("record", pair.peer.record(), (HANDSHAKE, KEY_UPDATE))
    pair.peer.opening, pair.peer.opened = Keys(pair.suite, Direction.TX, 1), 0
    pair.expect("record", pair.peer.record(), (DATA, b"after"))
    pair.peer.update_keys()
    pair.peer.send(b"after")
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, KEY_UPDATE))
    rekeyed(pair, Direction.RX)
    pair.expect("recv", pair.recv(64), b"after")
