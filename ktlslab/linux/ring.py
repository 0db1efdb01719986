"""io_uring for one thread: a context manager whose calls prepare, submit, wait and reap in one step.

The ownership rule of completion-based I/O: from submission to completion a buffer belongs to the kernel, and must not
be moved or freed. The ring keeps this rule in two ways. A plain call (`send`, `recv_into`, ...) holds its buffer and
returns only after the completion; a time-out or Ctrl-C first cancels the operation and waits for its completion. An
operation begun with `start` is held here, with its buffer, until `reap` returns its completion; `close` cancels the
remaining ones and waits for them. While a bytearray is held, Python refuses to resize it (BufferError).

The GIL is released during system calls, so other threads continue. Only one thread at a time may use a ring, and only
the process that made it: in a forked process every call raises UsageError, and the parent's ring is not affected.

Source: io_uring_enter(2), io_uring_setup(2).
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ktlslab import _checks
from ktlslab._checks import WRONG
from ktlslab._closing import Closing
from ktlslab.errors import UsageError
from ktlslab.linux import _hot, _native, forks
from ktlslab.linux.buffers import BufferRing, Incoming
from ktlslab.linux.calls import (
    MAX_INT,
    RecvCall,
    RecvRecordCall,
    SendCall,
    SendManyCall,
    SendRecordCall,
    blame,
    blame_fork,
    closed,
    pack_sockaddr,
)
from ktlslab.linux.operations import Buffer, Completion, Operation
from ktlslab.linux.setups import open_ring

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LIBURING", "Buffer", "Completion", "Operation", "Ring", "transfer"]

ffi, lib = _native.ffi, _native.lib
LIBURING = ffi.string(lib.kl_liburing()).decode()  # the version that the C part was built with, "" if unknown

_CLOEXEC = int(socket.SOCK_CLOEXEC)
_ABANDONED: list[Any] = []  # what rings hold that were forgotten and could not be closed


class Ring(Closing):
    """io_uring with room for `entries` operations. RingUnavailableError says why it is not available.

    `sqpoll`: a kernel thread fetches submissions, so submitting needs no system call while it is awake. `defer_taskrun`
    (kernel 6.1): completions are processed only while this program waits for them; only the thread that made the ring
    may use it (OSError EEXIST in another). No kernel allows both together.
    """

    def __init__(self, entries: int = 64, *, sqpoll: bool = False, defer_taskrun: bool = False) -> None:
        self._ring = open_ring(entries, sqpoll=sqpoll, defer_taskrun=defer_taskrun)
        self._owner = 0  # in a forked process: the one that made the ring
        self.calls = _hot.Calls(int(ffi.cast("uintptr_t", self._ring)), Completion, blame)
        self._held: dict[int, Operation] = {}
        self._done: list[Completion] = []
        self._open: list[BufferRing | Incoming] = []
        self._closing = threading.Lock()
        self._pinned: list[Any] = []  # the registered buffers
        self._files = False
        self._groups = 0  # of provided buffers
        forks.register(self)

    @property
    def closed(self) -> bool:
        return not self._ring

    @property
    def in_flight(self) -> int:
        """The number of started operations that have not been reaped."""
        return len(self._held)

    def fileno(self) -> int:
        return int(lib.kl_ring_fd(self._live()))

    def supports(self, opcode: int) -> bool:
        """Whether this kernel knows the operation (IORING_REGISTER_PROBE)."""
        _checks.whole("asking what io_uring supports", "opcode", opcode, 0, 255)
        return bool(lib.kl_ring_supports(self._live(), opcode))

    # One call, one operation. `timeout` is in seconds; None waits for ever. The kernel's errors are OSError.

    def connect(self, fd: int, family: int, sockaddr: tuple[Any, ...], *, timeout: float | None = None) -> None:
        """connect(2) to a getaddrinfo address."""
        packed = pack_sockaddr(family, sockaddr)
        self._run("connect", lib.IORING_OP_CONNECT, fd, packed, offset=len(packed), timeout=timeout)

    def accept(self, fd: int, *, timeout: float | None = None) -> int:
        """accept4(2): the descriptor of a new connection, closed on exec."""
        return self._run("accept", lib.IORING_OP_ACCEPT, fd, flags=_CLOEXEC, timeout=timeout)

    def send(self, fd: int, data: Buffer, flags: int = 0, *, timeout: float | None = None) -> int:
        """send(2): how many bytes the kernel took, which may be fewer than there are."""
        try:
            return self.calls.send(fd, data, flags, timeout)
        except WRONG:
            self._blame("send", fd, data, flags, timeout)
            raise

    def recv_into(self, fd: int, buffer: Buffer, flags: int = 0, *, timeout: float | None = None) -> int:
        """recv(2) into a writable buffer: how many bytes came, 0 at the end."""
        try:
            return self.calls.recv_into(fd, buffer, flags, timeout)
        except WRONG:
            self._blame("recv_into", fd, buffer, flags, timeout)
            raise

    def send_record(self, fd: int, data: Buffer, record_type: int, *, timeout: float | None = None) -> int:
        """sendmsg(2) with TLS_SET_RECORD_TYPE."""
        try:
            return self.calls.send_record(fd, data, record_type, timeout)
        except WRONG:
            self._blame("send_record", fd, data, record_type, timeout)
            raise

    def recv_record(self, fd: int, buffer: Buffer, flags: int = 0, *, timeout: float | None = None) -> tuple[int, int]:
        """recvmsg(2) with room for TLS_GET_RECORD_TYPE: (bytes, record type); the type is -1 where kTLS names none."""
        try:
            return self.calls.recv_record(fd, buffer, flags, timeout)
        except WRONG:
            self._blame("recv_record", fd, buffer, flags, timeout)
            raise

    def send_many(self, fd: int, buffers: Sequence[Buffer], flags: int = 0, *, timeout: float | None = None) -> int:
        """Send all buffers in order, each by an operation of its own, with one submission and one wait.

        After a short send, the rest is sent too. Returns how many bytes were sent. These are fewer than all only if the
        socket failed or nothing moved for `timeout` seconds; if none were sent, that error is raised. With `flags`, the
        buffers are sent one at a time.
        """
        try:
            return self.calls.send_many(fd, buffers, flags, timeout)
        except WRONG:
            self._blame("send_many", fd, buffers, flags, timeout)
            raise

    def shutdown(self, fd: int, how: int) -> None:
        """shutdown(2): SHUT_RD, SHUT_WR or SHUT_RDWR."""
        _checks.whole("shutdown by io_uring", "how", how, socket.SHUT_RD, socket.SHUT_RDWR)
        self._run("shutdown", lib.IORING_OP_SHUTDOWN, fd, length=how)

    def close_fd(self, fd: int) -> None:
        """close(2) of a descriptor that no Python object owns."""
        self._run("close", lib.IORING_OP_CLOSE, fd)

    def _run(
        self,
        call: str,
        opcode: int,
        fd: int,
        data: Buffer | None = None,
        *,
        length: int = 0,
        offset: int = 0,
        flags: int = 0,
        timeout: float | None = None,
    ) -> int:
        try:
            return self.calls.run(opcode, fd, data, length, offset, flags, timeout)
        except WRONG:
            self._blame(call, fd, b"", 0, timeout)
            raise

    # The same calls, bound to a socket and a time-out, with no Python code in between. Do not use them after the
    # descriptor is closed: its number may have been reused.

    def sender(self, fd: int, *, timeout: float | None = None) -> SendCall:
        """Bind `send`."""
        return cast("SendCall", self._bind("send", fd, timeout))

    def receiver(self, fd: int, *, timeout: float | None = None) -> RecvCall:
        """Bind `recv_into`."""
        return cast("RecvCall", self._bind("recv_into", fd, timeout))

    def record_sender(self, fd: int, *, timeout: float | None = None) -> SendRecordCall:
        """Bind `send_record`."""
        return cast("SendRecordCall", self._bind("send_record", fd, timeout))

    def record_receiver(self, fd: int, *, timeout: float | None = None) -> RecvRecordCall:
        """Bind `recv_record`."""
        return cast("RecvRecordCall", self._bind("recv_record", fd, timeout))

    def batch_sender(self, fd: int, *, timeout: float | None = None) -> SendManyCall:
        """Bind `send_many`."""
        return cast("SendManyCall", self._bind("send_many", fd, timeout))

    def _bind(self, call: str, fd: int, timeout: float | None) -> object:
        try:
            return self.calls.bind(call, fd, timeout)
        except WRONG:
            self._blame("bind", fd, b"", 0, timeout)
            raise

    def limit(self, seconds: float | None) -> None:
        """Let every later wait of the calls above last at most so long, whatever their time-out; None: no limit."""
        self.calls.limit(_checks.seconds("limiting a ring's waits", "seconds", seconds))

    # Many operations in flight.

    def start(self, *operations: Operation) -> list[int]:
        """Put operations in flight with one submission. Returns their tokens, which identify them in `reap`.

        OSError E2BIG if a chain of linked operations has more than the ring has entries: it must be submitted whole.
        """
        try:
            return self.calls.start(operations, self._held)
        except WRONG:
            tried = "starting operations"
            if not self._ring:
                raise self.gone(tried) from None
            _checks.items(tried, "operations", operations, Operation, "operations, such as Operation.send(...)")
            raise

    def reap(self, wait_for: int = 1, *, timeout: float | None = None) -> list[Completion]:
        """Wait for up to `wait_for` completions; hand out all that came, TimeoutError where none did in time."""
        # Into a list that outlives a handler that raises; what such a one left there is handed out without a wait.
        try:
            self.calls.reap(0 if self._done else wait_for, timeout, self._done, self._held)
        except WRONG:
            tried = "reaping completions"
            if not self._ring:
                raise self.gone(tried) from None
            _checks.whole(tried, "wait_for", wait_for)
            _checks.seconds(tried, "timeout", timeout, zero=True)
            raise
        done, self._done = self._done, []
        return done

    def put_back(self, completions: Sequence[Completion]) -> None:
        """Let the next `reap` return these first."""
        self._done[:0] = completions

    # Multishot receives: see buffers.py.

    def buffer_ring(self, count: int, size: int) -> BufferRing:
        """Give the kernel `count` (a power of two) buffers of `size` bytes to receive into. A context manager."""
        self._groups += 1
        buffers = BufferRing(self, self._live(), self._groups, count, size)
        self._open.append(buffers)
        return buffers

    def recv_multishot(self, fd: int, buffers: BufferRing, *, timeout: float | None = None) -> Incoming:
        """recv(2) over and over: iterate for (-1, bytes). On kTLS it fails with EIO at a control record."""
        return self._incoming(fd, buffers, timeout, typed=False)

    def recvmsg_multishot(self, fd: int, buffers: BufferRing, *, timeout: float | None = None) -> Incoming:
        """recvmsg(2) over and over: iterate for (record type, bytes), the type being -1 where kTLS names none.

        A record longer than a buffer's `size` less 40 bytes comes in parts, each with its type.
        """
        return self._incoming(fd, buffers, timeout, typed=True)

    def _incoming(self, fd: int, buffers: BufferRing, timeout: float | None, *, typed: bool) -> Incoming:
        tried, source = "starting a multishot receive", "this ring's `buffer_ring` makes them"
        _checks.whole(tried, "fd", fd, -1, MAX_INT)
        _checks.seconds(tried, "timeout", timeout, zero=True)
        if _checks.instance(tried, "buffers", buffers, BufferRing, source).ring is not self:
            answered, remedy = "the buffers belong to another ring", "Make them by this ring's `buffer_ring`."
            raise UsageError(tried, answered=answered, remedy=remedy)
        incoming = Incoming(buffers, self._live(), self.calls, fd, timeout, typed=typed)
        self._open.append(incoming)
        return incoming

    def incoming(self, buffers: BufferRing) -> list[Incoming]:
        """Return the open multishot receives that use these buffers."""
        return [user for user in self._open if isinstance(user, Incoming) and user.buffers is buffers]

    def forget(self, closed: BufferRing | Incoming) -> None:
        """Forget an object that has closed itself."""
        self._open.remove(closed)

    # Looked up once instead of per operation: use `fixed_file` for files, `read_fixed` and `write_fixed` for buffers.

    def register_files(self, fds: Sequence[int]) -> None:
        """Register descriptors, in place of those before: operations name them by index. OSError as the kernel's."""
        found = _checks.items("registering files", "fds", fds, int, "a list of descriptors")
        for fd in found:
            _checks.whole("registering files", "fds", fd, -1, MAX_INT)
        self.unregister_files()
        _check(lib.kl_register_files(self._live(), found, len(found)))
        self._files = True

    def unregister_files(self) -> None:
        """Unregister the descriptors; operations in flight keep theirs."""
        if self._files:
            _check(lib.kl_register_files(self._live(), ffi.NULL, 0))
            self._files = False

    def register_buffers(self, buffers: Sequence[Buffer]) -> None:
        """Register and pin writable buffers, replacing earlier ones. Raises the kernel's OSError.

        For ENOMEM, raise `ulimit -l`. EBUSY while started operations are in flight, if there are buffers to replace:
        earlier ones, or those of `send_many`, which copies small payloads into memory of its own.
        """
        _checks.buffers("registering buffers", "buffers", buffers, writable=True)
        self.unregister_buffers()
        held = [_hot.pin(buffer, True) for buffer in buffers]  # noqa: FBT003 - C takes no keywords
        parts = ffi.new(
            "struct iovec[]", [{"iov_base": ffi.cast("void *", at), "iov_len": size} for _, at, size in held]
        )
        _check(lib.kl_register_buffers(self._live(), parts, len(held), bool(self._held)))
        self._pinned = held

    def unregister_buffers(self) -> None:
        """Unregister the buffers. OSError EBUSY while started operations are in flight, which may use one."""
        if self._pinned:
            if self._held:
                _check(-errno.EBUSY)
            _check(lib.kl_register_buffers(self._live(), ffi.NULL, 0, 0))
            self._pinned = []

    def cancel(self, token: int) -> None:
        """Ask for a started operation to be cancelled; its completion (often ECANCELED) comes by `reap`."""
        _checks.whole("cancelling an operation", "token", token)
        _check(lib.kl_cancel(self._live(), token))

    def close(self) -> None:
        """Cancel what is in flight, wait for it, free the ring. OSError EBUSY while another thread uses the ring."""
        if self.closed:
            return
        with self._closing:  # while a close in another thread is in C, which frees the ring
            if self._ring:
                for user in reversed(self._open.copy()):  # buffers after the receives that use them
                    user.close()
                for token in list(self._held):
                    self.cancel(token)
                while self._held:
                    self.reap(1)
                self.calls.close()
                lib.kl_ring_close(self._ring)
                self._ring, self._pinned = ffi.NULL, []

    def leave(self, owner: int) -> None:
        """In a forked process, release this process's copy of the descriptor, and refuse every later call."""
        if self._ring:
            self.calls.leave(partial(blame_fork, owner))
            for user in self._open:
                user.leave()
            lib.kl_ring_leave(self._ring)
            self._ring, self._owner = ffi.NULL, owner
            self._open, self._held, self._done, self._pinned = [], {}, [], []

    def gone(self, tried: str) -> UsageError:
        """Return the error for a call on a ring that is closed, or that belongs to another process."""
        return closed(tried, self._owner)

    def __del__(self) -> None:
        """Close a forgotten ring, because the kernel may still write into the buffers that it holds.

        If it cannot be closed (another thread uses it, or it belongs to another thread), the buffers are kept for ever.
        """
        if getattr(self, "calls", None) is None or self.closed:
            return
        try:
            self.close()
        except OSError:
            _ABANDONED.append((self._held, self._pinned))

    def __repr__(self) -> str:
        if self._owner:
            return f"Ring(of process {self._owner})"
        return "Ring(closed)" if self.closed else f"Ring(fd={self.fileno()}, in_flight={self.in_flight})"

    def _live(self) -> Any:
        if not self._ring:
            raise self.gone("using a ring")
        return self._ring

    def _blame(self, call: str, fd: object, data: object, number: object, timeout: object) -> None:
        """Raise UsageError where one of a failed call's arguments is at fault, or the ring was closed."""
        if not self._ring:
            raise self.gone(f"{call} by io_uring") from None
        blame(call, self._ring, fd, data, number)
        _checks.seconds(f"{call} by io_uring", "timeout", timeout, zero=True)


def transfer(ring: Ring, operations: Sequence[Operation], *, timeout: float | None = None) -> list[int]:
    """Run operations with one submission and return their results in order, minus an errno where one failed.

    Completions of other operations are kept for a later `reap`. Raises TimeoutError, and OSError E2BIG if there are
    more operations than the ring has entries.
    """
    tokens = ring.start(*operations)
    results: dict[int, int] = {}
    left = set(tokens)
    others: list[Completion] = []
    try:
        while left:
            for completion in ring.reap(1, timeout=timeout):
                if completion.token not in left:
                    others.append(completion)
                    continue
                results.setdefault(completion.token, completion.result)  # a second one would be a notification
                if not completion.more:
                    left.discard(completion.token)
    finally:
        ring.put_back(others)
    return [results[token] for token in tokens]


def _check(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
