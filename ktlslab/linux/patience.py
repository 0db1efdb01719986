"""Time-outs that are believed only when the host's time agrees.

A guest that counts instructions has a clock that leaps: while nothing runs in it, because all wait for the host's disk
or network, QEMU moves its time to the next timer at once. A time-out of 10 s can then expire within 10 ms. Such a guest
has another clock, the one that keeps the date (QEMU's `-rtc clock=host`, the default): its seconds are the host's. So a
wait that has expired is begun again until as many seconds have passed there. A wait that does not expire costs nothing,
and outside of such a guest an expired wait is believed at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_DATE = Path("/sys/class/rtc/rtc0/since_epoch")  # Documentation/ABI/testing/sysfs-class-rtc


class Patience:
    """Judges the expired waits of one call. It is made when the first of them has expired: until then nothing is paid.

    From then on at least `timeout` and at most `timeout` + 2 seconds of the host's time pass until `over` is true, as
    its clock shows whole seconds. `timeout` None is never waited for: what looks like a time-out is the kernel's own.
    """

    __slots__ = ("_since", "_timeout")

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout or 0.0
        self._since = None if timeout is None else _host_seconds()

    def over(self) -> bool:
        """Whether the time is really up; if not, wait again for another `timeout` seconds of this machine's time."""
        now = _host_seconds()
        if now is None or self._since is None:
            return True
        self._since = min(self._since, now)  # someone has set the host's clock back
        return now - self._since >= self._timeout + 1


def again(timeout: float | None, call: Callable[..., T], *arguments: object) -> T:
    """Repeat a call whose wait has just expired until it succeeds; raise TimeoutError when its time is really up.

    `call` must raise TimeoutError or BlockingIOError if its own wait of `timeout` seconds expires, and must then have
    done nothing. Its other errors are raised as they are.
    """
    patience = Patience(timeout)
    while not patience.over():
        with contextlib.suppress(TimeoutError, BlockingIOError):
            return call(*arguments)
    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


def _host_seconds() -> int | None:
    """Return the host's time in whole seconds, or None where this machine's own clocks can be believed."""
    if os.environ.get("KTLSLAB_CLOCK") != "instructions":
        return None
    try:
        return int(_DATE.read_text(encoding="ascii"))
    except (OSError, ValueError):  # a kernel without a driver for it
        return None
