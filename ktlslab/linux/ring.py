"""io_uring for one thread: a context manager whose calls prepare, submit, wait and reap in one step.

The ownership rule of completion-based I/O: from submission to completion a buffer belongs to the kernel, and must not
be moved or freed. The ring keeps this rule in two ways. A plain call (`send`, `recv_into`, ...) holds its buffer and
returns only after the completion; a time-out or Ctrl-C first cancels the operation and waits for its completion. An
operation begun with `start` is held here, with its buffer, until `reap` returns its completion; `close` cancels the
remaining ones and waits for them. While a bytearray is held, Python refuses to resize it (BufferError).

The GIL is released during system calls, so other threads continue. Only one thread at a time may use a ring.

Source: io_uring_enter(2), io_uring_setup(2).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Protocol, cast

from ktlslab._closing import Closing
from ktlslab.errors import RingUnavailableError, UsageError
from ktlslab.linux import _hot, _native
from ktlslab.linux.arguments import WRONG, need_buffer, need_buffers, need_number, need_timeout
from ktlslab.linux.buffers import BufferRing, Incoming
from ktlslab.linux.operations import Buffer, Completion, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LIBURING", "Buffer", "Completion", "Operation", "Ring", "transfer"]

ffi, lib = _native.ffi, _native.lib
LIBURING = ffi.string(lib.kl_liburing()).decode()  # the version that the C part was built with, "" if unknown

_CLOEXEC = int(socket.SOCK_CLOEXEC)

# Completions without an interrupt to this thread. If the kernel does not know the flag, the ring is made without it.
_PLAIN: tuple[int, ...] = (lib.IORING_SETUP_COOP_TASKRUN, 0)
# A kernel thread takes submissions. It sleeps after an idle second, the kernel's default.
_SQPOLL: tuple[int, ...] = (lib.IORING_SETUP_SQPOLL,)
# Completions are processed only on request; a flag shows whether some are pending.
_DEFERRED: tuple[int, ...] = (
    lib.IORING_SETUP_SINGLE_ISSUER | lib.IORING_SETUP_DEFER_TASKRUN | lib.IORING_SETUP_TASKRUN_FLAG,
)

_ABANDONED: list[Any] = []  # what forgotten rings hold that could not be closed


class Sender(Protocol):
    """send(2) on one socket: how many bytes the kernel took. The arguments of all these are positional."""

    def __call__(self, data: Buffer, flags: int = 0, /) -> int: ...


class Receiver(Protocol):
    """recv(2) on one socket: how many bytes were received, 0 at the end."""

    def __call__(self, buffer: Buffer, flags: int = 0, /) -> int: ...


class RecordSender(Protocol):
    """sendmsg(2) with TLS_SET_RECORD_TYPE on one socket."""

    def __call__(self, data: Buffer, record_type: int, /) -> int: ...


class RecordReceiver(Protocol):
    """recvmsg(2) with TLS_GET_RECORD_TYPE on one socket: (bytes, record type or -1)."""

    def __call__(self, buffer: Buffer, flags: int = 0, /) -> tuple[int, int]: ...


class BatchSender(Protocol):
    """Ring.send_many on one socket."""

    def __call__(self, buffers: Sequence[Buffer], flags: int = 0, /) -> int: ...


class Ring(Closing):
    """io_uring with room for `entries` operations. RingUnavailableError says why it is not available.

    `sqpoll`: a kernel thread fetches submissions, so submitting needs no system call while it is awake. `defer_taskrun`
    (kernel 6.1): completions are processed only while this program waits for them; only the thread that made the ring
    may use it (OSError EEXIST in another). No kernel allows both together.
    """

    def __init__(self, entries: int = 64, *, sqpoll: bool = False, defer_taskrun: bool = False) -> None:
        error = ffi.new("int *")
        for flags in _setups(sqpoll=sqpoll, defer_taskrun=defer_taskrun):
            self._ring = lib.kl_ring_open(entries, flags, error)
            if self._ring or error[0] != -errno.EINVAL:
                break
        if not self._ring:
            raise _unavailable(-error[0], sqpoll=sqpoll, defer_taskrun=defer_taskrun)
        self._process = os.getpid()
        self._calls = _hot.Calls(int(ffi.cast("uintptr_t", self._ring)), Completion)
        self._held: dict[int, Operation] = {}
        self._done: list[Completion] = []
        self._open: list[BufferRing | Incoming] = []
        self._pinned: list[Any] = []  # the registered buffers
        self._files = False
        self._groups = 0  # of provided buffers

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
        return bool(lib.kl_ring_supports(self._live(), opcode))

    # One call, one operation. `timeout` is in seconds; None waits for ever. The kernel's errors are OSError.

    def connect(self, fd: int, family: int, sockaddr: tuple[Any, ...], timeout: float | None = None) -> None:
        """connect(2) to a getaddrinfo address."""
        packed = _pack_sockaddr(family, sockaddr)
        self._calls.run(lib.IORING_OP_CONNECT, fd, packed, 0, len(packed), 0, timeout)

    def accept(self, fd: int, timeout: float | None = None) -> int:
        """accept4(2): the descriptor of a new connection, closed on exec."""
        return self._calls.run(lib.IORING_OP_ACCEPT, fd, None, 0, 0, _CLOEXEC, timeout)

    def send(self, fd: int, data: Buffer, flags: int = 0, timeout: float | None = None) -> int:
        """send(2): how many bytes the kernel took, which may be fewer than there are."""
        try:
            return self._calls.send(fd, data, flags, timeout)
        except WRONG:
            self._blame("send", fd, timeout, data=data)
            raise

    def recv_into(self, fd: int, buffer: Buffer, flags: int = 0, timeout: float | None = None) -> int:
        """recv(2) into a writable buffer: how many bytes were received, 0 at the end."""
        try:
            return self._calls.recv_into(fd, buffer, flags, timeout)
        except WRONG:
            self._blame("recv_into", fd, timeout, room=buffer)
            raise

    def send_record(self, fd: int, data: Buffer, record_type: int, timeout: float | None = None) -> int:
        """sendmsg(2) with TLS_SET_RECORD_TYPE."""
        need_number("sending a record by io_uring", "the record type", record_type, 0, 255)  # C would truncate it
        try:
            return self._calls.send_record(fd, data, record_type, timeout)
        except WRONG:
            self._blame("send_record", fd, timeout, data=data)
            raise

    def recv_record(self, fd: int, buffer: Buffer, flags: int = 0, timeout: float | None = None) -> tuple[int, int]:
        """recvmsg(2) with room for TLS_GET_RECORD_TYPE: (bytes, record type); the type is -1 if kTLS reports none."""
        try:
            return self._calls.recv_record(fd, buffer, flags, timeout)
        except WRONG:
            self._blame("recv_record", fd, timeout, room=buffer)
            raise

    def send_many(self, fd: int, buffers: Sequence[Buffer], timeout: float | None = None, flags: int = 0) -> int:
        """Send all buffers in order, each by its own operation, with one submission and one wait.

        After a short send, the rest is sent too. Returns how many bytes were sent. These are fewer than all only if the
        socket failed or nothing moved for `timeout` seconds; if none were sent, that error is raised. With `flags`, the
        buffers are sent one at a time.
        """
        try:
            return self._calls.send_many(fd, buffers, flags, timeout)
        except WRONG:
            self._blame("send_many", fd, timeout, buffers=buffers)
            raise

    def shutdown(self, fd: int, how: int) -> None:
        """shutdown(2)."""
        self._calls.run(lib.IORING_OP_SHUTDOWN, fd, None, how, 0, 0, None)

    def close_fd(self, fd: int) -> None:
        """close(2) of a descriptor that no Python object owns."""
        self._calls.run(lib.IORING_OP_CLOSE, fd, None, 0, 0, 0, None)

    # The same calls, bound to a socket and a time-out, with no Python code in between. Do not use them after the
    # descriptor is closed: its number may have been reused.

    def sender(self, fd: int, timeout: float | None = None) -> Sender:
        """Bind `send`."""
        return cast("Sender", self._calls.bind("send", fd, timeout))

    def receiver(self, fd: int, timeout: float | None = None) -> Receiver:
        """Bind `recv_into`."""
        return cast("Receiver", self._calls.bind("recv_into", fd, timeout))

    def record_sender(self, fd: int, timeout: float | None = None) -> RecordSender:
        """Bind `send_record`."""
        return cast("RecordSender", self._calls.bind("send_record", fd, timeout))

    def record_receiver(self, fd: int, timeout: float | None = None) -> RecordReceiver:
        """Bind `recv_record`."""
        return cast("RecordReceiver", self._calls.bind("recv_record", fd, timeout))

    def batch_sender(self, fd: int, timeout: float | None = None) -> BatchSender:
        """Bind `send_many`."""
        return cast("BatchSender", self._calls.bind("send_many", fd, timeout))

    # Many operations in flight.

    def start(self, *operations: Operation) -> list[int]:
        """Put operations in flight with one submission. Returns their tokens, which identify them in `reap`.

        OSError E2BIG if a chain of linked operations has more than the ring has entries: it must be submitted whole.
        """
        return self._calls.start(operations, self._held)

    def reap(self, wait_for: int = 1, timeout: float | None = None) -> list[Completion]:
        """Wait for up to `wait_for` completions; return all that came, TimeoutError if none did in time."""
        # The list survives a signal handler that raises; completions left in it are returned without a wait.
        self._calls.reap(0 if self._done else wait_for, timeout, self._done, self._held)
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

    def recv_multishot(self, fd: int, buffers: BufferRing, timeout: float | None = None) -> Incoming:
        """Multishot recv(2): iterate for (-1, bytes). On kTLS it fails with EIO at a control record."""
        return self._incoming(fd, buffers, timeout, typed=False)

    def recvmsg_multishot(self, fd: int, buffers: BufferRing, timeout: float | None = None) -> Incoming:
        """Multishot recvmsg(2): iterate for (record type, bytes); the type is -1 if kTLS reports none.

        A record longer than a buffer's `size` less 40 bytes comes in parts, each with its type.
        """
        return self._incoming(fd, buffers, timeout, typed=True)

    def _incoming(self, fd: int, buffers: BufferRing, timeout: float | None, *, typed: bool) -> Incoming:
        if buffers.ring is not self:
            answered, remedy = "the buffers belong to another ring", "Make them with this ring's `buffer_ring`."
            raise UsageError("starting a multishot receive", answered=answered, remedy=remedy)
        incoming = Incoming(buffers, self._live(), self._calls, fd, timeout, typed=typed)
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
        """Register descriptors, replacing earlier ones; operations use their index. Raises the kernel's OSError."""
        self.unregister_files()
        _check(lib.kl_register_files(self._live(), list(fds), len(fds)))
        self._files = True

    def unregister_files(self) -> None:
        """Unregister the descriptors; operations in flight keep theirs."""
        if self._files:
            _check(lib.kl_register_files(self._live(), ffi.NULL, 0))
            self._files = False

    def register_buffers(self, buffers: Sequence[Buffer]) -> None:
        """Register and pin writable buffers, replacing earlier ones. Raises the kernel's OSError.

        For ENOMEM, raise `ulimit -l`.
        """
        self.unregister_buffers()
        held = [_hot.pin(buffer, True) for buffer in buffers]  # noqa: FBT003 - C takes no keywords
        parts = ffi.new(
            "struct iovec[]", [{"iov_base": ffi.cast("void *", at), "iov_len": size} for _, at, size in held]
        )
        _check(lib.kl_register_buffers(self._live(), parts, len(held)))
        self._pinned = held

    def unregister_buffers(self) -> None:
        """Unregister the buffers. OSError EBUSY while started operations are in flight, which may use one."""
        if self._pinned:
            if self._held:
                _check(-errno.EBUSY)
            _check(lib.kl_register_buffers(self._live(), ffi.NULL, 0))
            self._pinned = []

    def cancel(self, token: int) -> None:
        """Request that a started operation be cancelled; `reap` returns its completion (often ECANCELED)."""
        _check(lib.kl_cancel(self._live(), token))

    def close(self) -> None:
        """Cancel what is in flight, wait for it, free the ring. OSError EBUSY while another thread uses the ring."""
        if self._ring:
            for user in reversed(self._open.copy()):  # buffers after the receives that use them
                user.close()
            for token in list(self._held):
                self.cancel(token)
            while self._held:
                self.reap(1)
            self._calls.close()
            lib.kl_ring_close(self._ring)
            self._ring, self._pinned = ffi.NULL, []

    def __del__(self) -> None:
        """Close a forgotten ring, because the kernel may still write into the buffers that it holds.

        If it cannot be closed (another thread uses it, or it belongs to another thread), the buffers are kept for ever.
        A forked process does not touch its parent's ring.
        """
        if getattr(self, "_calls", None) is None or self.closed or self._process != os.getpid():
            return
        try:
            self.close()
        except OSError:
            _ABANDONED.append((self._held, self._pinned))

    def __repr__(self) -> str:
        return "Ring(closed)" if self.closed else f"Ring(fd={self.fileno()}, in_flight={self.in_flight})"

    def _live(self) -> Any:
        if not self._ring:
            raise _closed("using a ring")
        return self._ring

    def _blame(
        self,
        call: str,
        fd: object,
        timeout: object,
        *,
        data: object = b"",
        room: object = None,
        buffers: object = (),
    ) -> None:
        """Raise UsageError if one of a call's arguments is at fault, or the ring is closed."""
        tried = f"{call} by io_uring"
        if not self._ring:
            raise _closed(tried) from None
        need_number(tried, "the descriptor", fd, -1, 1 << 30)
        need_timeout(tried, timeout)
        need_buffers(tried, buffers)
        need_buffer(tried, data)
        if room is not None or call.startswith("recv"):
            need_buffer(tried, room, writable=True)


def transfer(ring: Ring, operations: Sequence[Operation], timeout: float | None = None) -> list[int]:
    """Run operations with one submission and return their results in order; a failed one gives minus its errno.

    Completions of other operations are kept for a later `reap`. Raises TimeoutError, and OSError E2BIG if there are
    more operations than the ring has entries.
    """
    tokens = ring.start(*operations)
    results: dict[int, int] = {}
    left = set(tokens)
    others: list[Completion] = []
    try:
        while left:
            for completion in ring.reap(1, timeout):
                if completion.token not in left:
                    others.append(completion)
                    continue
                results.setdefault(completion.token, completion.result)  # a second one would be a notification
                if not completion.more:
                    left.discard(completion.token)
    finally:
        ring.put_back(others)
    return [results[token] for token in tokens]


def _closed(tried: str) -> UsageError:
    return UsageError(tried, answered="the ring is closed", remedy="Open another: `with Ring() as ring`.")


def _check(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _pack_sockaddr(family: int, sockaddr: tuple[Any, ...]) -> bytes:
    """Lay out struct sockaddr_in or sockaddr_in6: ip(7), ipv6(7)."""
    host, port = sockaddr[:2]
    packed = socket.inet_pton(family, host.partition("%")[0])
    head = struct.pack("=H", family) + struct.pack("!H", port)
    if family == socket.AF_INET:
        return head + packed + bytes(8)
    flow, scope = (*sockaddr[2:4], 0, 0)[:2]
    return head + struct.pack("!I", flow) + packed + struct.pack("=I", scope)


def _setups(*, sqpoll: bool, defer_taskrun: bool) -> tuple[int, ...]:
    """Return the flags to try in order, since a kernel may not know them."""
    if sqpoll and defer_taskrun:
        return (_SQPOLL[0] | _DEFERRED[0],)
    return _SQPOLL if sqpoll else _DEFERRED if defer_taskrun else _PLAIN


def _unavailable(number: int, *, sqpoll: bool, defer_taskrun: bool) -> RingUnavailableError:
    remedies = {
        errno.ENOSYS: "This kernel has no io_uring (added in 5.1), or a seccomp filter hides it; "
        "in a container allow the io_uring system calls, otherwise use io_engine='syscall'.",
        errno.EPERM: "`sysctl kernel.io_uring_disabled` must be 0 (2 forbids it, 1 leaves it to a group); in a "
        "container the seccomp profile must allow io_uring_setup. Otherwise use io_engine='syscall'.",
        errno.ENOMEM: "The locked memory limit is too small: raise `ulimit -l`.",
        errno.EMFILE: "Too many open files: close some, or raise `ulimit -n`.",
        errno.EINVAL: "The number of entries must be between 1 and 32768.",
    }
    remedy = remedies.get(number, "Use io_engine='syscall' instead.")
    asked = [name for name, on in (("sqpoll", sqpoll), ("defer_taskrun", defer_taskrun)) if on]
    if asked and number in {errno.EINVAL, errno.EPERM}:
        remedy = f"This kernel may not support {' with '.join(asked)}: leave it out. {remedy}"
    tried = f"setting up an io_uring{' with ' * bool(asked)}{' and '.join(asked)}"
    return RingUnavailableError(tried, errno=number, remedy=remedy)
