"""Which features of `Ring` this kernel's io_uring has, found by trying each one on a socket, never by its version."""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
from collections.abc import Callable, Iterator
from typing import Any

from ktlslab.errors import RingUnavailableError
from ktlslab.linux import capabilities
from ktlslab.linux.operations import Operation
from ktlslab.linux.ring import Ring, transfer

_SECONDS = 10.0
_REFUSALS = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM})


@functools.cache
def ring_features() -> dict[str, bool]:
    """Return each feature's name and whether it works here; all are False where there is no io_uring at all.

    The answers are kept for the life of the process. They hold for plain sockets; kTLS refuses zero-copy sends on every
    kernel.
    """
    return {name: _works(attempt) for name, attempt in _ATTEMPTS.items()}


def _works(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    except RingUnavailableError:
        return False
    except OSError as error:
        if error.errno in _REFUSALS:
            return False
        raise


@contextlib.contextmanager
def _sockets(**setup: Any) -> Iterator[tuple[Ring, socket.socket, socket.socket]]:
    """Yield a ring and both ends of a TCP connection over loopback."""
    with Ring(8, **setup) as ring, capabilities.connected() as (ours, theirs):
        yield ring, ours, theirs


def _sends(**setup: Any) -> bool:
    with _sockets(**setup) as (ring, ours, _):
        return ring.send(ours.fileno(), b"x", 0, timeout=_SECONDS) == 1


def _buffer_rings() -> bool:
    with Ring(8) as ring, ring.buffer_ring(2, 64) as buffers:
        return not buffers.closed


def _multishot(*, typed: bool) -> bool:
    with _sockets() as (ring, ours, theirs), ring.buffer_ring(2, 64) as buffers:
        theirs.sendall(b"x")
        start = ring.recvmsg_multishot if typed else ring.recv_multishot
        with start(ours.fileno(), buffers, timeout=_SECONDS) as incoming:
            return next(incoming) == (-1, b"x")


def _send_zc() -> bool:
    with _sockets() as (ring, ours, _):
        return transfer(ring, [Operation.send_zc(ours.fileno(), b"x")], timeout=_SECONDS) == [1]


_ATTEMPTS: dict[str, Callable[[], bool]] = {
    "sqpoll": lambda: _sends(sqpoll=True),
    "defer_taskrun": lambda: _sends(defer_taskrun=True),
    "buffer_rings": _buffer_rings,
    "recv_multishot": lambda: _multishot(typed=False),
    "recvmsg_multishot": lambda: _multishot(typed=True),
    "send_zc": _send_zc,
    "setsockopt": lambda: bool(capabilities.uring_setsockopt()),
}
