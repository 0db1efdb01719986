"""One time-out for a whole call.

The socket's time-out, or the ring's, limits a single wait. A peer that takes or sends a few bytes now and then would
never let a call end that waits again and again. So a call that moves more than one record reads the clock between its
waits, and shortens the last ones.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import TYPE_CHECKING, Self

from ktlslab.linux.ktls import Direction
from ktlslab.linux.patience import Patience

if TYPE_CHECKING:
    from types import TracebackType

    from ktlslab.stages.connection import Connection

_MIN_S = 0.001  # the shortest wait
_SHORTEN = 0.75  # a wait is shortened when less than this part of the time is left: doing so costs a system call
_outermost = threading.local()


def unshortened(timeout: float | None) -> float:
    """Return for how many seconds after its beginning a call need not `check`."""
    return float("inf") if timeout is None else timeout * (1 - _SHORTEN)


class Bound:
    """A context manager around the waits of one call: `check` before each wait but the first.

    Within another one of the same thread and connection, the outer one's time counts. `began`: when the call began, by
    time.monotonic(), if that was earlier.
    """

    def __init__(self, connection: Connection, direction: Direction, began: float | None = None) -> None:
        self._connection, self._direction = connection, direction
        self._timeout = connection.engine.timeout
        outer = getattr(_outermost, "bound", None)
        self._outer: Bound | None = outer if outer and outer._connection is connection else None  # noqa: SLF001 - ours
        self._shortened: set[Direction] = self._outer._shortened if self._outer else set()  # noqa: SLF001
        self._patience: Patience | None = None
        self._deadline = float("inf")
        if self._outer:
            self._deadline = self._outer._deadline  # noqa: SLF001
        elif self._timeout is not None:
            self._deadline = (time.monotonic() if began is None else began) + self._timeout

    def __enter__(self) -> Self:
        if not self._outer:
            _outermost.bound = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._outer:
            return
        _outermost.bound = None
        for direction in self._shortened:
            self._connection.engine.limit(self._connection.socket, direction, None)

    def left(self) -> float | None:
        """How many seconds are left; None without a time-out."""
        return None if self._timeout is None else max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """TimeoutError if the time is up; otherwise the next wait ends when it is."""
        if self.over():
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        if self._timeout is not None and (left := self.left() or 0) < self._timeout * _SHORTEN:
            self._shortened.add(self._direction)
            self._connection.engine.limit(self._connection.socket, self._direction, max(left, _MIN_S))

    def over(self) -> bool:
        """Whether the time is up, also by the host's clock in a guest whose own leaps."""
        if self._timeout is None or self.left():
            return False
        self._patience = self._patience or Patience(self._timeout)
        if self._patience.over():
            return True
        self._deadline = time.monotonic() + self._timeout
        return False
