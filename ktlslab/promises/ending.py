"""How a connection ends, and what the kernel reports of it; much of what TLS promises here is up to the program."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import select
import socket
import struct

from ktlslab.promises.check import BOTH_WAYS, Group, attempt
from ktlslab.promises.elsewhere import Elsewhere
from ktlslab.promises.pair import ALERT, CLOSE_NOTIFY, DATA, ENOUGH_S, QUIET_S, Pair, pattern

promise = Group("the end")
FULL = 1 << 14
RESET = struct.pack("@ii", 1, 0)  # SO_LINGER with 0 seconds: close(2) resets


def hung_up(pair: Pair) -> None:
    """Wait until the kernel's end knows that the connection is over."""
    poll = select.poll()
    poll.register(pair.sock, select.POLLRDHUP)
    poll.poll(ENOUGH_S * 1000)


def writable(pair: Pair) -> bool:
    """Whether the kernel's end becomes writable within a short while."""
    poll = select.poll()
    poll.register(pair.sock, select.POLLOUT)
    return bool(poll.poll(QUIET_S * 1000))


@promise("RFC 8446 6.1: close_notify")
def close_notify_comes_as_an_alert(pair: Pair) -> None:
    """The peer's close_notify is told by EIO and by its type, and only then comes the end of the stream."""
    pair.peer.send(b"last words")
    pair.peer.send(CLOSE_NOTIFY, ALERT)
    pair.peer.sock.shutdown(socket.SHUT_WR)
    pair.expect("recv", pair.recv(64), b"last words")
    pair.expect("recv", pair.recv(64), "EIO")
    pair.expect("recvmsg", pair.recv_typed(64), (ALERT, CLOSE_NOTIFY))
    pair.expect("recv", pair.recv(64), b"")


@promise("RFC 8446 6.1: truncation attack")
def an_end_without_close_notify_is_an_error(pair: Pair) -> None:
    """A stream that ends between records, without close_notify, does not look like a clean end."""
    pair.peer.send(b"last words")
    pair.peer.sock.shutdown(socket.SHUT_WR)
    pair.expect("recv", pair.recv(64), b"last words")
    pair.fails("recv", pair.recv(64))


@promise("RFC 8446 6.1: truncation attack")
def an_end_inside_a_record_is_an_error(pair: Pair) -> None:
    """A stream that ends in the middle of a record does not look like a clean end."""
    pair.peer.sock.sendall(pair.peer.seal(b"cut short")[:-4])
    pair.peer.sock.shutdown(socket.SHUT_WR)
    hung_up(pair)
    pair.fails("recv", pair.recv(64))


@promise("tcp(7): a half-closed connection goes on the other way")
def after_shutdown_for_writing_receiving_goes_on(pair: Pair) -> None:
    """After close_notify and SHUT_WR, what the peer sends still comes decrypted."""
    pair.send_typed(CLOSE_NOTIFY, ALERT)
    pair.sock.shutdown(socket.SHUT_WR)
    pair.expect("record", pair.peer.record(), (ALERT, CLOSE_NOTIFY))
    pair.peer.send(b"the answer")
    pair.expect("recv", pair.recv(64), b"the answer")


@promise("send(2): EPIPE after shutdown")
def sending_after_shutdown_is_an_error(pair: Pair) -> None:
    """After SHUT_WR a send says EPIPE, as on TCP."""
    pair.sock.shutdown(socket.SHUT_WR)
    pair.expect("send", pair.send(b"into nothing"), "EPIPE")


@promise("send(2), tcp(7): ECONNRESET, then EPIPE")
def sending_after_a_reset_is_an_error(pair: Pair) -> None:
    """After the peer reset the connection no send succeeds, also once the error was reported."""
    pair.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    pair.peer.sock.close()
    hung_up(pair)
    pair.expect("recv", pair.recv(64), "ECONNRESET")
    pair.expect("send", pair.send(b"into nothing"), "EPIPE")


@promise("recv(2): ECONNRESET")
def a_reset_is_told_from_an_end(pair: Pair) -> None:
    """A receive that waits when the peer resets says ECONNRESET."""
    pair.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    pair.peer.sock.close()
    hung_up(pair)
    pair.expect("recv", pair.recv(64), "ECONNRESET")


@promise("recv(2): ECONNRESET")
def a_reset_after_data_is_told_by_the_next_receive(pair: Pair) -> None:
    """A receive that has data and waits for more ends with it at a reset, and the next one says ECONNRESET."""
    pair.peer.send(b"the data")
    pair.settled()

    def waiting() -> object:
        pair.peer.sock.close()  # this process's copy, which would put off the reset
        return pair.recv(64, socket.MSG_WAITALL)

    elsewhere = Elsewhere(waiting)
    pair.expect("recv waits", elsewhere.sleeps(), wanted=True)
    pair.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    pair.peer.sock.close()
    pair.expect("recv", elsewhere.result(), b"the data")
    pair.expect("recv", pair.recv_now(64), "ECONNRESET")


@promise("close(2), tcp(7): queued data is still sent")
def closing_sends_what_was_taken(pair: Pair) -> None:
    """Everything that blocking sends took leaves, though the socket is closed at once."""
    pair.expect("send", pair.send(pattern(100_000)), 100_000)
    pair.sock.close()
    pair.expect("data", pair.peer.data(100_000), pattern(100_000))


@promise("close(2), tcp(7): queued data is still sent")
def closing_a_non_blocking_socket_sends_what_was_taken(pair: Pair) -> None:
    """Everything that non-blocking sends took leaves after a close, though the peer reads only then."""
    for buffer in (60_000, 50_000, 70_000, 60_000):  # whether a record is cut half-way depends on what fits
        with Pair(pair.suite, BOTH_WAYS) as other:
            other.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            other.sock.settimeout(0)
            taken = 0
            while writable(other):
                while isinstance(count := other.send(pattern(FULL)), int):
                    taken += count
            other.sock.close()
            missing = taken - sum(len(data) for _, data in other.peer.records(taken // FULL))
        if missing:
            pair.expect(f"missing of {taken} bytes", missing, 0)
    pair.expect("bytes missing after four closes", missing, 0)


@promise("a user's expectation: close sends what was taken")
def closing_sends_what_msg_more_held(pair: Pair) -> None:
    """A record that MSG_MORE held open leaves when the socket is closed, as TCP_CORK's bytes do."""
    pair.expect("send with MSG_MORE", pair.send(b"held open", socket.MSG_MORE), 9)
    pair.sock.close()
    pair.expect("record", pair.peer.record(), (DATA, b"held open"))


@promise("experience: close_notify first")
def an_orderly_end_loses_nothing(pair: Pair) -> None:
    """Data held by MSG_MORE, a blocking close_notify, SHUT_WR and close: all arrives, in order, and then the end."""
    pair.send(b"held open", socket.MSG_MORE)
    pair.send_typed(CLOSE_NOTIFY, ALERT)
    pair.sock.shutdown(socket.SHUT_WR)
    pair.sock.close()
    pair.expect("records", pair.peer.records(3), [(DATA, b"held open"), (ALERT, CLOSE_NOTIFY)])
    pair.expect("then", attempt(pair.peer.sock.recv, 64), b"")
