"""One measurement at a time on a host, whoever started it: two at once measure each other."""

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
def measuring(waiting: Callable[[str], object], path: Path | None = None) -> Iterator[str]:
    """Hold the host's lock, `LOCK` unless another path is given.

    Where another measurement holds it, `waiting` is told so once, in a sentence. The context's value is that sentence,
    empty where no one was waited for.
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
                    told = f"waiting for {_holder(descriptor)} to end ({path}); nothing is lost by giving up"
                    waiting(told)
                time.sleep(0.2)
        with contextlib.suppress(OSError):  # only a courtesy to whoever waits
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield told
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Say whose measurement holds the lock, and since when, as far as it is told."""
    holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    said = f"the measurement of process {holder or 'unknown'}"
    with contextlib.suppress(OSError, ValueError):
        words = Path(f"/proc/{int(holder)}/cmdline").read_text(errors="replace").split("\0")
        said += f" ({' '.join(words).strip()[:_WORDS]})"
    minutes = (time.time() - os.fstat(descriptor).st_mtime) / 60
    return f"{said}, begun {minutes:.0f} min ago,"


def _open(path: Path) -> int:
    """Open the lock, whoever made it: reading rights are enough to hold it."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(PermissionError):
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | flags)
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    return os.open(path, os.O_RDONLY | flags)
