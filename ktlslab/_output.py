"""Standard output, whole or with an error.

With PYTHONUNBUFFERED, sys.stdout hands a write to the kernel and ignores how much of it was taken: to a slow reader the
rest is lost. So everything that commands print goes through here.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import BinaryIO, cast

from ktlslab.errors import StorageError, errno_name


def write(data: bytes | memoryview) -> None:
    """Write all of it. BrokenPipeError if the reader is gone, StorageError if it cannot be written."""
    try:
        _put(data)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        answered = errno_name(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise StorageError("writing to standard output", answered=answered) from error


def _put(data: bytes | memoryview) -> None:
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except (io.UnsupportedOperation, AttributeError):  # it was replaced by an object in memory
        sys.stdout.buffer.write(data)
        return
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # someone else has made it non-blocking
            select.select([], [descriptor], [])


def say(text: str) -> None:
    """Write a line."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    write(f"{text}\n".encode(encoding, "backslashreplace"))


def note(text: str, end: str = "\n") -> None:
    """Write a line to standard error, if anyone listens."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{text}{end}")
        sys.stderr.flush()


class _Whole(io.RawIOBase):
    """Standard output as a file whose writes are whole, or raise OSError."""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        _put(data)
        return len(data)


def whole() -> BinaryIO:
    """Return standard output as a file whose writes are whole."""
    return cast("BinaryIO", _Whole())


def settle() -> None:
    """At the end of the process: what cannot be flushed any more is no second error."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
