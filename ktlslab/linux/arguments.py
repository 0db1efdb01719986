"""Checks of arguments after a call has failed, so that calls that succeed pay nothing for them.

Each function raises UsageError if its argument is at fault. Otherwise it returns, and the original error is raised:

    except (TypeError, ValueError, BufferError):
        need_buffer("sending", data)
        raise
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable

from ktlslab.errors import UsageError, errno_name

WRONG = (TypeError, ValueError, BufferError, OverflowError, AttributeError)  # what Python raises for a wrong argument
_ENDS = {os.O_RDONLY: "the reading end", os.O_WRONLY: "the writing end"}


def need_buffer(tried: str, buffer: object, *, writable: bool = False) -> None:
    """Require a contiguous buffer: bytes, bytearray, memoryview or the like; `writable` if it will be filled."""
    try:
        view = memoryview(buffer)  # type: ignore[arg-type]
    except TypeError:
        remedy = (
            "Encode it first: text.encode()." if isinstance(buffer, str) else "Give bytes, bytearray or memoryview."
        )
        answered = f"{_shown(buffer)} is not a buffer of bytes"
        raise UsageError(tried, answered=answered, remedy=remedy) from None
    except ValueError:
        raise UsageError(tried, answered="the memoryview was released", remedy="Give one that is in use.") from None
    with view:
        if writable and view.readonly:
            answered = f"the {type(buffer).__name__} is read-only"
            raise UsageError(tried, answered=answered, remedy="Give a bytearray to fill.")
        if not view.c_contiguous:
            raise UsageError(tried, answered="the buffer is not contiguous", remedy="Copy it: bytes(data).")


def need_buffers(tried: str, buffers: object) -> None:
    """Require a list or another iterable of buffers."""
    if isinstance(buffers, str | bytes | bytearray | memoryview) or not isinstance(buffers, Iterable):
        remedy = "Give a list of buffers; `send` takes a single one."
        raise UsageError(tried, answered=f"{_shown(buffers)} is not a list of buffers", remedy=remedy)
    for buffer in buffers:
        need_buffer(tried, buffer)


def need_number(tried: str, name: str, value: object, low: int = 0, high: int = 1 << 62) -> None:
    """Require a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        remedy = (
            f"Give a whole number from {low} to {high}." if high < 1 << 31 else f"Give a whole number from {low} on."
        )
        raise UsageError(tried, answered=f"{name} is {_shown(value)}", remedy=remedy)


def need_timeout(tried: str, timeout: object) -> None:
    """Require a number of seconds, or None."""
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0):
        remedy = "Give seconds from 0 on, or None to wait for ever."
        raise UsageError(tried, answered=f"the timeout is {_shown(timeout)}", remedy=remedy)


def need_descriptor(tried: str, fd: object) -> None:
    """Require an open descriptor."""
    if isinstance(fd, bool) or not isinstance(fd, int):
        remedy = "Give its number: file.fileno(), sock.fileno()."
        raise UsageError(tried, answered=f"{_shown(fd)} is not a file descriptor", remedy=remedy)
    try:
        os.fstat(fd)
    except (OSError, OverflowError) as error:
        answered = f"the descriptor {fd} is not open: {errno_name(getattr(error, 'errno', None) or 9)}"
        raise UsageError(tried, answered=answered, remedy="Give one that is open.") from None


def need_pipe(tried: str, pipe: object, end: int) -> None:
    """Require the descriptor of a pipe's reading end (`os.O_RDONLY`) or writing end (`os.O_WRONLY`)."""
    need_descriptor(tried, pipe)
    assert isinstance(pipe, int)  # noqa: S101 - by now
    if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
        remedy = "Give one of the two that os.pipe() returns."
        raise UsageError(tried, answered=f"the descriptor {pipe} is not a pipe", remedy=remedy)
    if fcntl.fcntl(pipe, fcntl.F_GETFL) & os.O_ACCMODE not in {end, os.O_RDWR}:
        remedy = f"Give {_ENDS[end]}: os.pipe() returns the reading end first."
        raise UsageError(tried, answered=f"the descriptor {pipe} is the pipe's other end", remedy=remedy)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"a value of type {type(value).__name__}"
