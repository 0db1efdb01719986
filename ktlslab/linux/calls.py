"""What a ring's calls take: the types of bound ones, an address's layout, what was wrong with one that failed."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any, Never, Protocol

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.linux import forks
from ktlslab.linux.operations import Buffer


class SendCall(Protocol):
    """send(2) on one socket: how many bytes the kernel took. Arguments go by position, as in all of these."""

    def __call__(self, data: Buffer, flags: int = 0, /) -> int: ...


class RecvCall(Protocol):
    """recv(2) on one socket: how many bytes came, 0 at the end."""

    def __call__(self, buffer: Buffer, flags: int = 0, /) -> int: ...


class SendRecordCall(Protocol):
    """sendmsg(2) with TLS_SET_RECORD_TYPE on one socket."""

    def __call__(self, data: Buffer, record_type: int, /) -> int: ...


class RecvRecordCall(Protocol):
    """recvmsg(2) with TLS_GET_RECORD_TYPE on one socket: (bytes, record type or -1)."""

    def __call__(self, buffer: Buffer, flags: int = 0, /) -> tuple[int, int]: ...


class SendManyCall(Protocol):
    """Ring.send_many on one socket."""

    def __call__(self, buffers: Sequence[Buffer], flags: int = 0, /) -> int: ...


MAX_INT = (1 << 31) - 1  # C's int


def blame(call: str, is_open: object, fd: object, data: object = b"", number: object = 0) -> None:
    """Raise UsageError where one of a failed call's arguments is at fault, or the ring was closed."""
    tried = f"{call} by io_uring"
    if not is_open:
        raise closed(tried) from None
    _checks.whole(tried, "fd", fd, -1, MAX_INT)
    if call == "send_many":
        _checks.buffers(tried, "buffers", data)
    else:
        receives = call.startswith("recv")
        _checks.buffer(tried, "buffer" if receives else "data", data, writable=receives)
    if call == "send_record":
        _checks.whole(tried, "record_type", number, 0, 255)
    else:
        _checks.whole(tried, "flags", number, 0, MAX_INT)


def blame_fork(owner: int, call: str, *_: object) -> Never:
    """Raise UsageError for a call in a child of the process that owns the ring."""
    raise closed(f"{call} by io_uring", owner) from None


def closed(tried: str, owner: int = 0) -> UsageError:
    """Return the error for a closed ring, or for one that belongs to the process `owner`."""
    answered = forks.belongs("the ring", owner) if owner else "the ring is closed"
    return UsageError(tried, answered=answered, remedy="Open another: `with Ring() as ring`.")


def pack_sockaddr(family: int, sockaddr: tuple[Any, ...]) -> bytes:
    """Lay out struct sockaddr_in or sockaddr_in6: ip(7), ipv6(7). UsageError where it is no such address."""
    try:
        host, port = sockaddr[:2]
        packed = socket.inet_pton(family, host.partition("%")[0])
        head = struct.pack("=H", family) + struct.pack("!H", port)
        if family == socket.AF_INET:
            return head + packed + bytes(8)
        flow, scope = (*sockaddr[2:4], 0, 0)[:2]
        return head + struct.pack("!I", flow) + packed + struct.pack("=I", scope)
    except (*_checks.WRONG, LookupError, OSError, struct.error) as error:
        remedy = "Give a family and an address as socket.getaddrinfo returns them: a numeric host, a port."
        raise UsageError("connect by io_uring", answered=f"this is not an address: {error}", remedy=remedy) from error
