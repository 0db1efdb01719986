"""Whether a stream still lives, and what each of its failures is called.

A stream that broke stays broken: the first error is kept and raised again, since some kernels report one once and let
the next receive wait for ever. And a connection that TCP has given up takes everything that kTLS is given and says it
was sent, so TCP itself is asked.

`push` and `pull` are what every send and receive calls. Once there is something to be heeded they are swapped for calls
that look first, so that as long as there is nothing no one pays for looking.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ktlslab.errors import (
    AlertError,
    KtlsLabError,
    PeerTimeoutError,
    StreamClosedError,
    StreamError,
    UsageError,
    errno_name,
)
from ktlslab.linux import tcpinfo
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.tls.alerts import AlertDescription, AlertLevel
from ktlslab.tls.records import ContentType

if TYPE_CHECKING:
    from ktlslab.stages.connection import Connection
    from ktlslab.stages.transfer.sides import Receiver, Sender

# What the kernel's errno says of a record that came; which call gets to see it is by chance.
_BROKEN = {
    errno.EBADMSG: "A record did not decrypt: damaged on the way, or wrong keys or sequence number. ",
    errno.EMSGSIZE: "A record came whose header claims more than a record may hold: damaged, or no TLS. ",
}
# What this end tells the peer before it gives up on its records (RFC 8446, 6.2).
_ALERTS = {
    errno.EBADMSG: AlertDescription.BAD_RECORD_MAC,
    errno.EMSGSIZE: AlertDescription.RECORD_OVERFLOW,
    errno.EINVAL: AlertDescription.DECODE_ERROR,
}


class Condition:
    """What is known of one stream. `layers` says who makes the records of each direction: plain, userspace, kernel.

    `answer` gives the peer the new keys that it asked for. `use` must be called before anything is sent or received.
    """

    push: Callable[..., int]
    pull: Callable[[Buffer], int]
    sender: Sender

    def __init__(self, connection: Connection, layers: dict[Direction, str], answer: Callable[[], None]) -> None:
        self.connection, self.layers = connection, layers
        self.failure: KtlsLabError | None = None
        self.ended = False  # the peer will send no more
        self.closed = False  # we will send no more
        self.owed = False  # the peer asked for new keys of ours
        self.unconfirmed = False  # something was sent since the connection was last known to live
        self._answer = answer

    def use(self, sender: Sender, receiver: Receiver) -> None:
        """Send and receive by these."""
        self.sender = sender
        self.push, self.pull = sender.push, receiver.pull

    @property
    def record_layer(self) -> str:
        """Who makes the records: plain, userspace, kernel, kernel-tx or kernel-rx."""
        tx, rx = self.layers[Direction.TX], self.layers[Direction.RX]
        if tx == rx:
            return tx
        return "kernel-tx" if tx == "kernel" else "kernel-rx"

    def tried(self, verb: str) -> str:
        return f"{verb} on {self.connection.target} ({self.record_layer})"

    # What is to be heeded

    def attend(self, verb: str) -> None:
        """See to what a send must not pass by: the end of the stream, or an answer that is owed to the peer."""
        if self.closed or self.failure:
            answered = str(self.failure) if self.failure else "close() was called before, this end is closed"
            raise StreamClosedError(self.tried(verb), answered=answered, remedy="Open a new session.")
        if self.owed:
            self._answer()

    @property
    def over(self) -> bool:
        return bool(self.ended or self.failure or self.closed)

    def answer_of_the_end(self) -> int:
        """Answer a receive on a stream that has come to an end: 0 where it was a clean one."""
        if self.ended:
            return 0
        if self.failure:
            raise self.failure
        self.attend("receiving")
        return 0

    def owe(self) -> None:
        """Note that the peer asked for new keys: it gets them before what is sent next (RFC 8446, 4.6.3)."""
        self.owed = True
        self.push = self._push_heeding

    def close(self) -> None:
        self.closed = True
        self._heed()

    def end(self) -> None:
        """Note that the clean end came."""
        self.ended = True
        self.pull = self._pull_heeding

    def fail(self, error: KtlsLabError) -> None:
        """Keep the error that the stream has come to its end by."""
        self.failure = error
        self._heed()

    def _heed(self) -> None:
        """Let nothing through from now on without a look at the stream's state."""
        self.push, self.pull = self._push_heeding, self._pull_heeding

    def _push_heeding(self, data: Buffer, flags: int = 0) -> int:
        self.attend("sending")
        self.push = self.sender.push
        return self.push(data, flags)

    def _pull_heeding(self, _buffer: Buffer) -> int:
        return self.answer_of_the_end()

    def lost(self) -> StreamError | None:
        """Return the error of a connection that TCP has given up; where it has, kTLS still takes what is sent."""
        sock = self.connection.socket
        if sock.fileno() < 0 or tcpinfo.state(sock) != tcpinfo.CLOSED:
            return None
        answered = "the connection was reset: what was sent last may not have arrived"
        return StreamError(self.tried("sending"), answered=answered, remedy="Open a new session.")

    # What a failure is called

    def received(self, error: Exception) -> KtlsLabError:
        """Return what is to be raised for a failed receive, and keep it unless it was a time-out."""
        if isinstance(error, KtlsLabError):
            if type(error) is StreamError:
                self._complain(AlertDescription.UNEXPECTED_MESSAGE)
            self.fail(error)
            return error
        failed = self.failed("receiving", error)
        if isinstance(error, OSError) and error.errno in _ALERTS and self.layers[Direction.RX] == "kernel":
            self._complain(_ALERTS[error.errno])
        return failed

    def failed(self, verb: str, error: Exception) -> KtlsLabError:
        """Return what is to be raised where a socket or OpenSSL failed, and keep it where it ends the stream."""
        if isinstance(error, SSL.Error):
            return self._library_failed(verb, error)
        assert isinstance(error, OSError)  # noqa: S101 - nothing else is caught
        if error.errno == errno.EBUSY and self.connection.engine.name == "uring":  # of the ring: nothing has happened
            answered = "another thread is inside the stream's ring"
            remedy = "Let one thread at a time use it, or open the session with io_engine='syscall'."
            return UsageError(self.tried(verb), answered=answered, remedy=remedy)
        if isinstance(error, TimeoutError | BlockingIOError):  # the second from calls that the engine does not make
            answered = f"nothing moved within {self.connection.engine.timeout} s"
            if verb == "receiving":
                remedy = "Try again, or give a longer timeout."
                return PeerTimeoutError(self.tried(verb), answered=answered, remedy=remedy)
            remedy = "How much arrived is unknown, maybe half a record: open a new session, with a longer timeout."
            failure: KtlsLabError = PeerTimeoutError(self.tried(verb), answered=answered, remedy=remedy)
        else:
            remedy = f"{_BROKEN.get(error.errno or 0, '')}Open a new session."
            failure = StreamError(self.tried(verb), answered=errno_name(error.errno or 0), remedy=remedy)
        self.fail(failure)
        return failure

    def _library_failed(self, verb: str, error: SSL.Error) -> KtlsLabError:
        reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
        answered = "; ".join(reason[2] for reason in reasons) or type(error).__name__
        # OpenSSL writes "ssl/tls alert bad record mac" where RFC 8446 has bad_record_mac.
        if alert := answered.partition(" alert ")[2].replace(" ", "_"):
            said = f"the peer sent the alert {alert}"
            failure: StreamError = AlertError(self.tried(verb), alert=alert, answered=said)
        else:
            failure = StreamError(self.tried(verb), answered=answered, remedy="Open a new session.")
        self.fail(failure)
        return failure

    def _complain(self, description: AlertDescription) -> None:
        """Tell the peer why this end gives up, where the kernel sends. SO_ERROR cures what a bad record poisons."""
        if self.layers[Direction.TX] != "kernel":
            return
        with contextlib.suppress(OSError):
            self.connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.sender.send_record(bytes([AlertLevel.FATAL, description]), ContentType.ALERT)
