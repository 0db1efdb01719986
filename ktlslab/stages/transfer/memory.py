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

if TYPE_CHECKING:
    from types import TracebackType

    from ktlslab.stages.connection import Connection
    from ktlslab.tls.unbuffered import UnbufferedConnection

_WIRE_BYTES = 1 << 16  # of received records at once


class InMemory(LibrarySender):
    """Sends and receives. With `asked` it receives while the kernel sends: see `Requests`."""

    def __init__(
        self, connection: Connection, machine: UnbufferedConnection, asked: Callable[[], None] | None = None
    ) -> None:
        super().__init__(connection, machine)
        self._feed, self._traffic = machine.library.feed, machine.traffic
        self._traffic.uncounted = True
        self._requests = Requests(machine, asked) if asked else None
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
            if (count := self._open(buffer)) is not None:
                return count
            with Bound(self._connection, Direction.RX) as bound:  # a record may come in parts
                while True:
                    if not (got := self._receive(self._room)):
                        raise truncated(self._connection, "userspace")
                    with Rest(self._room, 0, got) as wire:
                        self._feed(wire)
                        if self._requests:
                            self._requests.took(wire)
                    if (count := self._open(buffer)) is not None:
                        return count
                    bound.check()

    def _open(self, buffer: Buffer) -> int | None:
        """Fill a buffer from what was fed, and send what the library answers: an alert, if it gives up."""
        try:
            return self._traffic.open_into(buffer)
        finally:
            if self._requests:
                self._requests.look()
            elif answer := self._traffic.sealed():
                push_all(self._connection, self._carry, answer)


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
