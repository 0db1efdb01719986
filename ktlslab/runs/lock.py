"""One measurement at a time on a host, for all users: two at once disturb each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK = Path(tempfile.gettempdir()) / "ktlslab-measuring.lock"

_WORDS = 160  # of a command line


@contextlib.contextmanager
def measuring(
    waiting: Callable[[str], object], path: Path | None = None, *, look: Callable[[], object] = bool
) -> Iterator[str]:
    """Hold the host's lock, `LOCK` unless another path is given.

    Where another measurement holds it, `waiting` is called once with a sentence that says so, and `look` repeatedly:
    what it raises ends the wait. The context's value is that sentence, or "" where the lock was free.
    """
    path = path or LOCK
    descriptor = _open(path)
    try:
        told = ""
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    told = f"waiting for {_holder(descriptor)} to end ({path}); it is safe to interrupt"
                    waiting(told)
                look()
                time.sleep(0.2)
        with contextlib.suppress(OSError):  # only information for those who wait
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield told
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Say which measurement holds the lock, and since when, as far as it is known."""
    holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    said = f"the measurement of process {holder or 'unknown'}"
    with contextlib.suppress(OSError, ValueError):
        words = Path(f"/proc/{int(holder)}/cmdline").read_text(errors="replace").split("\0")
        said += f" ({' '.join(words).strip()[:_WORDS]})"
    minutes = (time.time() - os.fstat(descriptor).st_mtime) / 60
    return f"{said}, started {minutes:.0f} min ago,"


def _open(path: Path) -> int:
    """Open the lock, whoever owns it: read permission is enough to hold it."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(PermissionError):
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | flags)
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    return os.open(path, os.O_RDONLY | flags)
