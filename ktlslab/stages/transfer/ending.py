"""The end of a stream: close_notify, then FIN, then a wait until the peer's TCP has acknowledged every byte.

Closing a socket that holds unread bytes (the session tickets of TLS 1.3 are enough) resets the connection, and data
that has not yet arrived is lost. So everything that the peer still sends is read and discarded meanwhile. A peer that
is silent has no such bytes: once it has acknowledged everything, there is nothing to wait for (RFC 9112, 9.6).
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ktlslab.errors import KtlsLabError, PeerTimeoutError, StreamError
from ktlslab.linux import ktls, tcpinfo
from ktlslab.linux.ktls import Direction
from ktlslab.stages.bound import Bound
from ktlslab.tls.libraries import LibraryError
from ktlslab.tls.records import MAX_PLAINTEXT, ContentType

if TYPE_CHECKING:
    from ktlslab.stages.transfer.condition import Condition

LINGER_S = 1.0  # a peer that has everything and goes on sending is listened to until it is silent for so long
_GLANCE_S = 0.1  # and so long, if all that it sent had come before
_HEARD_BYTES = 1 << 18  # of what is discarded, so much is looked through for an alert
_LOOK_S = 0.02  # no event tells of an acknowledgement, so it is looked for this often, at first more often


def end_sending(condition: Condition) -> None:
    """Send what is held back, close_notify and FIN."""
    if not condition.held:
        condition.given, _ = tcpinfo.moved(condition.connection.socket)
    if condition.layers[Direction.TX] != "plain":
        condition.sender.close_notify()
    condition.finish()
    sock = condition.connection.socket
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        raise ConnectionResetError(errno.ECONNRESET, "reset by the peer") from error  # a moment ago
    # No data will carry an acknowledgement any more, and one that is still delayed at the close is never sent: the peer
    # could not tell that its last words have arrived (tcp(7), TCP_QUICKACK).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def half_close(condition: Condition) -> None:
    """End the sending of a stream that goes on receiving.

    A peer that has everything may have closed already, and then answers close_notify by a reset: that does no harm.
    """
    try:
        end_sending(condition)
    except OSError:
        closed = condition.finished and tcpinfo.state(condition.connection.socket) == tcpinfo.CLOSED
        if not (closed and _delivered(condition)):
            raise


def _delivered(condition: Condition) -> bool:
    """Whether the peer's TCP has everything, except what came with the close_notify.

    A peer that then resets the connection, instead of reading the close_notify, does no harm.
    """
    sock = condition.connection.socket
    if condition.given is None:
        return not condition.held and not tcpinfo.unacknowledged(sock)
    return tcpinfo.acknowledged(sock) >= condition.given


def farewell(condition: Condition, *, wait: bool) -> KtlsLabError | None:
    """End the sending and wait, for the connection's time-out at most, until all that was sent has arrived.

    Returns the error to raise where that is not so. Without `wait`, only what can be sent at once is.
    """
    sock, timeout = condition.connection.socket, condition.connection.engine.timeout
    if not wait:
        _leave(condition)
        return None
    lost = None if condition.finished else condition.lost()
    if lost:
        return None if condition.reset and _delivered(condition) and not condition.unconfirmed else lost
    rest = Rest(condition)
    try:
        with Bound(condition.connection, Direction.TX) as bound:
            if not condition.finished:
                end_sending(condition)
            _await_acknowledgement(condition, bound, rest)
    except (OSError, SSL.Error, LibraryError) as error:
        if not isinstance(error, TimeoutError | BlockingIOError | SSL.WantWriteError):
            reset = _delivered(condition) and tcpinfo.state(sock) == tcpinfo.CLOSED
            in_use = isinstance(error, OSError) and error.errno == errno.EBUSY  # then the peer gets no close_notify
            return None if reset and not in_use else condition.failed("closing", error, bytes(rest.heard))
    left = tcpinfo.unacknowledged(sock)
    reset = tcpinfo.state(sock) == tcpinfo.CLOSED
    if (reset and _delivered(condition)) or (condition.finished and not left):
        return None
    what = f"acknowledged the last {left} bytes sent" if left else "taken what comes before the close_notify"
    tried, answered = condition.tried("closing"), f"the peer had not {what}"
    if reset:
        lost = StreamError(tried, answered=f"{answered} when the connection was reset", remedy="Open a new session.")
        return condition.parting_alert("closing", bytes(rest.heard)) or lost
    return PeerTimeoutError(tried, answered=f"{answered} within {timeout} s", remedy="Give a longer timeout.")


def _leave(condition: Condition) -> None:
    """End the sending, unless the peer's TCP has no room for it, and discard what has come."""
    sock, engine = condition.connection.socket, condition.connection.engine
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    with contextlib.suppress(OSError, SSL.Error):
        if not condition.finished and not condition.lost() and poll.poll(0):
            engine.limit(sock, Direction.TX, _LOOK_S)
            end_sending(condition)
        rest = Rest(condition)
        poll.register(sock, select.POLLIN)
        until = time.monotonic() + _LOOK_S
        while not condition.ended and poll.poll(0) and rest.discard() is not None and time.monotonic() < until:
            pass


def _await_acknowledgement(condition: Condition, bound: Bound, rest: Rest) -> None:
    """Discard what the peer still sends, until it has acknowledged everything, and has closed or falls silent."""
    sock = condition.connection.socket
    reading = not condition.ended
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    heard, pause, patience = time.monotonic(), 0.001, 0.0
    known = heard + _GLANCE_S / 10  # what comes until then was there before, and may be no more than session tickets
    while not bound.over() and tcpinfo.state(sock) != tcpinfo.CLOSED:
        silent = time.monotonic() - heard
        arrived = not tcpinfo.unacknowledged(sock)
        if arrived and not (reading and (silent < patience or poll.poll(0))):
            return
        wait = patience - silent if arrived else pause
        if (left := bound.left()) is not None:
            wait = min(wait, left)
        pause = min(2 * pause, _LOOK_S)
        if not reading:
            time.sleep(wait)
        elif poll.poll(max(1, int(wait * 1000))):
            came, heard = rest.discard(), time.monotonic()
            reading = came is not None
            if came:
                patience = LINGER_S if heard > known else _GLANCE_S


class Rest:
    """What the peer still sends, which is discarded. `heard` is what may hold an alert, for `Receiver.hear_out`."""

    def __init__(self, condition: Condition) -> None:
        self._socket, self._waste = condition.connection.socket, memoryview(bytearray(MAX_PLAINTEXT))
        self._sealed = condition.layers[Direction.RX] == "userspace"
        self.heard = bytearray()

    def discard(self) -> bool | None:
        """Read and discard once. Return whether it was data, as far as can be told; None if nothing more may come."""
        try:
            # With room for a record type, kTLS returns control records too.
            count, control, _, _ = self._socket.recvmsg_into([self._waste], ktls.RECORD_TYPE_SPACE, socket.MSG_DONTWAIT)
        except BlockingIOError:  # part of a record
            return False
        except OSError:  # a reset, a bad record, or new keys
            return None
        kind = control[0][2][0] if control else ContentType.APPLICATION_DATA
        if kind == ContentType.ALERT or (self._sealed and len(self.heard) < _HEARD_BYTES):
            self.heard += self._waste[:count]
        return None if not count or kind == ContentType.ALERT else kind == ContentType.APPLICATION_DATA
