"""The operations of io_uring, one constructor for each, and their completions.

An `Operation` holds all memory that the kernel reads: its buffer, its msghdr, its timespec. It may be started again,
which is cheaper than building a new one. Its fields are those of the sqe, named as in io_uring_enter(2).

`linked` starts the next operation only after this one succeeds. To io_uring a short send succeeds too, unless
MSG_WAITALL is given, which kTLS refuses; where that matters, link writes instead. `hardlinked` starts the next
operation after this one, even if it fails. `fixed_file` means that `fd` is an index into the registered files.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict, Unpack

from ktlslab import _checks
from ktlslab._checks import WRONG
from ktlslab.errors import UsageError
from ktlslab.linux import _hot, _native

Buffer = bytes | bytearray | memoryview

ffi, lib = _native.ffi, _native.lib

_TRIED = "preparing an operation"
_NOSIGNAL = int(socket.MSG_NOSIGNAL)
_ANYWHERE = (1 << 64) - 1  # splice(2): an offset of -1 is none


class How(TypedDict, total=False):
    """How an operation is started; the same for all operations."""

    linked: bool
    hardlinked: bool
    fixed_file: bool


class Completion(NamedTuple):
    """The completion of a started operation. `result` is a count, or minus an errno."""

    token: int
    result: int
    flags: int

    @property
    def more(self) -> bool:
        """Whether the operation continues, so that another completion with this token will come."""
        return bool(self.flags & lib.IORING_CQE_F_MORE)

    @property
    def notification(self) -> bool:
        """Whether this only reports that a zero-copy send has released its buffer; `result` is then not a count."""
        return bool(self.flags & lib.IORING_CQE_F_NOTIF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation to `start`: build it with `Operation.send` and its siblings."""

    opcode: int
    fd: int
    address: Any = None
    length: int = 0
    offset: int = 0
    op_flags: int = 0
    linked: bool = False
    hardlinked: bool = False
    fixed_file: bool = False
    index: int = 0  # of a registered buffer
    second: int = 0  # splice(2)'s other descriptor, a socket option's length
    third: int = 0  # a socket option's value
    keep: tuple[Any, ...] = field(default=(), repr=False)
    packed: bytes = field(init=False, repr=False, compare=False)  # struct kl_operation, for the ring

    def __post_init__(self) -> None:
        address = self.address
        if not isinstance(address, int):
            address = 0 if address is None else int(ffi.cast("uintptr_t", address))
        values = (self.opcode, self.fd, address, self.length, self.offset, self.op_flags)
        try:
            flags = self.linked * lib.IOSQE_IO_LINK | self.hardlinked * lib.IOSQE_IO_HARDLINK
            flags |= self.fixed_file * lib.IOSQE_FIXED_FILE
            packed = _hot.pack(*values, flags, self.index, self.second, self.third)
        except WRONG as error:
            remedy = "Descriptors, counts, offsets and flags are whole numbers."
            raise UsageError(_TRIED, answered=str(error), remedy=remedy) from error
        object.__setattr__(self, "packed", packed)

    @classmethod
    def nop(cls, **how: Unpack[How]) -> Operation:
        return cls(opcode=lib.IORING_OP_NOP, fd=-1, **how)

    @classmethod
    def send(cls, fd: int, data: Buffer, *, flags: int = 0, **how: Unpack[How]) -> Operation:
        """send(2)."""
        pin, address, size = _pin(data)
        return cls(
            opcode=lib.IORING_OP_SEND,
            fd=fd,
            address=address,
            length=size,
            keep=(pin,),
            op_flags=_quiet(flags),
            **how,
        )

    @classmethod
    def recv(cls, fd: int, buffer: Buffer, *, flags: int = 0, **how: Unpack[How]) -> Operation:
        """recv(2) into `buffer`, which must be writable."""
        pin, address, size = _pin(buffer, writable=True)
        return cls(opcode=lib.IORING_OP_RECV, fd=fd, address=address, length=size, keep=(pin,), op_flags=flags, **how)

    @classmethod
    def send_zc(cls, fd: int, data: Buffer, *, flags: int = 0, **how: Unpack[How]) -> Operation:
        """Send without a copy (kernel 6.0).

        There are two completions: the result, then a notification when the kernel has released `data`. kTLS refuses
        with EOPNOTSUPP, and the notification comes anyway.
        """
        pin, address, size = _pin(data)
        return cls(
            opcode=lib.KL_OP_SEND_ZC,
            fd=fd,
            address=address,
            length=size,
            keep=(pin,),
            op_flags=_quiet(flags),
            **how,
        )

    @classmethod
    def write(cls, fd: int, data: Buffer, **how: Unpack[How]) -> Operation:
        """write(2), also on kTLS. If linked, a short write breaks the chain. It may raise SIGPIPE."""
        pin, address, size = _pin(data)
        return cls(opcode=lib.IORING_OP_WRITE, fd=fd, address=address, length=size, keep=(pin,), **how)

    @classmethod
    def read(cls, fd: int, buffer: Buffer, **how: Unpack[How]) -> Operation:
        """read(2) into `buffer`, which must be writable."""
        pin, address, size = _pin(buffer, writable=True)
        return cls(opcode=lib.IORING_OP_READ, fd=fd, address=address, length=size, keep=(pin,), **how)

    @classmethod
    def write_fixed(cls, fd: int, data: Buffer, index: int, **how: Unpack[How]) -> Operation:
        """write(2) from (a view of) the registered buffer `index`, whose pages the kernel has already pinned."""
        pin, address, size = _pin(data)
        return cls(
            opcode=lib.IORING_OP_WRITE_FIXED, fd=fd, address=address, length=size, keep=(pin,), index=index, **how
        )

    @classmethod
    def read_fixed(cls, fd: int, buffer: Buffer, index: int, **how: Unpack[How]) -> Operation:
        """read(2) into (a view of) the registered buffer `index`."""
        pin, address, size = _pin(buffer, writable=True)
        return cls(
            opcode=lib.IORING_OP_READ_FIXED, fd=fd, address=address, length=size, keep=(pin,), index=index, **how
        )

    @classmethod
    def sendmsg(cls, fd: int, data: Buffer, record_type: int, *, flags: int = 0, **how: Unpack[How]) -> Operation:
        """sendmsg(2) with TLS_SET_RECORD_TYPE."""
        _checks.whole(_TRIED, "record_type", record_type, 0, 255)
        message, (pin, address, size) = ffi.new("struct kl_message *"), _pin(data)
        lib.kl_message_prepare(message, ffi.cast("void *", address), size, record_type)
        op_flags = _quiet(flags)
        return cls(
            opcode=lib.IORING_OP_SENDMSG, fd=fd, address=message, length=1, op_flags=op_flags, keep=(pin,), **how
        )

    @classmethod
    def recvmsg(cls, fd: int, buffer: Buffer, *, flags: int = 0, **how: Unpack[How]) -> Operation:
        """recvmsg(2) with room for TLS_GET_RECORD_TYPE, which is then `record_type`. Start it only once."""
        message, (pin, address, size) = ffi.new("struct kl_message *"), _pin(buffer, writable=True)
        lib.kl_message_prepare(message, ffi.cast("void *", address), size, -1)
        return cls(opcode=lib.IORING_OP_RECVMSG, fd=fd, address=message, length=1, op_flags=flags, keep=(pin,), **how)

    @property
    def record_type(self) -> int:
        """The record type that a completed `recvmsg` received; -1 if kTLS reported none, and for a `sendmsg`."""
        return int(lib.kl_message_type(self.address)) if self.opcode == lib.IORING_OP_RECVMSG else -1

    @classmethod
    def splice(
        cls,
        fd_in: int,
        fd_out: int,
        count: int,
        *,
        offset_in: int = -1,
        offset_out: int = -1,
        flags: int = 0,
        **how: Unpack[How],
    ) -> Operation:
        """splice(2), one end of which is a pipe; an offset of -1 is the file's own, and all a pipe or socket has."""
        for name, offset in (("offset_in", offset_in), ("offset_out", offset_out)):
            _checks.whole(_TRIED, name, offset, -1)
        return cls(
            opcode=lib.IORING_OP_SPLICE,
            fd=fd_out,
            address=offset_in & _ANYWHERE,
            length=count,
            offset=offset_out & _ANYWHERE,
            op_flags=flags,
            second=fd_in,
            **how,
        )

    @classmethod
    def shutdown(cls, fd: int, how_much: int, **how: Unpack[How]) -> Operation:
        """shutdown(2): SHUT_RD, SHUT_WR or SHUT_RDWR."""
        return cls(opcode=lib.IORING_OP_SHUTDOWN, fd=fd, length=how_much, **how)

    @classmethod
    def close(cls, fd: int, **how: Unpack[How]) -> Operation:
        """close(2) of a descriptor that no Python object owns."""
        return cls(opcode=lib.IORING_OP_CLOSE, fd=fd, **how)

    @classmethod
    def poll_add(cls, fd: int, events: int, **how: Unpack[How]) -> Operation:
        """poll(2), once: the result is the mask of ready events (select.POLLIN and its siblings)."""
        return cls(opcode=lib.IORING_OP_POLL_ADD, fd=fd, op_flags=events, **how)

    @classmethod
    def timeout(cls, seconds: float, **how: Unpack[How]) -> Operation:
        """Complete with -ETIME after this many seconds."""
        return cls(opcode=lib.IORING_OP_TIMEOUT, fd=-1, address=_timespec(seconds), length=1, **how)

    @classmethod
    def link_timeout(cls, seconds: float, **how: Unpack[How]) -> Operation:
        """Cancel the previous operation, which must be linked to this one, after this many seconds.

        If it is cancelled, its result is -ECANCELED and this one's is -ETIME. Otherwise this one's is -ECANCELED.
        """
        return cls(opcode=lib.IORING_OP_LINK_TIMEOUT, fd=-1, address=_timespec(seconds), length=1, **how)

    @classmethod
    def setsockopt(cls, fd: int, level: int, option: int, value: Buffer, **how: Unpack[How]) -> Operation:
        """setsockopt(2) (SOCKET_URING_OP_SETSOCKOPT, kernel 6.7): -EOPNOTSUPP or -EINVAL if it is not supported."""
        pin, address, size = _pin(value)
        for name, number in (("level", level), ("option", option)):
            _checks.whole(_TRIED, name, number, 0, (1 << 31) - 1)
        return cls(
            opcode=lib.KL_OP_URING_CMD,
            fd=fd,
            address=level | option << 32,
            offset=lib.KL_SOCKET_SETSOCKOPT,
            second=size,
            third=address,
            keep=(pin,),
            **how,
        )


def _pin(buffer: Buffer, *, writable: bool = False) -> tuple[object, int, int]:
    """Return (the object that pins the buffer, address, bytes). UsageError if it is not a buffer."""
    try:
        return _hot.pin(buffer, writable)
    except WRONG:
        _checks.buffer(_TRIED, "buffer" if writable else "data", buffer, writable=writable)
        raise


def _quiet(flags: int) -> int:
    """Return a send's flags with MSG_NOSIGNAL."""
    try:
        return flags | _NOSIGNAL
    except TypeError:
        _checks.whole(_TRIED, "flags", flags)
        raise


def _timespec(seconds: float) -> Any:
    _checks.number(_TRIED, "seconds", seconds, 0, _checks.MAX_SECONDS, source="seconds from 0 on")
    whole, rest = divmod(int(seconds * 1e9), 1_000_000_000)
    return ffi.new("struct __kernel_timespec *", {"tv_sec": whole, "tv_nsec": rest})
