"""How long a request may take: the opening of a connection, the whole, and how slow the server may become.

The last keeps a server that sends a byte now and then from holding its client for ever. A head has to be complete
within the time in which a body would have to move.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ktlslab.errors import PeerTimeoutError
from ktlslab.linux import tcpinfo
from ktlslab.linux.ktls import Direction

if TYPE_CHECKING:
    from ktlslab.session import Session

_MIN_S = 0.001
_NEAR = 0.9  # a wait is set anew when it is to become so much shorter, or longer by as much


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """In seconds; None: no limit. `stall_s` is how long fewer than `stall_bytes` a second may come."""

    whole_s: float | None = None
    connect_s: float | None = 10.0
    stall_s: float | None = 60.0
    stall_bytes: float = 1.0


class Allowance:
    """The time that one request has, from now on."""

    def __init__(self, limits: Limits, target: str) -> None:
        self.limits = limits
        self.began = time.monotonic()
        self._target = target
        self._window, self._came = self.began, 0
        self._left_alone: float | None = None
        self._set: float | None = 0.0
        self.until = float("inf") if limits.whole_s is None else self.began + limits.whole_s
        self.waits = False  # for the server; otherwise it is the reader of the body who takes the time
        self.ended = ""

    def left(self) -> float | None:
        """Return how many seconds of the whole are left; PeerTimeoutError if none."""
        if self.limits.whole_s is None:
            return None
        if (left := self.began + self.limits.whole_s - time.monotonic()) <= 0:
            answered = f"not done within {self.limits.whole_s:g} s"
            raise PeerTimeoutError(f"talking with {self._target}", answered=answered, remedy="Give a longer timeout.")
        return max(left, _MIN_S)

    def passed(self) -> float:
        """Return how many seconds have passed since the request began."""
        return time.monotonic() - self.began

    def opening(self) -> float | None:
        """Return how many seconds the opening of a connection has."""
        limits = [limit for limit in (self.limits.connect_s, self.left()) if limit is not None]
        return min(limits, default=None)

    def each(self) -> float | None:
        """Return how many seconds a single call on the session may have."""
        limits = [limit for limit in (self.limits.stall_s, self.left()) if limit is not None]
        return min(limits, default=None)

    def renew(self) -> None:
        """Begin to wait for something new: the head of an answer, then its body."""
        self._window, self._came = time.monotonic(), 0
        self._left_alone = self._window

    def moved(self, count: int) -> None:
        self._came += count
        self._left_alone = time.monotonic()

    def bound(self, session: Session) -> None:
        """Let the session's next call end when its time is up. PeerTimeoutError if it is."""
        wait, now = self.left(), time.monotonic()
        if (stall := self.limits.stall_s) is not None:
            if self._left_alone is not None:  # since then it is the caller who has taken the time
                self._window += now - self._left_alone
                self._left_alone = None
            passed = now - self._window
            if passed >= stall:
                if self._came < stall * self.limits.stall_bytes:
                    answered = f"{self._came} bytes came within {stall:g} s"
                    remedy = "Try again, or allow it to be slower."
                    raise PeerTimeoutError(f"waiting for {self._target}", answered=answered, remedy=remedy)
                self._window, self._came, passed = now, 0, 0.0
            wait = min(stall - passed, wait or stall)
        same = wait == self._set or bool(wait and self._set and _NEAR < wait / self._set < 1 / _NEAR)
        if not same:
            self._set = wait
            connection = session.stream.connection
            connection.engine.timeout = wait
            for direction in Direction:
                connection.engine.limit(connection.socket, direction, wait)

    def check(self) -> None:
        """Raise PeerTimeoutError if a `Guard` has ended the connection because the time was up."""
        if self.ended:
            raise PeerTimeoutError(f"waiting for {self._target}", answered=self.ended, remedy="Give it longer.")


class Guard:
    """Ends a connection whose time is up while a call waits that nothing else can end.

    OpenSSL on a socket (userspace, by system calls) waits for each byte of a record anew, so a server that sends one
    byte by byte could hold its client for hours.
    """

    def __init__(self, session: Session, allowance: Allowance) -> None:
        self._session, self._allowance = session, allowance
        self._over = threading.Event()
        limits = allowance.limits
        on_socket = session.io_engine == "syscall" and session.stream.layers[Direction.RX] == "userspace"
        if on_socket and (limits.whole_s or limits.stall_s):
            threading.Thread(target=self._watch, name="ktlslab-guard", daemon=True).start()

    def _watch(self) -> None:
        sock, allowance = self._session.stream.connection.socket, self._allowance
        limits = allowance.limits
        with contextlib.suppress(OSError):  # the session is closed
            _, before = tcpinfo.moved(sock)
            until = allowance.until
            while True:
                now = time.monotonic()
                wait = min(limits.stall_s or until - now, until - now)
                if self._over.wait(max(0.0, wait)):
                    return
                _, came = tcpinfo.moved(sock)
                if time.monotonic() >= until:
                    allowance.ended = f"not done within {limits.whole_s:g} s"
                elif limits.stall_s and came - before < limits.stall_s * limits.stall_bytes and allowance.waits:
                    allowance.ended = f"{came - before} bytes came within {limits.stall_s:g} s"
                if allowance.ended:
                    sock.shutdown(socket.SHUT_RDWR)
                    return
                before = came

    def end(self) -> None:
        self._over.set()
