"""The two sides of a stream, sending and receiving, for each way in which records can be made.

Plain: bytes as they are. Userspace: OpenSSL makes records, we carry them, or OpenSSL does so itself. Kernel: plain
bytes go into the socket, as with plain TCP; what comes out of it is in `receiver`.
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
from ktlslab.linux.ring import Buffer
from ktlslab.linux.views import Rest
from ktlslab.tls.records import HEADER_BYTES, ContentType

if TYPE_CHECKING:
    from ktlslab.stages.connection import Connection
    from ktlslab.tls.unbuffered import UnbufferedConnection

CLOSE_NOTIFY = bytes([1, 0])
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


def push_all(push: Callable[..., int], data: Buffer, sent: int = 0, flags: int = 0) -> None:
    """Push what is left of `data` after `sent` bytes: large sends complete short, so one at a time is in flight."""
    size = len(data)
    if not sent:
        sent = push(data, flags)
    while sent < size:
        with Rest(data, sent) as rest:
            sent += push(rest, flags)


def push_many(connection: Connection, push: Callable[..., int], buffers: Sequence[Buffer]) -> None:
    """Push all buffers with one submission; where something stood in the way, the rest tells what."""
    sent = connection.engine.send_many(connection.socket, buffers)
    for data in buffers if sent != sum(map(len, buffers)) else ():
        if sent < len(data):
            push_all(push, data, sent)
        sent = max(0, sent - len(data))


def truncated(connection: Connection, layer: str) -> TruncatedError:
    """Return the error of a stream that ended without a close_notify."""
    remedy = "Bytes may be missing: do not trust what came as complete (RFC 8446, section 6.1)."
    tried = f"receiving on {connection.target} ({layer})"
    return TruncatedError(tried, answered="the stream ended without close_notify", remedy=remedy)
