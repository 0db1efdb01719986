"""How a stream lives and ends, whoever makes its records.

A stream that broke stays broken: the first error is kept and raised again, since some kernels report one once and let
the next receive wait for ever. And a connection that TCP has given up takes everything that kTLS is given and says it
was sent, so TCP itself is asked.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ktlslab._closing import Closing
from ktlslab.errors import (
    AlertError,
    KtlsLabError,
    PeerTimeoutError,
    StreamClosedError,
    StreamError,
    UsageError,
    errno_name,
)
from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.stages.sides import Sender
from ktlslab.tls.alerts import AlertDescription, AlertLevel
from ktlslab.tls.records import MAX_PLAINTEXT, ContentType

if TYPE_CHECKING:
    from ktlslab.stages.connection import Connection
    from ktlslab.stages.keyupdate import KeyUpdates

# A socket that is closed with unread bytes in it (TLS 1.3's session tickets are enough) resets the connection, and what
# had been sent but not yet arrived is lost. So the peer's end is waited for, though not for ever.
LINGER_SECONDS = 1.0
# What the kernel's errno says of a record that came; which call gets to see it is by chance.
_BROKEN = {
    errno.EBADMSG: "A record did not decrypt: damaged on the way, or wrong keys or sequence number. ",
    errno.EMSGSIZE: "A record came whose header claims more than a record may hold: damaged, or no TLS. ",
}
_TCP_CLOSE = 7  # TCP_CLOSE of include/net/tcp_states.h
# What this end tells the peer before it gives up on its records (RFC 8446, 6.2).
_ALERTS = {
    errno.EBADMSG: AlertDescription.BAD_RECORD_MAC,
    errno.EMSGSIZE: AlertDescription.RECORD_OVERFLOW,
    errno.EINVAL: AlertDescription.DECODE_ERROR,
}


class Life(Closing):
    """What a `Stream` knows of its own state; it is not used by itself."""

    _sender: Sender
    _updates: KeyUpdates | None
    # What every send and receive calls. Once there is something to be heeded these are swapped, so that as long as
    # there is nothing no one pays for looking.
    _push: Callable[..., int]
    _pull: Callable[[Buffer], int]

    def __init__(self, connection: Connection, layers: dict[Direction, str]) -> None:
        self.connection = connection
        self.layers = layers  # who makes the records of each direction: plain, userspace, kernel
        self._failure: KtlsLabError | None = None
        self._ended = False  # the peer will send no more
        self._closed = False  # we will send no more
        self._owed = False  # the peer asked for new keys of ours
        self._unconfirmed = False  # something was sent since the connection was last known to live

    @property
    def record_layer(self) -> str:
        """Who makes the records: plain, userspace, kernel, kernel-tx or kernel-rx."""
        tx, rx = self.layers[Direction.TX], self.layers[Direction.RX]
        if tx == rx:
            return tx
        return "kernel-tx" if tx == "kernel" else "kernel-rx"

    def close(self) -> None:
        """Send close_notify, then FIN, wait for the peer's end, then close: in this order nothing sent is lost.

        StreamError where the peer was gone before, and what was sent last may not have arrived.
        """
        lost = None
        try:
            if not self._closed:
                lost = self._lost() if self._unconfirmed and not (self._failure or self._ended) else None
                self._closed = True
                self._heed()
                self._farewell()
        finally:  # whatever interrupts the farewell
            if self._updates:
                self._updates.wipe()
            self.connection.close()
        if lost:
            raise lost

    def _farewell(self) -> None:
        with contextlib.suppress(OSError, SSL.Error):  # a peer that is gone needs none
            if not self._failure and self.layers[Direction.TX] != "plain":
                self._sender.close_notify()
            self.connection.socket.shutdown(socket.SHUT_WR)
            if not self._ended and not self._failure:
                self._linger()

    def _linger(self) -> None:
        """Throw away what the peer still sends, up to its end or the time's: see LINGER_SECONDS."""
        sock, waste = self.connection.socket, bytearray(MAX_PLAINTEXT)
        deadline = time.monotonic() + LINGER_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            # Room for a type, so that kTLS hands out control records too.
            count, control, _, _ = sock.recvmsg_into([waste], ktls.RECORD_TYPE_SPACE)
            if not count or (control and control[0][2][0] == ContentType.ALERT):
                return

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"Stream({self.connection.target}, {self.record_layer}+{self.connection.engine.name}, {state})"

    def _attend(self, verb: str) -> None:
        """See to what a send must not pass by: the end of the stream, or an answer that is owed to the peer."""
        if self._closed or self._failure:
            answered = str(self._failure) if self._failure else "this end is closed"
            raise StreamClosedError(self._tried(verb), answered=answered, remedy="Open a new session.")
        if self._owed:
            self._answer()

    @abstractmethod
    def _answer(self) -> None:
        """Give the peer the new keys that it asked for."""

    def _over(self) -> int:
        """Answer a receive on a stream that has come to an end: 0 where it was a clean one."""
        if self._ended:
            return 0
        if self._failure:
            raise self._failure
        self._attend("receiving")
        return 0

    def _tcp_state(self) -> int:
        return self.connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]

    def _lost(self) -> StreamError | None:
        """Return the error of a connection that TCP has given up; where it has, kTLS still takes what is sent."""
        if self.connection.socket.fileno() < 0 or self._tcp_state() != _TCP_CLOSE:
            return None
        answered = "the connection was reset: what was sent last may not have arrived"
        return StreamError(self._tried("sending"), answered=answered, remedy="Open a new session.")

    def _received(self, error: Exception) -> KtlsLabError:
        """Return what is to be raised for a failed receive, and keep it unless it was a time-out."""
        if isinstance(error, KtlsLabError):
            if type(error) is StreamError:
                self._complain(AlertDescription.UNEXPECTED_MESSAGE)
            self._fail(error)
            return error
        if isinstance(error, SSL.Error):
            return self._library_failed("receiving", error)
        assert isinstance(error, OSError)  # noqa: S101 - nothing else is caught
        failed = self._failed("receiving", error)
        if error.errno in _ALERTS and self.layers[Direction.RX] == "kernel":
            self._complain(_ALERTS[error.errno])
        return failed

    def _library_failed(self, verb: str, error: SSL.Error) -> KtlsLabError:
        reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
        answered = "; ".join(reason[2] for reason in reasons) or type(error).__name__
        # OpenSSL writes "ssl/tls alert bad record mac" where RFC 8446 has bad_record_mac.
        if alert := answered.partition(" alert ")[2].replace(" ", "_"):
            said = f"the peer sent the alert {alert}"
            failure: StreamError = AlertError(self._tried(verb), alert=alert, answered=said)
        else:
            failure = StreamError(self._tried(verb), answered=answered, remedy="Open a new session.")
        self._fail(failure)
        return failure

    def _complain(self, description: AlertDescription) -> None:
        """Tell the peer why this end gives up, where the kernel sends. SO_ERROR cures what a bad record poisons."""
        if self.layers[Direction.TX] != "kernel":
            return
        with contextlib.suppress(OSError):
            self.connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._sender.send_record(bytes([AlertLevel.FATAL, description]), ContentType.ALERT)

    def _fail(self, error: KtlsLabError) -> None:
        self._failure = error
        self._heed()

    def _heed(self) -> None:
        """Let nothing through from now on without a look at the stream's state."""
        self._push, self._pull = self._push_heeding, self._pull_heeding

    def _push_heeding(self, data: Buffer, flags: int = 0) -> int:
        self._attend("sending")
        self._push = self._sender.push
        return self._push(data, flags)

    def _pull_heeding(self, _buffer: Buffer) -> int:
        return self._over()

    def _tried(self, verb: str) -> str:
        return f"{verb} on {self.connection.target} ({self.record_layer})"

    def _failed(self, verb: str, error: OSError) -> KtlsLabError:
        if error.errno == errno.EBUSY and self.connection.engine.name == "uring":  # of the ring: nothing has happened
            answered = "another thread is inside the stream's ring"
            remedy = "Let one thread at a time use it, or open the session with io_engine='syscall'."
            return UsageError(self._tried(verb), answered=answered, remedy=remedy)
        if isinstance(error, TimeoutError | BlockingIOError):  # the second from calls that the engine does not make
            answered = f"nothing moved within {self.connection.engine.timeout} s"
            if verb == "receiving":
                remedy = "Try again, or give a longer timeout."
                return PeerTimeoutError(self._tried(verb), answered=answered, remedy=remedy)
            remedy = "How much arrived is unknown, maybe half a record: open a new session, with a longer timeout."
            failure: KtlsLabError = PeerTimeoutError(self._tried(verb), answered=answered, remedy=remedy)
        else:
            remedy = f"{_BROKEN.get(error.errno or 0, '')}Open a new session."
            failure = StreamError(self._tried(verb), answered=errno_name(error.errno or 0), remedy=remedy)
        self._fail(failure)
        return failure
