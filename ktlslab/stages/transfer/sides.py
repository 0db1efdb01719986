"""The two sides of a stream, sending and receiving, for each record layer.

Plain: bytes are sent as they are. Userspace: OpenSSL makes the records, and either the engine or OpenSSL itself moves
them. Kernel: plain bytes go into the socket, as with plain TCP; receiving is in `receiver`.
"""

from __future__ import annotations

import errno
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from OpenSSL import SSL

from ktlslab.errors import StreamError, TruncatedError
from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.linux.views import Rest
from ktlslab.stages.bound import Bound
from ktlslab.tls.records import HEADER_BYTES, MAX_PLAINTEXT, ContentType

if TYPE_CHECKING:
    from ktlslab.stages.connection import Connection
    from ktlslab.stages.transfer.library import Library
    from ktlslab.tls.unbuffered import UnbufferedConnection

CLOSE_NOTIFY = bytes([1, 0])
_MORE = int(socket.MSG_MORE)
# OpenSSL makes all records of a send before the first is sent; the rest of a longer send waits its turn.
_SEAL_BYTES = 1 << 20
_MAX_BYTES = 1 << 30  # per call of OpenSSL, which takes an int
# An encrypted KeyUpdate of TLS 1.3: 5 bytes of message, 1 of type, 16 of tag.
_KEY_UPDATE_BYTES = 22


class Sender(Protocol):
    """`push(data, flags=0)` returns how many bytes it took; if not all, push the rest."""

    @property
    def push(self) -> Callable[..., int]: ...
    def send_record(self, data: Buffer, record_type: int) -> int: ...
    def close_notify(self) -> None: ...


class Receiver(Protocol):
    """`pull(buffer)` fills a buffer and returns the number of bytes. What 0 means depends on the record layer."""

    @property
    def pull(self) -> Callable[[Buffer], int]: ...


class SocketSender:
    """Sends bytes as they are: over plain TCP, or through a socket whose records the kernel makes."""

    def __init__(self, connection: Connection) -> None:
        self.push = connection.engine.sender(connection.socket)  # no wrapper: this is called for every record
        self._connection = connection

    def send_record(self, data: Buffer, record_type: int) -> int:
        return self._connection.engine.send_record(self._connection.socket, data, record_type)

    def close_notify(self) -> None:
        """Send close_notify by a blocking call, with every engine. This also flushes what MSG_MORE held back.

        Newer kernels drop the last record of a non-blocking sender at close, and io_uring first tries not to block.
        """
        ktls.send_record(self._connection.socket, CLOSE_NOTIFY, ContentType.ALERT)


class PlainReceiver:
    def __init__(self, connection: Connection) -> None:
        self.pull = connection.engine.receiver(connection.socket)


class _LibrarySender(ABC):
    """OpenSSL makes the records. It has no MSG_MORE, so held-back data is kept here."""

    def __init__(self, machine: UnbufferedConnection) -> None:
        self._machine = machine
        self._held = bytearray()

    def _together(self, data: Buffer, flags: int) -> Buffer | None:
        """Return all that must be sent now, or None if the data is held back."""
        self._held += data
        if flags & _MORE:
            return None
        whole, self._held = self._held, bytearray()
        return whole  # may be longer than the data, if some was held back: it is sent as a whole

    @abstractmethod
    def push(self, data: Buffer, flags: int = 0) -> int: ...

    def send_record(self, data: Buffer, record_type: int) -> int:
        """Refuse: OpenSSL's binding for Python has no such call."""
        answered = f"OpenSSL cannot be asked to send a record of type {record_type} ({len(data)} bytes)"
        raise StreamError("sending a control record", answered=answered, remedy="Let the kernel send: kernel-tx.")

    def close_notify(self) -> None:
        """Send the held-back data, then close_notify."""
        if self._held:
            self.push(b"")
        self._close_notify()

    @abstractmethod
    def _close_notify(self) -> None: ...


class UserspaceSender(_LibrarySender):
    """OpenSSL makes the records, and the engine sends them."""

    def __init__(
        self,
        connection: Connection,
        machine: UnbufferedConnection,
        library: Library | None = None,
    ) -> None:
        super().__init__(machine)
        self._connection, self._sealer = connection, library or machine
        self._carry = connection.engine.sender(connection.socket)

    def push(self, data: Buffer, flags: int = 0) -> int:
        whole = self._together(data, flags) if flags or self._held else data
        if whole is None:
            return len(data)
        if whole is data and len(data) > _SEAL_BYTES:
            with Rest(data, 0, _SEAL_BYTES) as first:
                return self.push(first)
        records = self._sealer.encrypt(whole)
        if (sent := self._carry(records)) != len(records):
            push_all(self._connection, self._carry, records, sent)
        return len(data)

    def _close_notify(self) -> None:
        push_all(self._connection, self._carry, self._sealer.close_notify())


class UserspaceReceiver:
    """OpenSSL opens the records. `asked` is called if the peer requests a KeyUpdate while the kernel sends."""

    def __init__(
        self, connection: Connection, machine: UnbufferedConnection, asked: Callable[[], None] | None = None
    ) -> None:
        self._connection, self._machine, self._traffic = connection, machine, machine.traffic
        self._recv = connection.engine.receiver(connection.socket)
        self._asked = asked
        self._header, self._skip = b"", 0  # of the next record: the part of its header received, the bytes before it
        self._suspect = False  # a received record may be a KeyUpdate

    def pull(self, buffer: Buffer) -> int:
        """Return the bytes that came, 0 at a clean end."""
        count = self._traffic.open_into(buffer)
        if count is None:
            self._take_in()
            count = self._traffic.open_into(buffer)
        if count is None:
            with Bound(self._connection, Direction.RX) as bound:  # a record in parts: one time-out for the rest of it
                self._take_in()
                while (count := self._traffic.open_into(buffer)) is None:
                    bound.check()
                    self._take_in()
        if self._suspect and self._asked:
            self._look_for_a_request(self._asked)
        return count

    def _take_in(self) -> None:
        """Receive what there is, and feed it to OpenSSL."""
        got = self._recv(self._traffic.wire)
        if not got:
            raise truncated(self._connection, "userspace")
        self._traffic.take_in(got)
        if self._asked:
            self._look_at_sizes(got)

    def _look_at_sizes(self, got: int) -> None:
        """Find the record headers in the received bytes."""
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
        """Find out whether OpenSSL must answer a KeyUpdate, after it has read a record of that size.

        OpenSSL does not show this until it writes. So it is made to write a byte, which is not sent because the kernel
        sends; its answer would precede that byte.
        """
        self._suspect = False
        sealed = self._traffic.seal(b"\0")
        if len(sealed) > HEADER_BYTES + int.from_bytes(sealed[3:5], "big"):
            asked()


class OpenSslSide(_LibrarySender):
    """Both sides of the classic blocking client: OpenSSL uses the socket itself, without buffers in between.

    So the time-out limits each of OpenSSL's waits: a peer that sends a record byte by byte makes one call last long.
    """

    def __init__(self, connection: Connection, machine: UnbufferedConnection) -> None:
        super().__init__(machine)
        self._connection = connection
        self._after: UserspaceReceiver | None = None  # receives after this end's close_notify
        machine.traffic.own(connection.socket.fileno())

    def push(self, data: Buffer, flags: int = 0) -> int:
        whole = self._together(data, flags) if flags or self._held else data
        try:
            if whole is not None and len(whole) > MAX_PLAINTEXT:
                if whole is data and len(data) > _MAX_BYTES:
                    with Rest(data, 0, _MAX_BYTES) as first:
                        return self.push(first)
                with Bound(self._connection, Direction.TX) as bound:
                    self._machine.traffic.write(whole, bound.check)
            elif whole is not None:
                self._machine.traffic.write(whole)
        except SSL.SysCallError as error:
            raise OSError(*error.args) from error
        return len(data)

    def _close_notify(self) -> None:
        """OpenSSL leaves the socket, on which it could write no answer to a KeyUpdate any more."""
        self._machine.shut_down()
        self._machine.traffic.disown()
        self._after = UserspaceReceiver(self._connection, self._machine)

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
            if self._after:
                return self._after.pull(buffer)
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return count


def push_all(connection: Connection, push: Callable[..., int], data: Buffer, sent: int = 0, flags: int = 0) -> None:
    """Push the rest of `data` after `sent` bytes, one send at a time, since large sends may complete short."""
    size = len(data)
    with Bound(connection, Direction.TX) as bound:
        if not sent:
            sent = push(data, flags)
        while sent < size:
            bound.check()
            with Rest(data, sent) as rest:
                sent += push(rest, flags)


def push_many(connection: Connection, push: Callable[..., int], buffers: Sequence[Buffer], bound: Bound) -> None:
    """Push all buffers with one submission. If that stops early, pushing the rest raises the error."""
    sent = connection.engine.send_many(connection.socket, buffers)
    for data in buffers if sent != sum(map(len, buffers)) else ():
        if sent < len(data):
            bound.check()
            push_all(connection, push, data, sent)
        sent = max(0, sent - len(data))


def truncated(connection: Connection, layer: str) -> TruncatedError:
    """Return the error for a stream that ended without close_notify."""
    remedy = "Bytes may be missing: do not treat the data as complete (RFC 8446, section 6.1)."
    tried = f"receiving on {connection.target} ({layer})"
    return TruncatedError(tried, answered="the stream ended without close_notify", remedy=remedy)
