"""Empty records, and records with padding (RFC 8446 5.4)."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import socket
from typing import Any

from ktlslab.linux.counters import Counters
from ktlslab.promises.check import TLS13, Group
from ktlslab.promises.pair import DATA, HANDSHAKE, Pair, pattern
from ktlslab.promises.readback import TLS_RX_EXPECT_NO_PAD, set_option
from ktlslab.promises.splice_out import SPLICE_F_NONBLOCK, splice_through_pipe

promise = Group("empty and padded records")
PEEK = socket.MSG_PEEK
HELLO = b"Hello world"
NOTHING, TEXT = (b"", DATA), (HELLO, DATA)
NO_MESSAGE, MESSAGE = (b"", HANDSHAKE), (HELLO, HANDSHAKE)


def given(pair: Pair, *records: tuple[bytes, int]) -> list[Any]:
    """Send records together and return the results of typed receives, up to EAGAIN."""
    pair.peer.sock.sendall(b"".join(pair.peer.seal(data, kind) for data, kind in records))
    pair.settled()
    got: list[Any] = []
    while len(got) <= len(records) and (not got or got[-1] != "EAGAIN"):
        got.append(pair.recv_typed(128, socket.MSG_DONTWAIT))
    return got


def no_padding_expected(pair: Pair) -> None:
    """Tell the kernel to expect no padding. Absent where it has no such option."""
    answer = set_option(pair.sock, TLS_RX_EXPECT_NO_PAD, 1)
    pair.needs("TLS_RX_EXPECT_NO_PAD", answer, "ENOPROTOOPT")
    pair.expect("TLS_RX_EXPECT_NO_PAD", answer, "done")


@promise("selftest zero_len 0data_0data_data, data_0data_0data, 0data_0data_0data")
def empty_data_records_are_passed_over(pair: Pair) -> None:
    """Data records with nothing in them give no receive of 0 bytes, which would mean the end of the stream."""
    pair.expect("before data", given(pair, NOTHING, NOTHING, TEXT), [(DATA, HELLO), "EAGAIN"])
    pair.expect("after data", given(pair, TEXT, NOTHING, NOTHING), [(DATA, HELLO), "EAGAIN"])
    pair.expect("alone", given(pair, NOTHING, NOTHING, NOTHING), ["EAGAIN"])


@promise("selftest zero_len data_0ctrl_data, 0ctrl_0ctrl_0ctrl")
def empty_control_records_are_given(pair: Pair) -> None:
    """Each control record with nothing in it is a receive of 0 bytes with its type."""
    empty = (HANDSHAKE, b"")
    pair.expect("between data", given(pair, TEXT, NO_MESSAGE, TEXT), [(DATA, HELLO), empty, (DATA, HELLO), "EAGAIN"])
    pair.expect("three", given(pair, NO_MESSAGE, NO_MESSAGE, NO_MESSAGE), [empty] * 3 + ["EAGAIN"])


@promise("selftest zero_len 0data_0data_ctrl, 0data_0data_0ctrl")
def empty_data_before_a_control_record_is_given(pair: Pair) -> None:
    """Empty data records before a control record give one receive of 0 bytes, then the control record comes."""
    message = (HANDSHAKE, HELLO)
    pair.expect("before a message", given(pair, NOTHING, NOTHING, MESSAGE), [(DATA, b""), message, "EAGAIN"])
    empty = (HANDSHAKE, b"")
    pair.expect("before an empty one", given(pair, NOTHING, NOTHING, NO_MESSAGE), [(DATA, b""), empty, "EAGAIN"])


@promise("selftest zero_len_peek")
def a_peek_goes_past_empty_records(pair: Pair) -> None:
    """MSG_PEEK shows the data behind empty records, and says EAGAIN where there is none behind them."""
    pair.peer.sock.sendall(b"".join(pair.peer.seal(data) for data in (b"", b"", HELLO)))
    pair.settled()
    pair.expect("peek", pair.recv_now(128, PEEK), HELLO)
    pair.expect("recv", pair.recv_now(128), HELLO)
    pair.expect("recv again", pair.recv_now(128), "EAGAIN")
    pair.peer.sock.sendall(b"".join(pair.peer.seal(b"") for _ in range(3)))
    pair.settled()
    pair.expect("peek at empty records alone", pair.recv_now(128, PEEK), "EAGAIN")


@promise("selftest zero_len_splice 0data_data, 0data_0data_data")
def a_splice_goes_past_empty_records(pair: Pair) -> None:
    """Splice gives the data behind one or two empty records, and not 0 bytes, which would mean the end."""
    for empty in (1, 2):
        pair.peer.sock.sendall(b"".join(pair.peer.seal(data) for data in [b""] * empty + [HELLO]))
        pair.settled()
        pair.expect(f"behind {empty}", splice_through_pipe(pair, pair.pipe(), 128, SPLICE_F_NONBLOCK), HELLO)
        pair.expect("recv", pair.recv_now(128), "EAGAIN")


@promise("selftest zero_len_splice 0data_0data_0data, 0data_0ctrl")
def a_splice_of_empty_records_alone_is_no_end(pair: Pair) -> None:
    """Splice says EAGAIN on empty data records alone, and EINVAL where a control record is behind them."""
    pair.peer.sock.sendall(b"".join(pair.peer.seal(b"") for _ in range(3)))
    pair.settled()
    pair.expect("empty records alone", splice_through_pipe(pair, pair.pipe(), 128, SPLICE_F_NONBLOCK), "EAGAIN")
    pair.peer.sock.sendall(pair.peer.seal(b"") + pair.peer.seal(b"", HANDSHAKE))
    pair.settled()
    pair.expect("with a control record", splice_through_pipe(pair, pair.pipe(), 128, SPLICE_F_NONBLOCK), "EINVAL")


@promise("RFC 8446 5.4: padding", suites=TLS13)
def padding_is_taken_off(pair: Pair) -> None:
    """Records with a little and with much padding give what they hold, data and control alike."""
    for padding in (1, 255, 16000):
        pair.peer.send(HELLO, padding=padding)
        pair.expect(f"{padding} bytes of padding", pair.recv(64), HELLO)
    pair.peer.send(HELLO, HANDSHAKE, padding=99)
    pair.expect("control", pair.recv_typed(64), (HANDSHAKE, HELLO))


@promise("RFC 8446 5.4: padding", suites=TLS13)
def a_record_of_padding_alone_is_empty_data(pair: Pair) -> None:
    """A data record that holds padding and nothing else is passed over."""
    pair.peer.send(b"", padding=100)
    pair.peer.send(HELLO)
    pair.settled()
    pair.expect("recv", pair.recv(64), HELLO)


@promise("tls.rst, TLS_RX_EXPECT_NO_PAD", suites=TLS13)
def unexpected_padding_costs_a_retry_and_no_byte(pair: Pair) -> None:
    """Where no padding is expected, a padded record is opened once more, whole, and TlsRxNoPadViolation counts it."""
    no_padding_expected(pair)
    before = Counters.read()
    pair.peer.send(pattern(1000), padding=50)
    pair.expect("recv", pair.recv(2000), pattern(1000))
    changed = Counters.read() - before
    pair.expect("TlsDecryptRetry", changed["TlsDecryptRetry"], 1)
    pair.expect("TlsRxNoPadViolation", changed["TlsRxNoPadViolation"], 1)


@promise("tls.rst, TLS_RX_EXPECT_NO_PAD", suites=TLS13)
def a_control_record_where_no_padding_is_expected_is_whole(pair: Pair) -> None:
    """Where no padding is expected, a control record is opened once more, and is no violation."""
    no_padding_expected(pair)
    before = Counters.read()
    pair.peer.send(HELLO, HANDSHAKE)
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, HELLO))
    changed = Counters.read() - before
    pair.expect("TlsDecryptRetry", changed["TlsDecryptRetry"], 1)
    pair.expect("TlsRxNoPadViolation", changed["TlsRxNoPadViolation"], 0)


@promise("selftest recvmsg_nopad_retry_iov", suites=TLS13)
def a_retry_writes_no_byte_where_none_belongs(pair: Pair) -> None:
    """A control record that is opened twice fills the first of two buffers, and the second stays as it was."""
    no_padding_expected(pair)
    pair.peer.send(pattern(32, 64), HANDSHAKE)
    first, second = bytearray(b"\xa5" * 32), bytearray(b"\x5a" * 64)
    count, control, _, _ = pair.sock.recvmsg_into([first, second], socket.CMSG_SPACE(1))
    pair.expect("recvmsg", count, 32)
    pair.expect("type", [value for _, _, value in control], [bytes((HANDSHAKE,))])
    pair.expect("first buffer", first, bytearray(pattern(32, 64)))
    pair.expect("second buffer", second, bytearray(b"\x5a" * 64))
