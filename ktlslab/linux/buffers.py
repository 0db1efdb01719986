"""Multishot receives, into buffers that the kernel chooses from a buffer ring.

A multishot receive stays armed: it gives a completion for each piece that arrives, with no submission in between, and
an idle connection holds no buffer. `Ring.recvmsg_multishot` is the one for kTLS: it reports the type of each record,
while a plain receive ends with EIO at a control record. Received data is copied into new bytes, so its buffer returns
to the kernel at once.

Source: io_uring_register(2) on IORING_REGISTER_PBUF_RING, io_uring_enter(2) on IORING_RECV_MULTISHOT.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any, Protocol, Self

from ktlslab import _checks
from ktlslab._closing import Closing
from ktlslab.errors import RingUnavailableError, UsageError, errno_name
from ktlslab.linux import _native

ffi, lib = _native.ffi, _native.lib

MAX_BUFFERS = 1 << 15  # buffers in a ring
_MAX_SIZE = (1 << 31) - 1  # bytes: what one receive may be asked for
RECORD_HEAD: int = lib.KL_RECORD_HEAD  # what recvmsg puts in front of the payload in each buffer, in bytes


class Owner(Protocol):
    """What buffers and receives need of their `Ring`."""

    def incoming(self, buffers: BufferRing, /) -> list[Incoming]: ...
    def forget(self, closed: BufferRing | Incoming, /) -> None: ...
    def gone(self, tried: str, /) -> UsageError: ...


class BufferRing(Closing):
    """`count` buffers of `size` bytes for any number of receives to fill; `Ring.buffer_ring` makes one."""

    def __init__(self, ring: Owner, handle: Any, group: int, count: int, size: int) -> None:
        tried = "making a ring of buffers"
        _checks.whole(tried, "count", count, 1, MAX_BUFFERS)
        _checks.whole(tried, "size", size, RECORD_HEAD + 1, _MAX_SIZE)
        if count & (count - 1):
            raise UsageError(tried, answered=f"`count` is {count}", remedy="It is a power of two.")
        error = ffi.new("int *")
        self._native = lib.kl_buffers_open(handle, group, count, size, error)
        if not self._native:
            raise RingUnavailableError(
                "registering a ring of provided buffers",
                answered=errno_name(-error[0]),
                remedy="Kernel 5.19 added them; for ENOMEM, raise `ulimit -l`.",
            )
        self.ring, self.group, self.count, self.size = ring, group, count, size
        self._handle = handle
        # C must not be given what another thread has just freed. Taken only where something is open: a forked process,
        # in which nothing is, may have inherited it locked.
        self._freeing = threading.RLock()

    @property
    def closed(self) -> bool:
        return not self._native

    def close(self) -> None:
        """Stop the receives that use the buffers, and free them."""
        if self.closed:
            return
        with self._freeing:
            if not self._native:
                return
            for incoming in self.ring.incoming(self):
                incoming.close()
            _check(lib.kl_buffers_close(self._handle, self._native))
            self._native = ffi.NULL
            self.ring.forget(self)

    def leave(self) -> None:
        """In a forked process: forget the buffers, which are the parent's."""
        self._native = ffi.NULL

    def __repr__(self) -> str:
        return f"BufferRing(group={self.group}, {self.count} x {self.size} bytes{', closed' if self.closed else ''})"


class Incoming(Closing):
    """A multishot receive. Iterating yields (record type or -1, bytes) until the peer's end; `take` returns a batch.

    Waiting raises TimeoutError if nothing arrives for `timeout` seconds (it may then continue), and the kernel's
    OSError after all earlier data was returned. ENOBUFS means that other receives hold every buffer: take from them
    first. Leaving the context stops the receive; data received until then can still be taken.
    """

    def __init__(
        self, buffers: BufferRing, handle: Any, calls: Any, fd: int, timeout: float | None, *, typed: bool
    ) -> None:
        if buffers.closed:
            remedy = "Make others: `ring.buffer_ring`."
            raise UsageError("starting a multishot receive", answered="the buffer ring is closed", remedy=remedy)
        self.buffers, self.timeout = buffers, timeout
        self.ended = False
        self._handle, self._calls = handle, calls
        self._native = lib.kl_multishot_open(handle, fd, buffers._native, typed)  # noqa: SLF001 - its other half
        if not self._native:
            raise MemoryError
        self._address = int(ffi.cast("uintptr_t", self._native))
        self._ready: list[tuple[int, bytes]] = []

    @property
    def closed(self) -> bool:
        return not self._native

    def take(self, *, wait: bool = True) -> list[tuple[int, bytes]]:
        """Return everything received so far, after waiting for something if `wait`; empty at the end or if nothing."""
        if not self._ready and not self.ended:
            try:
                self.ended = self._calls.take(self._address, wait, self.timeout, self._ready)
            except ValueError:  # its ring is another process's
                raise self.buffers.ring.gone("receiving by a multishot receive") from None
        ready, self._ready = self._ready, []
        return ready

    def stop(self) -> None:
        """Cancel the receive. Data received until then can still be taken; after that it has ended."""
        if self.closed:
            return
        with self.buffers._freeing:  # noqa: SLF001 - its other half
            if self._native:
                _check(lib.kl_multishot_stop(self._handle, self._native))

    def close(self) -> None:
        """Stop, keep the received data, free the rest. OSError EBUSY while another thread waits for it."""
        if self.closed:
            return
        with self.buffers._freeing:  # noqa: SLF001 - its other half
            if not self._native:
                return
            self.stop()
            with contextlib.suppress(OSError):  # an error of the receive no longer matters
                self._calls.take(self._address, False, None, self._ready)  # noqa: FBT003 - C takes no keywords
            _check(lib.kl_multishot_close(self._handle, self._native))
            self._native, self.ended = ffi.NULL, True
            self.buffers.ring.forget(self)

    def leave(self) -> None:
        """In a forked process: leave what arrived to the parent."""
        self._native, self._ready = ffi.NULL, []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, bytes]:
        if not self._ready:
            self._ready = self.take()
            if not self._ready:
                raise StopIteration
        return self._ready.pop(0)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "ended" if self.ended else "armed"
        return f"Incoming({state}, {self.buffers!r})"


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
