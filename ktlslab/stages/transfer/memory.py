"""Both sides of a stream whose records a library makes that C cannot call: rustls, from Python and through memory.

Every record costs more of Python than in `userspace`, where OpenSSL is called from C. A comparison of the two compares
these bindings as well.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.linux.views import Rest
from ktlslab.stages.bound import Bound
from ktlslab.stages.transfer.requests import Requests
from ktlslab.stages.transfer.sides import LibrarySender, push_all, truncated
from ktlslab.tls.libraries import LibraryError

if TYPE_CHECKING:
    from types import TracebackType

    from ktlslab.stages.connection import Connection
    from ktlslab.tls.unbuffered import UnbufferedConnection

_WIRE_BYTES = 1 << 16  # of received records at once


class InMemory(LibrarySender):
    """Sends and receives."""

    _requests: Requests | None = None
    _sends = True

    def __init__(self, connection: Connection, machine: UnbufferedConnection) -> None:
        super().__init__(connection, machine)
        self._feed, self._traffic = machine.library.feed, machine.traffic
        self._traffic.uncounted = True
        self._room = bytearray(_WIRE_BYTES)
        self._receive = connection.engine.receiver(connection.socket)
        self._turn = _Turn()

    def push(self, data: Buffer, flags: int = 0) -> int:
        with self._turn:
            return super().push(data, flags)

    def close_notify(self) -> None:
        with self._turn:
            super().close_notify()

    def pull(self, buffer: Buffer) -> int:
        """Fill a buffer from the next record; 0 after close_notify."""
        with self._turn:
            if (count := self._open(buffer)) is None and (count := self._receive_once(buffer)) is None:
                with Bound(self._connection, Direction.RX) as bound:  # a record that comes in parts
                    while (count := self._receive_once(buffer)) is None:
                        bound.check()
            return count

    def _receive_once(self, buffer: Buffer) -> int | None:
        """Feed what one receive gives, and fill a buffer from it; None if that is no whole record of data."""
        if not (got := self._receive(self._room)):
            raise truncated(self._connection, "userspace")
        with Rest(self._room, 0, got) as wire:
            self._feed(wire)
            if self._requests:
                self._requests.took(wire)
        return self._open(buffer)

    def _open(self, buffer: Buffer) -> int | None:
        """Fill a buffer from what was fed. An alert is sent where the library gives up."""
        try:
            count = self._traffic.open_into(buffer)
        except LibraryError:
            self._answer()
            raise
        if count is None:
            self._answer()
        if self._requests:
            self._requests.look()
        return count

    def _answer(self) -> None:
        """Send what the library has to say to a record without data; not where the kernel sends, with its own keys."""
        if (answer := self._traffic.sealed()) and self._sends:
            push_all(self._connection, self._carry, answer)


class InMemoryReceiver(InMemory):
    """Receives while the kernel sends. `asked` is called if the peer requests a KeyUpdate (TLS 1.3)."""

    _sends = False

    def __init__(
        self, connection: Connection, machine: UnbufferedConnection, asked: Callable[[], None] | None = None
    ) -> None:
        super().__init__(connection, machine)
        self._requests = Requests(machine, asked) if asked else None


class _Turn:
    """Lets one thread in at a time: OSError EBUSY for a second one, which has done nothing."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
