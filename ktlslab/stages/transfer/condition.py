"""Whether a stream still works, and which error each of its failures becomes.

A broken stream stays broken: its first error is kept and raised again, because some kernels report an error only once
and let the next receive wait for ever. If TCP has given up the connection, or was told that nothing more is sent, kTLS
still accepts data and reports it as sent, so TCP itself is asked.

An exception of a signal's handler can end a call between two bytes: part of a record may be on the wire, and bytes may
have been taken from the socket but not delivered. Nothing can tell, so the stream fails.

Every send calls `push` and every receive calls `pull`. When the state of the stream changes, they are replaced by calls
that check it first. Until then nothing pays for a check.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from OpenSSL import SSL

from ktlslab import _checks
from ktlslab.errors import (
    AlertError,
    KtlsLabError,
    PeerTimeoutError,
    StreamClosedError,
    StreamError,
    UsageError,
    errno_name,
)
from ktlslab.linux import _hot, tcpinfo
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.stages.bound import unshortened
from ktlslab.stages.transfer.parting import GONE, explained, parting_alert
from ktlslab.tls.alerts import AlertDescription, AlertLevel
from ktlslab.tls.libraries import LibraryError
from ktlslab.tls.records import ContentType

if TYPE_CHECKING:
    from ktlslab.stages.connection import Connection
    from ktlslab.stages.transfer.sides import Receiver, Sender

# What the kernel's errno says about a received record. Any call on the socket may be the one that reports it.
_BROKEN = {
    errno.EBADMSG: "A record did not decrypt: damaged on the way, or wrong keys or sequence number. ",
    errno.EMSGSIZE: "A record's header claims more than a record may hold: it was damaged, or is not TLS. ",
}
# The alert that this end sends before it gives up (RFC 8446, 6.2).
_ALERTS = {
    errno.EBADMSG: AlertDescription.BAD_RECORD_MAC,
    errno.EMSGSIZE: AlertDescription.RECORD_OVERFLOW,
    errno.EINVAL: AlertDescription.DECODE_ERROR,
}


class Condition(_hot.Flow):
    """The state of one stream. `layers` is the record layer of each direction: plain, userspace or kernel.

    `answer` sends the KeyUpdate that the peer has requested. `use` must be called before anything is sent or received.
    """

    sender: Sender
    receiver: Receiver

    def __init__(self, connection: Connection, layers: dict[Direction, str], answer: Callable[[], None]) -> None:
        self.connection, self.layers = connection, layers
        self.failure: KtlsLabError | None = None
        self.ended = False  # the peer has sent close_notify, or FIN on a plain stream
        self.closed = False  # this end has closed
        self.finished = False  # this end has sent close_notify and FIN: nothing more is sent
        self.given: int | None = None  # bytes that TCP had been given when this end began to do so; None: not known
        self.held = False  # the kernel may hold back the last record (MSG_MORE)
        self.untold = False  # the failure has not been raised yet
        self.told = False  # this end has sent a fatal alert
        self.reset = False  # `lost` has seen that the peer reset the connection
        self.owed = False  # the peer has requested a KeyUpdate
        # What the compiled part reads and writes in every operation: see also `watch`.
        self.unconfirmed = False  # something was sent since the connection was last known to live
        self.fill_s = unshortened(connection.engine.timeout)
        self._answer = answer

    def use(self, sender: Sender, receiver: Receiver) -> None:
        """Send by this sender and receive by this receiver."""
        self.sender, self.receiver = sender, receiver
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

    # What a send or receive must check

    def attend(self, verb: str) -> None:
        """Raise if nothing can be sent any more, and send the KeyUpdate that the peer has requested."""
        self.attend_to_the_end(verb)
        if self.finished:
            answered = "this end has ended its sending: send_eof() was called"
            raise StreamClosedError(self.tried(verb), answered=answered, remedy="Open a new session to send more.")
        if self.owed:
            self._answer()

    def attend_to_the_end(self, verb: str) -> None:
        """Raise if the stream has failed or was closed."""
        if self.closed or self.failure:
            self.untold = False
            answered = str(self.failure) if self.failure else "this end is closed: close() was called"
            raise StreamClosedError(self.tried(verb), answered=answered, remedy="Open a new session.")

    @property
    def over(self) -> bool:
        return bool(self.ended or self.failure or self.closed)

    def answer_of_the_end(self) -> int:
        """Return 0 for a receive after a clean end; after a failure raise its error again."""
        if self.ended:
            return 0
        if self.failure:
            self.untold = False
            raise self.failure
        self.attend_to_the_end("receiving")
        return 0

    def owe(self) -> None:
        """Record that the peer requested a KeyUpdate, which must precede the next data (RFC 8446, 4.6.3)."""
        self.owed = True
        self.push = self._push_heeding

    def close(self) -> None:
        self.closed = True
        self._heed()

    def finish(self) -> None:
        """Record that this end sends nothing more."""
        self.finished = True
        self.push = self._push_heeding

    def hold(self) -> None:
        """Record that the last record sent may be held back, until something is sent that is not."""
        self.held = True
        self.push = self._push_more

    def end(self) -> None:
        """Record that the stream ended cleanly."""
        self.ended = True
        self.pull = self._pull_heeding

    def fail(self, error: KtlsLabError) -> None:
        """Keep the error that ended the stream."""
        self.failure = error
        self._heed()

    def _heed(self) -> None:
        """From now on check the state of the stream before each send and receive."""
        self.push, self.pull = self._push_heeding, self._pull_heeding

    def _push_heeding(self, data: Buffer, flags: int = 0) -> int:
        self.push = self.sender.push  # first: another thread may receive a request meanwhile, and set it again
        try:
            self.attend("sending")
        except BaseException:
            self.push = self._push_heeding
            raise
        return self.sender.push(data, flags)

    def _push_more(self, data: Buffer, flags: int = 0) -> int:
        self.attend("sending")
        if not flags:
            self.held = False
            self.push = self.sender.push
        return self.sender.push(data, flags)

    def _pull_heeding(self, buffer: Buffer) -> int:
        _checks.buffer(self.tried("receiving"), "buffer", buffer, writable=True)
        return self.answer_of_the_end()

    def lost(self) -> StreamError | None:
        """Return the error if TCP sends nothing more, which kTLS does not report when sending.

        If TCP has given the connection up, what the peer sent before is read.
        """
        sock = self.connection.socket
        if sock.fileno() < 0 or (state := tcpinfo.state(sock)) not in tcpinfo.SENDING_OVER:
            return None
        # Without a FIN of this end, only a reset closes a connection, and leaves its errno.
        self.reset = state == tcpinfo.CLOSED and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        if alert := self.parting_alert("sending"):
            return alert
        answered = "the connection was reset, so the last data sent may not have arrived"
        if not self.reset:
            answered = "shutdown(SHUT_WR) was called on its socket, so the last data sent may not have left"
        return StreamError(self.tried("sending"), answered=answered, remedy="Open a new session.")

    def parting_alert(self, verb: str, heard: bytes = b"") -> AlertError | None:
        """Return the error for the alert that the peer sent before it closed, if it did: see `parting`."""
        if isinstance(self.failure, AlertError):  # another thread has received it
            return self.failure
        return parting_alert(self.connection, self.receiver, self.tried(verb), heard)

    # Which error a failure becomes

    def received(self, error: Exception) -> KtlsLabError:
        """Return the error to raise for a failed receive, and keep it unless it was a time-out."""
        if isinstance(error, KtlsLabError):
            if type(error) is StreamError:
                self._complain(AlertDescription.UNEXPECTED_MESSAGE)
            self.fail(error)
            return error
        failed = self.failed("receiving", error)
        if isinstance(error, OSError) and error.errno in _ALERTS and self.layers[Direction.RX] == "kernel":
            self._complain(_ALERTS[error.errno])
        return failed

    def give_up(self, verb: str, error: BaseException) -> NoReturn:
        """Raise the error of a call of this stream that ended by `error`; keep it if it ends the stream."""
        if isinstance(error, OSError | SSL.Error | LibraryError):
            raise self.failed(verb, error) from error
        if not isinstance(error, KtlsLabError):
            answered = f"{type(error).__name__} interrupted it, maybe in the middle of a record"
            self.fail(StreamError(self.tried(verb), answered=answered, remedy="Open a new session."))
            self.untold = True
        raise error

    def failed(self, verb: str, error: Exception, heard: bytes = b"") -> KtlsLabError:
        """Return the error to raise if a socket or OpenSSL failed, and keep it if it ends the stream.

        `heard` is what came after the last receive, for `Receiver.hear_out`.
        """
        if isinstance(error, SSL.Error | LibraryError):
            return self._library_failed(verb, error)
        assert isinstance(error, OSError)  # noqa: S101 - nothing else is caught
        if error.errno == errno.EBUSY:  # from the ring or from `tls.traffic`: nothing was done
            answered = "another thread is using the stream"
            remedy = "Let one thread at a time use it; see `Stream` for which calls may run at once."
            return UsageError(self.tried(verb), answered=answered, remedy=remedy)
        if isinstance(error, TimeoutError | BlockingIOError):  # the second: from calls outside the engine
            answered, remedy = self._waited()
            if verb == "receiving":
                return PeerTimeoutError(self.tried(verb), answered=answered, remedy=remedy)
            remedy = f"An unknown amount was sent, maybe part of a record: open a new session. {remedy}"
            failure: KtlsLabError = PeerTimeoutError(self.tried(verb), answered=answered, remedy=remedy)
        elif error.errno in GONE and (alert := self.parting_alert(verb, heard)):
            failure = alert
        else:
            remedy = f"{_BROKEN.get(error.errno or 0, '')}Open a new session."
            failure = StreamError(self.tried(verb), answered=errno_name(error.errno or 0), remedy=remedy)
        self.fail(failure)
        return failure

    def _waited(self) -> tuple[str, str]:
        """Return how long a call waited in vain, and what helps."""
        own = self.connection.socket.gettimeout()  # Python's own time-out of the socket, usually none
        if own == 0:
            return "the socket does not block, and could do nothing at once", "Call its setblocking(True)."
        waited = self.connection.engine.timeout if own is None else own
        return f"nothing moved within {waited} s", "Try again, or give a longer timeout."

    def _library_failed(self, verb: str, error: SSL.Error | LibraryError) -> KtlsLabError:
        answered, alert = explained(error)
        if alert:
            failure: StreamError = AlertError(self.tried(verb), alert=alert, answered=answered)
        else:
            failure = StreamError(self.tried(verb), answered=answered, remedy="Open a new session.")
            self.told = True  # OpenSSL sends an alert by itself
        self.fail(failure)
        return failure

    def _complain(self, description: AlertDescription) -> None:
        """Send the peer an alert, if the kernel sends. Reading SO_ERROR first clears the error of the bad record."""
        if self.layers[Direction.TX] != "kernel":
            return
        with contextlib.suppress(OSError):
            self.connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.sender.send_record(bytes([AlertLevel.FATAL, description]), ContentType.ALERT)
            self.told = True
