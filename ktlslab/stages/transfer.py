"""Stage 5, transfer: the same `Stream` whoever makes the records.

A stream has two sides. Each is plain (bytes as they are), userspace (OpenSSL makes records, we carry them) or kernel
(plain bytes go in and out of the socket, the kernel makes records), and the two need not be alike.

What kTLS asks of its user, and where it is answered here:

* a control record (session ticket, alert) makes a plain receive fail with EIO, again and again, until recvmsg(2) with
  room for its type fetches it: `_KernelReceiver` does so at once, without polling first;
* an end of file may be a truncation: only close_notify ends a stream cleanly, anything else is TruncatedError;
* after a shutdown or a reset a send still "succeeds" into nothing: the stream keeps its own closed flags;
* a close with unread records in the socket resets the connection: `close` reads them away first;
* some receive errors come once and the next receive blocks: the first one is kept and raised again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from typing import TYPE_CHECKING, Protocol

from OpenSSL import SSL

from ktlslab._closing import Closing
from ktlslab.errors import (
    AlertError,
    KtlsLabError,
    PeerTimeoutError,
    StreamClosedError,
    StreamError,
    TruncatedError,
    errno_name,
)
from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.tls.alerts import Alert
from ktlslab.tls.records import ContentType, HandshakeType

if TYPE_CHECKING:
    from typing import BinaryIO

    from ktlslab.stages.connect import Connection
    from ktlslab.stages.handshake import Handshake
    from ktlslab.tls.unbuffered import UnbufferedConnection

CLOSE_NOTIFY = bytes([1, 0])
# A socket that is closed with unread bytes in it (TLS 1.3's session tickets are enough) resets the connection, and what
# had been sent but not yet arrived is lost. So the peer's end is waited for, though not for ever.
LINGER_SECONDS = 1.0
_FILE_BYTES = 1 << 17
_RECORD_BYTES = 1 << 14


class _Sender(Protocol):
    def send(self, data: Buffer) -> None: ...
    def close_notify(self) -> None: ...


class _Receiver(Protocol):
    def recv_into(self, buffer: Buffer) -> int:
        """Return the bytes that came, 0 at a clean end."""
        ...


class Stream(Closing):
    """Bytes to and from the peer. Not for two threads in one direction at a time.

    `kernel` says which directions were installed; without a `handshake` both sides are plain.
    """

    def __init__(
        self, connection: Connection, handshake: Handshake | None = None, kernel: tuple[Direction, ...] = ()
    ) -> None:
        self.connection = connection
        self.tickets: list[bytes] = []  # NewSessionTicket messages that came by kTLS, as they came
        self._failure: KtlsLabError | None = None
        self._ended = False  # the peer will send no more
        self._closed = False  # we will send no more
        if handshake is None:
            self._sender: _Sender = _PlainSender(connection)
            self._receiver: _Receiver = _PlainReceiver(connection)
            self.layers = dict.fromkeys(Direction, "plain")
            return
        machine = handshake.machine
        if not kernel and connection.engine.name == "syscall":
            self._sender = self._receiver = _OpenSsl(connection, machine)
        else:
            tx, rx = (way in kernel for way in (Direction.TX, Direction.RX))
            self._sender = _KernelSender(connection) if tx else _UserspaceSender(connection, machine)
            self._receiver = (
                _KernelReceiver(connection, self.tickets) if rx else _UserspaceReceiver(connection, machine)
            )
        self.layers = {way: "kernel" if way in kernel else "userspace" for way in Direction}

    @property
    def record_layer(self) -> str:
        """Who makes the records: plain, userspace, kernel, kernel-tx or kernel-rx."""
        tx, rx = self.layers[Direction.TX], self.layers[Direction.RX]
        if tx == rx:
            return tx
        return "kernel-tx" if tx == "kernel" else "kernel-rx"

    def send(self, data: Buffer) -> None:
        """Send all of `data`.

        StreamClosedError after `close`, after a failure, or once the peer is known to be gone.
        """
        self._check_open("sending")
        try:
            self._sender.send(data)
        except OSError as error:
            raise self._failed("sending", error) from error

    def recv_into(self, buffer: Buffer) -> int:
        """Fill `buffer` with what has come, at least one byte; 0 only at a clean end.

        Raises TruncatedError, AlertError, StreamError, PeerTimeoutError; the first of them is raised again ever after,
        except a time-out, after which one may try again.
        """
        if self._ended:
            return 0
        if self._failure:
            raise self._failure
        if self._closed:
            self._check_open("receiving")
        try:
            count = self._receiver.recv_into(buffer)
        except OSError as error:
            raise self._failed("receiving", error) from error
        except SSL.Error as error:
            reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
            answered = "; ".join(reason[2] for reason in reasons) or type(error).__name__
            self._failure = StreamError(self._tried("receiving"), answered=answered, remedy="Open a new session.")
            raise self._failure from error
        except KtlsLabError as error:
            self._failure = error
            raise
        self._ended = count == 0
        return count

    def recv(self, count: int = 1 << 16) -> bytes:
        """Return up to `count` bytes, b"" only at a clean end."""
        buffer = bytearray(count)
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_exactly(self, buffer: Buffer) -> None:
        """Fill all of `buffer`. TruncatedError where the stream ends before."""
        have = self.recv_into(buffer)
        if have == len(buffer):
            return  # mostly, and then without a view
        with memoryview(buffer) as whole:
            while have < len(whole):
                with whole[have:] as rest:
                    got = self.recv_into(rest)
                if not got:
                    answered = f"the peer closed after {have} of {len(whole)} bytes"
                    raise TruncatedError(self._tried("receiving"), answered=answered)
                have += got

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int:
        """Send a file's bytes and return how many: by sendfile(2), or by read and send where OpenSSL makes records."""
        self._check_open("sending a file")
        left = os.fstat(file.fileno()).st_size - offset if count is None else count
        sent = 0
        while sent < left:
            try:
                if self.layers[Direction.TX] == "userspace":
                    data = os.pread(file.fileno(), min(left - sent, _FILE_BYTES), offset + sent)
                    self.send(data)
                    step = len(data)
                else:
                    step = os.sendfile(self.connection.socket.fileno(), file.fileno(), offset + sent, left - sent)
            except OSError as error:
                raise self._failed("sending a file", error) from error
            if not step:
                break
            sent += step
        return sent

    def close(self) -> None:
        """Send close_notify, then FIN, wait for the peer's end, then close: in this order nothing sent is lost."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError, SSL.Error):  # a peer that is gone needs no farewell
                if not self._failure:
                    self._sender.close_notify()
                self.connection.socket.shutdown(socket.SHUT_WR)
                if not self._ended and not self._failure:
                    self._linger()
        self.connection.close()

    def _linger(self) -> None:
        """Throw away what the peer still sends, up to its end or the time's: see LINGER_SECONDS."""
        sock, waste = self.connection.socket, bytearray(_RECORD_BYTES)
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

    def _check_open(self, verb: str) -> None:
        if self._closed or self._failure:
            answered = str(self._failure) if self._failure else "this end is closed"
            raise StreamClosedError(self._tried(verb), answered=answered, remedy="Open a new session.")

    def _tried(self, verb: str) -> str:
        return f"{verb} on {self.connection.target} ({self.record_layer})"

    def _failed(self, verb: str, error: OSError) -> KtlsLabError:
        if isinstance(error, TimeoutError | BlockingIOError):  # the second from calls that the engine does not make
            answered = f"nothing moved within {self.connection.engine.timeout} s"
            if verb == "receiving":
                remedy = "Try again, or give a longer timeout."
                return PeerTimeoutError(self._tried(verb), answered=answered, remedy=remedy)
            remedy = "How much arrived is unknown, maybe half a record: open a new session, with a longer timeout."
            self._failure = PeerTimeoutError(self._tried(verb), answered=answered, remedy=remedy)
            return self._failure
        remedy = "Open a new session."
        if error.errno == errno.EBADMSG:
            remedy = (
                "A record did not decrypt: damaged on the way, or wrong keys or sequence number. Open a new session."
            )
        self._failure = StreamError(self._tried(verb), answered=errno_name(error.errno or 0), remedy=remedy)
        return self._failure


def _send_all(connection: Connection, data: Buffer) -> None:
    """Send every byte; large sends complete short, so one at a time is in flight."""
    sock, engine = connection.socket, connection.engine
    size = len(data)
    sent = engine.send(sock, data)
    while sent < size:
        with memoryview(data) as whole, whole[sent:] as rest:
            sent += engine.send(sock, rest)


class _PlainSender:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, data: Buffer) -> None:
        _send_all(self._connection, data)

    def close_notify(self) -> None:
        """Plain TCP has only FIN."""


class _PlainReceiver:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def recv_into(self, buffer: Buffer) -> int:
        return self._connection.engine.recv_into(self._connection.socket, buffer)


class _UserspaceSender:
    def __init__(self, connection: Connection, machine: UnbufferedConnection) -> None:
        self._connection, self._machine = connection, machine

    def send(self, data: Buffer) -> None:
        _send_all(self._connection, self._machine.encrypt(data))

    def close_notify(self) -> None:
        _send_all(self._connection, self._machine.close_notify())


class _UserspaceReceiver:
    def __init__(self, connection: Connection, machine: UnbufferedConnection) -> None:
        self._connection, self._traffic = connection, machine.traffic

    def recv_into(self, buffer: Buffer) -> int:
        while (count := self._traffic.open_into(buffer)) is None:
            got = self._connection.engine.recv_into(self._connection.socket, self._traffic.wire)
            if not got:
                raise _truncated(self._connection, "userspace")
            self._traffic.take_in(got)
        return count


class _OpenSsl:
    """Both sides of the classic blocking client: OpenSSL on the socket itself, no buffers between."""

    def __init__(self, connection: Connection, machine: UnbufferedConnection) -> None:
        self._connection, self._machine = connection, machine
        machine.traffic.own(connection.socket.fileno())

    def send(self, data: Buffer) -> None:
        try:
            self._machine.traffic.write(data)
        except SSL.SysCallError as error:
            raise OSError(*error.args) from error

    def recv_into(self, buffer: Buffer) -> int:
        try:
            count = self._machine.traffic.open_into(buffer)
        except SSL.SysCallError as error:
            if error.args[0] == -1:
                raise _truncated(self._connection, "userspace") from error
            raise OSError(*error.args) from error
        except SSL.Error as error:
            if any("unexpected eof" in reason[2] for reason in error.args[0]):
                raise _truncated(self._connection, "userspace") from error
            raise
        if count is None:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return count

    def close_notify(self) -> None:
        self._machine.library.shutdown()


class _KernelSender:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, data: Buffer) -> None:
        _send_all(self._connection, data)

    def close_notify(self) -> None:
        # Always by a blocking call: newer kernels drop the last record of a non-blocking writer at close otherwise.
        control = [(ktls.SOL_TLS, ktls.TLS_SET_RECORD_TYPE, bytes([ContentType.ALERT]))]
        self._connection.socket.sendmsg([CLOSE_NOTIFY], control)


class _KernelReceiver:
    def __init__(self, connection: Connection, tickets: list[bytes]) -> None:
        self._connection, self._tickets = connection, tickets
        self._record = bytearray(_RECORD_BYTES)
        self._left = memoryview(b"")  # data that a fetch for a control record brought instead

    def recv_into(self, buffer: Buffer) -> int:
        sock, engine = self._connection.socket, self._connection.engine
        while not self._left:
            try:
                got = engine.recv_into(sock, buffer)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
            else:
                if not got:
                    raise _truncated(self._connection, "kernel")
                return got
            count, record_type = engine.recv_record(sock, self._record)
            if record_type == ContentType.APPLICATION_DATA:
                self._left = memoryview(bytes(self._record[:count]))
            elif self._control(record_type, bytes(self._record[:count])):
                return 0
        with memoryview(buffer) as room:
            part = min(len(room), len(self._left))
            room[:part] = self._left[:part]
        self._left = self._left[part:]
        return part

    def _control(self, record_type: int, payload: bytes) -> bool:
        """Handle a control record; True where it is the clean end."""
        tried = f"receiving on {self._connection.target} (kernel)"
        if record_type == ContentType.ALERT and len(payload) == 2:
            alert = Alert.parse(payload)
            if alert.is_close_notify:
                return True
            if alert.fatal:
                raise AlertError(tried, alert=alert.name, answered=f"the peer sent the alert {alert}")
            return False
        if record_type == ContentType.HANDSHAKE and payload[:1] == bytes([HandshakeType.NEW_SESSION_TICKET]):
            self._tickets.append(payload)
            return False
        if record_type == ContentType.HANDSHAKE and payload[:1] == bytes([HandshakeType.KEY_UPDATE]):
            answered = "the peer changed its keys (KeyUpdate), which this receiver cannot follow"
            raise StreamError(tried, answered=answered, remedy="Open a new session, or use record_layer='userspace'.")
        if not payload and record_type < 0:
            raise _truncated(self._connection, "kernel")
        raise StreamError(tried, answered=f"an unexpected record of type {record_type} came")


def _truncated(connection: Connection, layer: str) -> TruncatedError:
    remedy = "Bytes may be missing: do not trust what came as complete (RFC 8446, section 6.1)."
    tried = f"receiving on {connection.target} ({layer})"
    return TruncatedError(tried, answered="the stream ended without close_notify", remedy=remedy)
