"""Both sides of a stream whose records a library makes that C cannot call: rustls, from Python and through memory.

Every record costs more of Python than in `userspace`, where OpenSSL is called from C. A comparison of the two compares
these bindings as well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.linux.views import Rest
from ktlslab.stages.bound import Bound
from ktlslab.stages.transfer.sides import MORE, no_record, push_all, truncated
from ktlslab.tls.libraries import LibraryError
from ktlslab.tls.records import HEADER_BYTES, MAX_PLAINTEXT

if TYPE_CHECKING:
    from types import TracebackType

    from ktlslab.stages.connection import Connection
    from ktlslab.stages.handshaking import Handshake

_WIRE_BYTES = 1 << 16  # of received records at once
_SEAL_BYTES = 1 << 20  # all records of a send are made before the first is sent; the rest of a longer one waits
# An encrypted KeyUpdate of TLS 1.3: 5 bytes of message, 1 of type, 16 of tag.
_KEY_UPDATE_BYTES = 22


class InMemory:
    """Sends and receives. A library has no MSG_MORE, so held-back data is kept here.

    One thread at a time, except for `tell`: a thread that receives from the kernel passes on what it got.
    """

    def __init__(self, connection: Connection, handshake: Handshake) -> None:
        machine = handshake.machine
        self._connection, self._machine = connection, machine
        self._library, self._traffic = machine.library, machine.traffic
        self._traffic.uncounted = True
        self._held = bytearray()
        self._room = bytearray(_WIRE_BYTES)
        self._carry = connection.engine.sender(connection.socket)
        self._receive = connection.engine.receiver(connection.socket)
        self._turn = _Turn()
        self._told: deque[bytes] = deque()
        self.apart = threading.Lock()  # held by who calls `tell`

    # Sending

    def push(self, data: Buffer, flags: int = 0) -> int:
        with self._turn:
            return self._push(data, flags)

    def _push(self, data: Buffer, flags: int = 0) -> int:
        if flags or self._held:
            self._held += data
            if flags & MORE:
                return len(data)
            whole, self._held = self._held, bytearray()
            push_all(self._connection, self._push, whole)
            return len(data)
        if len(data) > _SEAL_BYTES:
            with Rest(data, 0, _SEAL_BYTES) as first:
                return self._push(first)
        if self._told:
            self._hear()
        self._send(self._traffic.seal(data))
        return len(data)

    def send_record(self, data: Buffer, record_type: int) -> int:
        return no_record(data, record_type)

    def close_notify(self) -> None:
        """Send the held-back data, then close_notify."""
        with self._turn:
            if self._held:
                self._push(b"")
            self._hear()
            self._machine.shut_down()
            self._send(self._library.take())

    def tell(self, record: Buffer) -> None:
        """Let the library read a record without data before it makes the next: another thread may be sending."""
        self._told.append(bytes(record))

    def _hear(self) -> None:
        while self._told:
            self._library.feed(self._told.popleft())
            self._traffic.open_into(bytearray(1))

    def _send(self, records: Buffer) -> None:
        if (sent := self._carry(records)) != len(records):
            push_all(self._connection, self._carry, records, sent)

    # Receiving

    def pull(self, buffer: Buffer) -> int:
        """Fill a buffer from the next record; 0 after close_notify."""
        with self._turn:
            if (count := self._open(buffer)) is None and (count := self._receive_once(buffer)) is None:
                with Bound(self._connection, Direction.RX) as bound:  # a record that comes in parts
                    while (count := self._receive_once(buffer)) is None:
                        bound.check()
            return count

    def hear_out(self, heard: bytes) -> None:
        """Let the library read all that has come, and discard data: LibraryError for an alert."""
        if heard:
            self._library.feed(heard)
        waste = bytearray(MAX_PLAINTEXT)
        while self.pull(waste):
            pass

    def _receive_once(self, buffer: Buffer) -> int | None:
        """Feed what one receive gives, and fill a buffer from it; None if that is no whole record of data."""
        if not (got := self._receive(self._room)):
            raise truncated(self._connection, "userspace")
        with Rest(self._room, 0, got) as wire:
            self._took(wire)
        return self._open(buffer)

    def _took(self, wire: Buffer) -> None:
        self._library.feed(wire)

    def _open(self, buffer: Buffer) -> int | None:
        """Fill a buffer from what was fed. An alert is sent where the library gives up."""
        try:
            count = self._traffic.open_into(buffer)
        except LibraryError:
            with contextlib.suppress(OSError):  # a peer that is gone
                self._answer()
            raise
        if count is None:
            self._answer()
        return count

    def _answer(self) -> None:
        """Send what the library has to say to a record without data."""
        if answer := self._library.take():
            self._send(answer)


class InMemoryReceiver(InMemory):
    """Receives while the kernel sends. `asked` is called if the peer requests a KeyUpdate (TLS 1.3)."""

    def __init__(self, connection: Connection, handshake: Handshake, asked: Callable[[], None] | None = None) -> None:
        super().__init__(connection, handshake)
        self._asked = asked
        self._header, self._skip = b"", 0  # of the next record: the part of its header received, the bytes before it
        self._suspect = False  # a received record may be a KeyUpdate

    def _took(self, wire: Buffer) -> None:
        """Find the record headers in the received bytes."""
        super()._took(wire)
        at, count = self._skip, len(wire)
        while at < count:
            header = self._header + wire[at : min(count, at + HEADER_BYTES - len(self._header))]
            at += len(header) - len(self._header)
            if len(header) < HEADER_BYTES:
                self._header, self._skip = bytes(header), 0
                return
            size = int.from_bytes(header[3:], "big")
            self._header = b""
            self._suspect |= size == _KEY_UPDATE_BYTES
            at += size
        self._skip = at - count

    def _open(self, buffer: Buffer) -> int | None:
        """Fill a buffer, and find out whether the library must answer a KeyUpdate, after a record of that size.

        It does not show this until it writes. So it is made to write a byte, which is not sent because the kernel
        sends; its answer would precede that byte.
        """
        count = super()._open(buffer)
        if self._suspect and self._asked:
            self._suspect = False
            sealed = self._traffic.seal(b"\0")
            if len(sealed) > HEADER_BYTES + int.from_bytes(sealed[3:5], "big"):
                self._asked()
        return count

    def _answer(self) -> None:
        """Send nothing: the kernel sends, and has the keys."""
        self._library.take()


class _Turn:
    """Lets one thread in at a time: OSError EBUSY for a second one, which has done nothing.

    Python's locks read the clock each time (3.11), which a measured step must not. A list's `pop` is as atomic.
    """

    def __init__(self) -> None:
        self._free = [True]

    def __enter__(self) -> None:
        try:
            self._free.pop()
        except IndexError:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY)) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free.append(True)
