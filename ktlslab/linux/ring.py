"""io_uring for one thread: a context manager whose one call prepares, submits, waits and reaps.

The ownership rule of completion-based I/O: from submission to completion a buffer belongs to the kernel and must
neither move nor be freed. It is kept in two ways. A plain call (`send`, `recv_into`, ...) holds its buffer and comes
back only with the completion in hand; a time-out or Ctrl-C first cancels the operation and waits for what became of it.
An operation begun with `start` is held here, buffer included, until `reap` hands out its completion; `close` cancels
what is left and waits for it. While a bytearray is held, Python itself refuses to resize it (BufferError).

The GIL is released while the kernel works, so other threads go on. The ring itself is for one thread at a time.

Source: io_uring_enter(2), io_uring_setup(2).
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ktlslab._closing import Closing
from ktlslab.errors import RingUnavailableError, errno_name
from ktlslab.linux import _native

if TYPE_CHECKING:
    from collections.abc import Sequence


Buffer = bytes | bytearray | memoryview

ffi, lib = _native.ffi, _native.lib

_FOREVER: int = lib.KL_FOREVER
_INTERRUPTED: int = lib.KL_INTERRUPTED
_SEND: int = lib.IORING_OP_SEND
_RECV: int = lib.IORING_OP_RECV
_SENDMSG: int = lib.IORING_OP_SENDMSG
_RECVMSG: int = lib.IORING_OP_RECVMSG
_CONNECT: int = lib.IORING_OP_CONNECT
_NOP: int = lib.IORING_OP_NOP
_SHUTDOWN: int = lib.IORING_OP_SHUTDOWN
_CLOSE: int = lib.IORING_OP_CLOSE
_NOSIGNAL = int(socket.MSG_NOSIGNAL)  # an int: or-ing the enum costs 8,000 instructions

# Completions without an interrupt to this thread; a kernel that does not know the flag is asked again without it.
_SETUP_FLAGS: tuple[int, ...] = (lib.IORING_SETUP_COOP_TASKRUN, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation to `start`: build it with `Operation.send` and its siblings. It holds the buffer it needs."""

    opcode: int
    fd: int
    address: Any = None
    length: int = 0
    offset: int = 0
    op_flags: int = 0
    linked: bool = False

    @classmethod
    def send(cls, fd: int, data: Buffer, *, flags: int = 0, linked: bool = False) -> Operation:
        """send(2). `linked` starts the next operation only when this one has done all it was asked to."""
        held = ffi.from_buffer(data)
        return cls(opcode=_SEND, fd=fd, address=held, length=len(held), op_flags=flags | _NOSIGNAL, linked=linked)

    @classmethod
    def recv(cls, fd: int, buffer: Buffer, *, flags: int = 0, linked: bool = False) -> Operation:
        """recv(2) into `buffer`, which must be writable."""
        held = ffi.from_buffer("char[]", buffer, True)  # noqa: FBT003 - the keyword costs 1,700
        return cls(opcode=_RECV, fd=fd, address=held, length=len(held), op_flags=flags, linked=linked)

    @classmethod
    def nop(cls, *, linked: bool = False) -> Operation:
        return cls(opcode=_NOP, fd=-1, linked=linked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What became of a started operation: `result` is a count, or minus an errno."""

    token: int
    result: int
    flags: int


class Ring(Closing):
    """io_uring with room for `entries` operations. RingUnavailableError says why there is none, and what to do."""

    def __init__(self, entries: int = 64) -> None:
        error = ffi.new("int *")
        for flags in _SETUP_FLAGS:
            self._ring = lib.kl_ring_open(entries, flags, error)
            if self._ring or error[0] != -errno.EINVAL:
                break
        if not self._ring:
            raise _unavailable(-error[0])
        self._held: dict[int, Operation] = {}
        self._done: list[Completion] = []
        self._timeout: float | None = None  # the last one, converted: it seldom changes
        self._timeout_ns = _FOREVER
        self._message = ffi.new("struct kl_message *")

    @property
    def closed(self) -> bool:
        return not self._ring

    @property
    def in_flight(self) -> int:
        """How many started operations have not been reaped."""
        return len(self._held)

    def fileno(self) -> int:
        return int(lib.kl_ring_fd(self._live()))

    def supports(self, opcode: int) -> bool:
        """Whether this kernel knows the operation (IORING_REGISTER_PROBE)."""
        return bool(lib.kl_ring_supports(self._live(), opcode))

    # One call, one operation. `timeout` is in seconds, None waits for ever; OSError as the kernel gives it.

    def connect(self, fd: int, family: int, sockaddr: tuple[Any, ...], timeout: float | None = None) -> None:
        """connect(2) to a getaddrinfo address."""
        packed = _pack_sockaddr(family, sockaddr)
        held = ffi.from_buffer(packed)
        self._run(_CONNECT, fd, held, 0, len(packed), 0, timeout, held)

    def send(self, fd: int, data: Buffer, flags: int = 0, timeout: float | None = None) -> int:
        """send(2): how many bytes the kernel took, which may be fewer than there are."""
        held = ffi.from_buffer(data)
        return self._run(_SEND, fd, held, len(held), 0, flags | _NOSIGNAL, timeout, held)

    def recv_into(self, fd: int, buffer: Buffer, flags: int = 0, timeout: float | None = None) -> int:
        """recv(2) into a writable buffer: how many bytes came, 0 at the end."""
        held = ffi.from_buffer("char[]", buffer, True)  # noqa: FBT003 - the keyword costs 1,700
        return self._run(_RECV, fd, held, len(held), 0, flags, timeout, held)

    def send_record(self, fd: int, data: Buffer, record_type: int, timeout: float | None = None) -> int:
        """sendmsg(2) with TLS_SET_RECORD_TYPE."""
        held = ffi.from_buffer(data)
        lib.kl_message_prepare(self._message, held, len(held), record_type)
        return self._run(_SENDMSG, fd, self._message, 1, 0, _NOSIGNAL, timeout, held)

    def recv_record(self, fd: int, buffer: Buffer, flags: int = 0, timeout: float | None = None) -> tuple[int, int]:
        """recvmsg(2) with room for TLS_GET_RECORD_TYPE: (bytes, record type); the type is -1 where kTLS names none."""
        held = ffi.from_buffer("char[]", buffer, True)  # noqa: FBT003 - the keyword costs 1,700
        lib.kl_message_prepare(self._message, held, len(held), -1)
        count = self._run(_RECVMSG, fd, self._message, 1, 0, flags, timeout, held)
        return count, int(lib.kl_message_type(self._message))

    def shutdown(self, fd: int, how: int) -> None:
        """shutdown(2)."""
        self._run(_SHUTDOWN, fd, ffi.NULL, how, 0, 0, None, None)

    def close_fd(self, fd: int) -> None:
        """close(2) of a descriptor that no Python object owns."""
        self._run(_CLOSE, fd, ffi.NULL, 0, 0, 0, None, None)

    # Many in flight.

    def start(self, *operations: Operation) -> list[int]:
        """Put operations in flight with one submission; returns their tokens, by which `reap` names them."""
        block = ffi.new("struct kl_operation[]", len(operations))
        for slot, operation in zip(block, operations, strict=True):
            slot.opcode, slot.fd = operation.opcode, operation.fd
            slot.addr = 0 if operation.address is None else int(ffi.cast("uintptr_t", operation.address))
            slot.len, slot.off, slot.op_flags = operation.length, operation.offset, operation.op_flags
            slot.sqe_flags = lib.IOSQE_IO_LINK if operation.linked else 0
        try:
            _check(lib.kl_start(self._live(), block, len(operations)))
        finally:  # even where a signal's handler raises: what the kernel has must be held
            tokens = [int(slot.token) for slot in block]
            self._held.update(zip(tokens, operations, strict=True))
            self._held.pop(0, None)
        return tokens

    def reap(self, wait_for: int = 1, timeout: float | None = None) -> list[Completion]:
        """Wait for up to `wait_for` completions; hand out what came, TimeoutError where none did in time."""
        room = max(wait_for, 64)
        out = ffi.new("struct kl_completion[]", room)
        try:
            while (count := lib.kl_reap(self._live(), out, room, wait_for, _nanoseconds(timeout))) == _INTERRUPTED:
                pass
        finally:  # what came is kept, even where a signal's handler raises
            for slot in itertools.takewhile(lambda slot: slot.token, out):
                self._done.append(Completion(token=int(slot.token), result=int(slot.res), flags=int(slot.flags)))
                self._held.pop(slot.token, None)
        if not self._done:
            _check(-errno.ETIMEDOUT if count == -errno.ETIME else count)
        done, self._done = self._done, []
        return done

    def cancel(self, token: int) -> None:
        """Ask for a started operation to be cancelled; its completion (often ECANCELED) comes by `reap`."""
        _check(lib.kl_cancel(self._live(), token))

    def close(self) -> None:
        """Cancel what is in flight, wait for it, free the ring."""
        if self._ring:
            for token in list(self._held):
                self.cancel(token)
            while self._held:
                self.reap(1)
            lib.kl_ring_close(self._ring)
            self._ring = ffi.NULL

    def __repr__(self) -> str:
        return "Ring(closed)" if self.closed else f"Ring(fd={self.fileno()}, in_flight={self.in_flight})"

    def _live(self) -> Any:
        if not self._ring:
            raise ValueError("the ring is closed")
        return self._ring

    def _run(  # noqa: PLR0917 - called once an operation, and keywords cost there
        self,
        opcode: int,
        fd: int,
        address: Any,
        length: int,
        offset: int,
        op_flags: int,
        timeout: float | None,
        held: Any,
    ) -> int:
        try:
            ring = self._ring or self._live()
            if timeout != self._timeout:
                self._timeout, self._timeout_ns = timeout, _nanoseconds(timeout)
            # Python runs signal handlers, which may raise, right after any of these calls: the operation is then still
            # in flight.
            try:
                result: int = lib.kl_run(ring, opcode, fd, address, length, offset, op_flags, self._timeout_ns)
                while result == _INTERRUPTED:
                    result = lib.kl_resume(ring)
            except BaseException:
                lib.kl_abandon(ring)
                raise
            return result if result >= 0 else _check(result)
        except BaseException:
            if held is not None:  # else the error's traceback would go on holding the caller's buffer
                ffi.release(held)
            raise


def transfer(ring: Ring, operations: Sequence[Operation], timeout: float | None = None) -> list[int]:
    """Run operations with one submission and return their results in order, minus an errno where one failed."""
    tokens = ring.start(*operations)
    results: dict[int, int] = {}
    while len(results) < len(tokens):
        results.update((c.token, c.result) for c in ring.reap(1, timeout))
    return [results[token] for token in tokens]


def _check(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _nanoseconds(timeout: float | None) -> int:
    return _FOREVER if timeout is None else max(0, int(timeout * 1e9))


def _pack_sockaddr(family: int, sockaddr: tuple[Any, ...]) -> bytes:
    """Lay out struct sockaddr_in or sockaddr_in6: ip(7), ipv6(7)."""
    host, port = sockaddr[:2]
    packed = socket.inet_pton(family, host.partition("%")[0])
    head = struct.pack("=H", family) + struct.pack("!H", port)
    if family == socket.AF_INET:
        return head + packed + bytes(8)
    flow, scope = (*sockaddr[2:4], 0, 0)[:2]
    return head + struct.pack("!I", flow) + packed + struct.pack("=I", scope)


def _unavailable(number: int) -> RingUnavailableError:
    remedies = {
        errno.ENOSYS: "This kernel has no io_uring (5.1 is the first with it), or a seccomp filter hides it; "
        "in a container allow the io_uring system calls, else use io_engine='syscall'.",
        errno.EPERM: "`sysctl kernel.io_uring_disabled` must be 0 (2 forbids it, 1 leaves it to a group); in a "
        "container the seccomp profile must allow io_uring_setup. Else use io_engine='syscall'.",
        errno.ENOMEM: "The locked memory limit is too small: raise `ulimit -l`.",
        errno.EMFILE: "Too many open files: close some, or raise `ulimit -n`.",
        errno.EINVAL: "The number of entries must be between 1 and 32768.",
    }
    remedy = remedies.get(number, "Use io_engine='syscall' instead.")
    return RingUnavailableError("setting up an io_uring", answered=errno_name(number), remedy=remedy)
