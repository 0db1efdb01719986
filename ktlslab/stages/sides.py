"""The two sides of a stream, sending and receiving, for each way in which records can be made.

Plain: bytes as they are. Userspace: OpenSSL makes records, we carry them, or OpenSSL does so itself. Kernel: plain
bytes go in and out of the socket, the kernel makes records and hands out those that are not data with their type.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import socket
import sys
import termios
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from OpenSSL import SSL

from ktlslab.errors import AlertError, KeyUpdateError, StreamError, TruncatedError
from ktlslab.linux import ktls
from ktlslab.linux.buffers import RECORD_HEAD
from ktlslab.linux.engines import RingEngine
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.stages.keyupdate import UPDATE_REQUESTED
from ktlslab.tls.alerts import ALERT_BYTES, Alert
from ktlslab.tls.records import HEADER_BYTES, ContentType, HandshakeType

if TYPE_CHECKING:
    from ktlslab.stages.connect import Connection
    from ktlslab.stages.keyupdate import KeyUpdates
    from ktlslab.stages.library import Library
    from ktlslab.tls.unbuffered import UnbufferedConnection

CLOSE_NOTIFY = bytes([1, 0])
_RECORD_BYTES = 1 << 14
_BUFFERS = 32  # of a record each, for a multishot receive: 512 KiB
_MORE = int(socket.MSG_MORE)
# A KeyUpdate as TLS 1.3 protects it: 5 bytes of message, 1 of type, 16 of tag.
_KEY_UPDATE_BYTES = 22


class Sender(Protocol):
    """`push(data, flags=0)` takes data and returns how many bytes it took, which may be fewer: then push the rest."""

    @property
    def push(self) -> Callable[..., int]: ...
    def send_record(self, data: Buffer, record_type: int) -> None: ...
    def close_notify(self) -> None: ...


class Receiver(Protocol):
    """`pull(buffer)` fills a buffer and returns how many bytes came. What 0 means depends on who makes the records."""

    @property
    def pull(self) -> Callable[[Buffer], int]: ...


class SocketSender:
    """Bytes go into the socket as they are: plain TCP, or the kernel makes records of them."""

    def __init__(self, connection: Connection) -> None:
        self.push = connection.engine.sender(connection.socket)  # nothing in between: it is done for every record
        self._connection = connection

    def send_record(self, data: Buffer, record_type: int) -> None:
        self._connection.engine.send_record(self._connection.socket, data, record_type)

    def close_notify(self) -> None:
        """Say goodbye by a blocking call, whatever the engine: it also flushes what MSG_MORE held back.

        Newer kernels drop the last record of a non-blocking writer at close, and io_uring tries without blocking first.
        """
        ktls.send_record(self._connection.socket, CLOSE_NOTIFY, ContentType.ALERT)


class PlainReceiver:
    def __init__(self, connection: Connection) -> None:
        self.pull = connection.engine.receiver(connection.socket)


class _LibrarySender(ABC):
    """OpenSSL makes the records. It knows no MSG_MORE, so what that holds back is kept here."""

    def __init__(self, machine: UnbufferedConnection) -> None:
        self._machine = machine
        self._held = bytearray()

    def _together(self, data: Buffer, flags: int) -> Buffer | None:
        """Return all that is to be sent now, None where it is to wait for more."""
        self._held += data
        if flags & _MORE:
            return None
        whole, self._held = self._held, bytearray()
        return whole

    @abstractmethod
    def push(self, data: Buffer, flags: int = 0) -> int: ...

    def send_record(self, data: Buffer, record_type: int) -> None:
        """Refuse: OpenSSL's binding has no such call."""
        answered = f"OpenSSL sends records of type {record_type} of its own accord only, {len(data)} bytes were given"
        raise StreamError("sending a control record", answered=answered, remedy="Let the kernel send: kernel-tx.")

    def close_notify(self) -> None:
        """Say goodbye, after what was held back."""
        if self._held:
            self.push(b"")
        self._close_notify()

    @abstractmethod
    def _close_notify(self) -> None: ...


class UserspaceSender(_LibrarySender):
    """OpenSSL's records, carried by the engine."""

    def __init__(self, connection: Connection, machine: UnbufferedConnection) -> None:
        super().__init__(machine)
        self._carry = connection.engine.sender(connection.socket)

    def push(self, data: Buffer, flags: int = 0) -> int:
        whole = self._together(data, flags) if flags or self._held else data
        if whole is not None:
            push_all(self._carry, self._machine.encrypt(whole))
        return len(data)

    def _close_notify(self) -> None:
        push_all(self._carry, self._machine.close_notify())


class UserspaceReceiver:
    """`asked` is told where the peer wants new keys of us and OpenSSL cannot answer, since the kernel sends."""

    def __init__(
        self, connection: Connection, machine: UnbufferedConnection, asked: Callable[[], None] | None = None
    ) -> None:
        self._connection, self._machine, self._traffic = connection, machine, machine.traffic
        self._recv = connection.engine.receiver(connection.socket)
        self._asked = asked
        self._header, self._skip = b"", 0  # where the next record begins: part of its header, bytes still before it
        self._suspect = False  # a record came that may have been a KeyUpdate

    def pull(self, buffer: Buffer) -> int:
        """Return the bytes that came, 0 at a clean end."""
        while (count := self._traffic.open_into(buffer)) is None:
            got = self._recv(self._traffic.wire)
            if not got:
                raise truncated(self._connection, "userspace")
            self._traffic.take_in(got)
            if self._asked:
                self._look_at_sizes(got)
        if self._suspect and self._asked:
            self._look_for_a_request(self._asked)
        return count

    def _look_at_sizes(self, got: int) -> None:
        """Walk from header to header through what came."""
        wire, at = self._traffic.wire, self._skip
        while at < got:
            header = self._header + wire[at : min(got, at + HEADER_BYTES - len(self._header))]
            at += len(header) - len(self._header)
            if len(header) < HEADER_BYTES:
                self._header, self._skip = bytes(header), 0
                return
            size = int.from_bytes(header[3:], "big")
            self._header = b""
            self._suspect |= size == _KEY_UPDATE_BYTES
            at += size
        self._skip = at - got

    def _look_for_a_request(self, asked: Callable[[], None]) -> None:
        """Find out whether OpenSSL, which has read a record of a KeyUpdate's size, now owes the peer an answer.

        It keeps that to itself until it writes, so it is made to write a byte, which goes nowhere: the kernel is the
        one that sends. An answer would stand before that byte.
        """
        self._suspect = False
        sealed = self._traffic.seal(b"\0")
        if len(sealed) > HEADER_BYTES + int.from_bytes(sealed[3:5], "big"):
            asked()


class OpenSslSide(_LibrarySender):
    """Both sides of the classic blocking client: OpenSSL on the socket itself, no buffers between."""

    def __init__(self, connection: Connection, machine: UnbufferedConnection) -> None:
        super().__init__(machine)
        self._connection = connection
        machine.traffic.own(connection.socket.fileno())

    def push(self, data: Buffer, flags: int = 0) -> int:
        whole = self._together(data, flags) if flags or self._held else data
        try:
            if whole is not None:
                self._machine.traffic.write(whole)
        except SSL.SysCallError as error:
            raise OSError(*error.args) from error
        return len(data)

    def _close_notify(self) -> None:
        self._machine.library.shutdown()

    def pull(self, buffer: Buffer) -> int:
        """Return the bytes that came, 0 at a clean end."""
        try:
            count = self._machine.traffic.open_into(buffer)
        except SSL.SysCallError as error:
            if error.args[0] == -1:
                raise truncated(self._connection, "userspace") from error
            raise OSError(*error.args) from error
        except SSL.Error as error:
            if any("unexpected eof" in reason[2] for reason in error.args[0]):
                raise truncated(self._connection, "userspace") from error
            raise
        if count is None:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return count


class KernelReceiver:
    """Data by a plain receive (`pull`, 0 at an end of any kind); whatever else comes makes that fail with EIO.

    Then `fetch`: it receives by recvmsg(2) with room for the record's type, and acts on it. `left` is data that came by
    that way and found no room, `ended` whether the clean end came.

    `updates` are the keys that may follow; `asked` is told where the peer wants new keys of us; `tickets` collects the
    NewSessionTicket messages; `library` is told of a KeyUpdate where it makes the records that we send.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        tickets: list[bytes],
        updates: KeyUpdates | None = None,
        asked: Callable[[], None] | None = None,
        library: Library | None = None,
    ) -> None:
        self._connection, self._tickets = connection, tickets
        self._updates, self._asked, self._library = updates, asked, library
        self.pull = connection.engine.receiver(connection.socket)
        self.left = memoryview(b"")
        self.backlog: deque[tuple[int, bytes]] = deque()  # what came for an iteration that was given up
        self.ended = False
        self._record = bytearray(_RECORD_BYTES)
        self._messages = bytearray()  # handshake messages, as far as they have come
        self._tried = f"receiving on {connection.target} (kernel)"

    def fetch(self, buffer: Buffer) -> int:
        """Take control records, at once and without a poll (some kernels find an unread KeyUpdate not readable).

        Returns the bytes of the data behind them; 0 with `ended` at the clean end, else at an end that is none.
        """
        while True:
            record_type, payload = self.recv_record()
            if record_type == ContentType.APPLICATION_DATA:
                self.left = memoryview(payload)
                return self.take_left(buffer)
            if self.act(record_type, payload):
                return 0
            try:
                return self.pull(buffer)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise

    def take_left(self, buffer: Buffer) -> int:
        """Hand out what came and found no room; 0 where nothing did, or at the clean end."""
        while not self.left and self.backlog:
            record_type, payload = self.backlog.popleft()
            if record_type == ContentType.APPLICATION_DATA:
                self.left = memoryview(payload)
            elif self.act(record_type, payload):
                return 0
        with memoryview(buffer) as room:
            part = min(len(room), len(self.left))
            room[:part] = self.left[:part]
        self.left = self.left[part:]
        return part

    def recv_record(self) -> tuple[int, bytes]:
        """Return the next record's type and what it holds, data joined up to its size; nothing is done about it."""
        if self.left:
            rest, self.left = bytes(self.left), memoryview(b"")
            return ContentType.APPLICATION_DATA, rest
        if self.backlog:
            return self.backlog.popleft()
        count, record_type = self._connection.engine.recv_record(self._connection.socket, self._record)
        if not count and record_type < 0:
            raise truncated(self._connection, "kernel")
        return record_type, bytes(self._record[:count])

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield what comes, acted on, up to the clean end; by one multishot receive where there is a ring for it."""
        engine = self._connection.engine
        while not self.ended:
            if self.left or self.backlog or not isinstance(engine, RingEngine):
                record_type, payload = self.recv_record()
                if record_type != ContentType.APPLICATION_DATA:
                    self.act(record_type, payload)
                yield record_type, payload
            else:
                yield from self._multishot(engine)

    def _multishot(self, engine: RingEngine) -> Iterator[tuple[int, bytes]]:
        """Yield pieces until the clean end, or until the kernel waits for new keys. None that came is lost."""
        sock, ring = self._connection.socket, engine.ring
        with (
            ring.buffer_ring(_BUFFERS, _RECORD_BYTES + RECORD_HEAD) as buffers,
            ring.recvmsg_multishot(sock.fileno(), buffers, engine.timeout) as incoming,
        ):
            try:
                for record_type, payload in incoming:
                    if record_type != ContentType.APPLICATION_DATA:
                        self.act(record_type, payload)
                    yield record_type, payload
                    if self.ended:
                        return
                raise truncated(self._connection, "kernel")
            except OSError as error:
                if error.errno != errno.EKEYEXPIRED:  # the receive ended at a KeyUpdate, and has its new keys by now
                    raise
            finally:
                incoming.stop()
                with contextlib.suppress(OSError):
                    self.backlog.extend(incoming.take(wait=False))

    def splice_into(self, pipe: int, count: int) -> int:
        """Move a record's bytes into a pipe by splice(2), 0 only at the clean end.

        Control records make splice(2) fail (EINVAL), and it says 0 of an empty record as of an end of any kind: then
        the typed receive tells.
        """
        while not self.ended:
            if not (self.left or self.backlog):
                try:
                    if _roomy(pipe) and (moved := os.splice(self._connection.socket.fileno(), pipe, count)):
                        return moved
                except OSError as error:
                    if error.errno not in {errno.EINVAL, errno.EIO}:
                        raise
                record_type, payload = self.recv_record()
                if record_type != ContentType.APPLICATION_DATA:
                    self.act(record_type, payload)
                    continue
                self.left = memoryview(payload)
            buffer = bytearray(count)
            part = bytes(buffer[: self.take_left(buffer)])
            if part:
                return self._write(pipe, part)
        return 0

    def _write(self, pipe: int, data: bytes) -> int:
        """Write to a pipe; what it does not take stays here."""
        written = 0
        try:
            written = os.write(pipe, data)
        finally:
            self.left = memoryview(data[written:] + bytes(self.left))
        return written

    def act(self, record_type: int, payload: bytes) -> bool:
        """Do what a control record asks for; True where it is the clean end."""
        if record_type == ContentType.ALERT and len(payload) == ALERT_BYTES:
            alert = Alert.parse(payload)
            if alert.fatal:
                raise AlertError(self._tried, alert=alert.name, answered=f"the peer sent the alert {alert}")
            self.ended = alert.is_close_notify
            return self.ended
        if record_type != ContentType.HANDSHAKE:
            raise StreamError(self._tried, answered=f"an unexpected record of type {record_type} came")
        self._messages += payload
        while len(self._messages) >= 4:
            end = 4 + int.from_bytes(self._messages[1:4], "big")
            if len(self._messages) < end:
                break
            message = bytes(self._messages[:end])
            del self._messages[:end]
            self._message(message)
        return False

    def _message(self, message: bytes) -> None:
        if message[0] == HandshakeType.NEW_SESSION_TICKET:
            self._tickets.append(message)
        elif message[0] == HandshakeType.KEY_UPDATE and len(message) == 5 and message[4] <= UPDATE_REQUESTED:
            self._key_update(message)
        else:
            raise StreamError(self._tried, answered=f"an unexpected handshake message of type {message[0]} came")

    def _key_update(self, message: bytes) -> None:
        tried = f"following a KeyUpdate of {self._connection.target}"
        if self._messages:
            raise StreamError(tried, answered="more follows it in its record, which RFC 8446 (5.1) forbids")
        if self._updates is None:
            raise KeyUpdateError(tried, answered="the keys were installed by hand", remedy="Install the next ones so.")
        self._updates.check(tried)
        self._updates.install(Direction.RX, tried)
        if self._library:
            self._library.told(message)  # it answers by itself, before what it sends next
        elif message[4] == UPDATE_REQUESTED and self._asked:
            self._asked()


def push_all(push: Callable[..., int], data: Buffer, sent: int = 0, flags: int = 0) -> None:
    """Push what is left of `data` after `sent` bytes: large sends complete short, so one at a time is in flight."""
    size = len(data)
    if not sent:
        sent = push(data, flags)
    while sent < size:
        with memoryview(data) as whole, whole[sent:] as rest:
            sent += push(rest, flags)


def truncated(connection: Connection, layer: str) -> TruncatedError:
    """Return the error of a stream that ended without a close_notify."""
    remedy = "Bytes may be missing: do not trust what came as complete (RFC 8446, section 6.1)."
    tried = f"receiving on {connection.target} ({layer})"
    return TruncatedError(tried, answered="the stream ended without close_notify", remedy=remedy)


def _roomy(pipe: int) -> bool:
    """Whether a pipe is empty and holds more than a page: kernels before 7.x lose bytes of a record in less room."""
    waiting = int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
    return not waiting and fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) > mmap.PAGESIZE
