"""The two I/O engines behind one interface: `syscall` (blocking calls) and `uring`.

Both leave the socket blocking and bound every wait by the same number of seconds: `syscall` by SO_RCVTIMEO and
SO_SNDTIMEO, which need no extra call (Python's own socket time-out polls before each call), `uring` by the time-out of
its wait. Both raise TimeoutError for an expired wait; every other error is the kernel's OSError. In a guest whose time
leaps they wait again (see `patience`), except in `send_many` and the calls that `sender` and `receiver` return.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from ktlslab.linux import _hot, ktls
from ktlslab.linux.ktls import Direction
from ktlslab.linux.patience import T, again
from ktlslab.linux.ring import Buffer, Ring

EngineName = Literal["syscall", "uring"]
_BUSY_S = 1.0  # how long to wait for another thread to leave a ring that is closed


class Engine(Protocol):
    """Moves bytes between buffers and connected sockets. `timeout` is in seconds; None waits for ever."""

    name: EngineName
    timeout: float | None

    @property
    def calls(self) -> _hot.Calls | None: ...
    def connect(self, sock: socket.socket, sockaddr: tuple[Any, ...]) -> None: ...
    def accept(self, listener: socket.socket) -> socket.socket: ...
    def sender(self, sock: socket.socket) -> Callable[..., int]: ...
    def receiver(self, sock: socket.socket) -> Callable[[Buffer], int]: ...
    def batch_sender(self, sock: socket.socket) -> Callable[..., int] | None: ...
    def send_many(self, sock: socket.socket, buffers: Sequence[Buffer]) -> int: ...
    def send(self, sock: socket.socket, data: Buffer, flags: int = 0) -> int: ...
    def recv_into(self, sock: socket.socket, buffer: Buffer) -> int: ...
    def send_record(self, sock: socket.socket, data: Buffer, record_type: int) -> int: ...
    def recv_record(self, sock: socket.socket, buffer: Buffer) -> tuple[int, int]: ...
    def limit(self, sock: socket.socket, direction: Direction, seconds: float | None) -> None: ...
    def close(self) -> None: ...


class SyscallEngine:
    """connect(2), send(2), recv(2), sendmsg(2), recvmsg(2)."""

    name: EngineName = "syscall"
    calls = None  # for the compiled part (`_hot.Tls`): the socket carries

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout

    def connect(self, sock: socket.socket, sockaddr: tuple[Any, ...]) -> None:
        """Connect, and set the socket's time-outs."""
        sock.settimeout(self.timeout)
        try:
            sock.connect(sockaddr)
        except TimeoutError:
            _keep_connecting(sock, sockaddr, self.timeout)
        sock.settimeout(None)
        _bound(sock, self.timeout)

    def accept(self, listener: socket.socket) -> socket.socket:
        """Accept a connection and set its time-outs; the listener's own time-out is kept."""
        before = listener.gettimeout()
        listener.settimeout(self.timeout)
        try:
            sock, _ = listener.accept()
        except TimeoutError:
            sock, _ = again(self.timeout, listener.accept)
        finally:
            listener.settimeout(before)
        sock.settimeout(None)
        _bound(sock, self.timeout)
        return sock

    def sender(self, sock: socket.socket) -> Callable[..., int]:
        """Return send(data, flags=0) for this socket; an expired wait raises BlockingIOError."""
        return _hot.Socket(sock).send

    def receiver(self, sock: socket.socket) -> Callable[[Buffer], int]:
        """Return recv_into(buffer) for this socket; an expired wait raises BlockingIOError."""
        return _hot.Socket(sock).recv_into

    def batch_sender(self, sock: socket.socket) -> None:
        """Return None: a system call sends one buffer."""

    def send_many(self, sock: socket.socket, buffers: Sequence[Buffer]) -> int:
        """Send buffers in order; return how many bytes were sent, maybe not all."""
        total = 0
        for data in buffers:
            sent = self.send(sock, data)
            total += sent
            if sent < len(data):
                break
        return total

    def send(self, sock: socket.socket, data: Buffer, flags: int = 0) -> int:
        try:
            return sock.send(data, flags)
        except BlockingIOError:
            return self._again(sock, sock.send, data, flags)

    def recv_into(self, sock: socket.socket, buffer: Buffer) -> int:
        try:
            return sock.recv_into(buffer)
        except BlockingIOError:
            return self._again(sock, sock.recv_into, buffer)

    def send_record(self, sock: socket.socket, data: Buffer, record_type: int) -> int:
        try:
            return ktls.send_record(sock, data, record_type)
        except BlockingIOError:
            return self._again(sock, ktls.send_record, sock, data, record_type)

    def recv_record(self, sock: socket.socket, buffer: Buffer) -> tuple[int, int]:
        try:
            count, control, _, _ = sock.recvmsg_into([buffer], ktls.RECORD_TYPE_SPACE)
        except BlockingIOError:
            count, control, _, _ = self._again(sock, sock.recvmsg_into, [buffer], ktls.RECORD_TYPE_SPACE)
        types = [data[0] for level, kind, data in control if (level, kind) == (ktls.SOL_TLS, ktls.TLS_GET_RECORD_TYPE)]
        return count, types[0] if types else -1

    def limit(self, sock: socket.socket, direction: Direction, seconds: float | None) -> None:
        """Let each wait in this direction last at most so long; None: as long as `timeout` says."""
        _limit(sock, direction, self.timeout if seconds is None else seconds)

    def _again(self, sock: socket.socket, call: Callable[..., T], *arguments: object) -> T:
        """Repeat a call whose wait has expired, unless the socket does not wait at all."""
        return again(None if sock.gettimeout() == 0 else self.timeout, call, *arguments)

    def close(self) -> None:
        """Do nothing: this engine holds no resources."""


class RingEngine:
    """The same operations through a ring, one call each."""

    name: EngineName = "uring"

    def __init__(self, ring: Ring | None = None, timeout: float | None = None) -> None:
        self._own = ring is None
        self.ring = ring or Ring()
        self.calls = self.ring.calls  # for the compiled part (`_hot.Tls`)
        self.timeout = timeout

    def connect(self, sock: socket.socket, sockaddr: tuple[Any, ...]) -> None:
        try:
            self.ring.connect(sock.fileno(), sock.family, sockaddr, timeout=self.timeout)
        except TimeoutError:
            _keep_connecting(sock, sockaddr, self.timeout)
        _bound(sock, self.timeout)  # for what does not go through the ring: sendfile(2), the farewell

    def accept(self, listener: socket.socket) -> socket.socket:
        sock = socket.socket(fileno=self._wait(self.ring.accept, listener.fileno()))
        sock.settimeout(None)
        _bound(sock, self.timeout)
        return sock

    def sender(self, sock: socket.socket) -> Callable[..., int]:
        """Return send(data, flags=0) for this socket."""
        return self.ring.sender(sock.fileno(), timeout=self.timeout)

    def receiver(self, sock: socket.socket) -> Callable[[Buffer], int]:
        """Return recv_into(buffer) for this socket."""
        return self.ring.receiver(sock.fileno(), timeout=self.timeout)

    def batch_sender(self, sock: socket.socket) -> Callable[..., int]:
        """Return send_many(buffers) for this socket."""
        return self.ring.batch_sender(sock.fileno(), timeout=self.timeout)

    def send_many(self, sock: socket.socket, buffers: Sequence[Buffer]) -> int:
        """Send one buffer after the other, with one submission for all."""
        return self.ring.send_many(sock.fileno(), buffers, timeout=self.timeout)

    def send(self, sock: socket.socket, data: Buffer, flags: int = 0) -> int:
        return self._wait(self.ring.send, sock.fileno(), data, flags)

    def recv_into(self, sock: socket.socket, buffer: Buffer) -> int:
        return self._wait(self.ring.recv_into, sock.fileno(), buffer)

    def send_record(self, sock: socket.socket, data: Buffer, record_type: int) -> int:
        return self._wait(self.ring.send_record, sock.fileno(), data, record_type)

    def recv_record(self, sock: socket.socket, buffer: Buffer) -> tuple[int, int]:
        return self._wait(self.ring.recv_record, sock.fileno(), buffer)

    def _wait(self, call: Callable[..., T], *arguments: object) -> T:
        try:
            return call(*arguments, timeout=self.timeout)
        except TimeoutError:
            return again(self.timeout, functools.partial(call, timeout=self.timeout), *arguments)

    def limit(self, sock: socket.socket, direction: Direction, seconds: float | None) -> None:
        """Let each wait in this direction last at most so long; None: as long as `timeout` says."""
        self.ring.limit(seconds)
        _limit(sock, direction, self.timeout if seconds is None else seconds)

    def close(self) -> None:
        """Close the ring, unless the caller passed it in. OSError EBUSY if another thread keeps using it."""
        deadline = time.monotonic() + _BUSY_S
        while self._own:
            try:
                self.ring.close()
            except OSError as error:  # a wait that the closed socket has just ended is still on its way out
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.001)
            else:
                return


def _keep_connecting(sock: socket.socket, sockaddr: tuple[Any, ...], timeout: float | None) -> None:
    """Go on with a connection whose wait has expired: connect(2) on a blocking socket waits on for SO_SNDTIMEO."""
    sock.settimeout(None)
    _bound(sock, timeout)
    again(timeout, sock.connect, sockaddr)


def _bound(sock: socket.socket, timeout: float | None) -> None:
    """Limit every later blocking call on this socket."""
    for direction in Direction:
        _limit(sock, direction, timeout)


def _limit(sock: socket.socket, direction: Direction, timeout: float | None) -> None:
    if sock.fileno() >= 0:
        option = socket.SO_SNDTIMEO if direction is Direction.TX else socket.SO_RCVTIMEO
        sock.setsockopt(socket.SOL_SOCKET, option, _timeval(timeout))


def _timeval(timeout: float | None) -> bytes:
    """Pack struct timeval. Zero means no limit, so a tiny one is rounded up to a microsecond."""
    seconds, rest = divmod(max(1, int((timeout or 0) * 1e6)) if timeout is not None else 0, 1_000_000)
    return struct.pack("@ll", seconds, rest)
