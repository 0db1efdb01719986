"""Checks of arguments: each returns the value in the form that is used, or raises UsageError.

`tried` is what the caller wanted done, `name` the argument. Messages show a value's type and never the value, unless it
can hold no secret. Where a call must cost nothing to be checked, it is made first, and checked once it has failed:

    except WRONG:
        _checks.buffer("sending", "data", data)
        raise
"""

from __future__ import annotations

import difflib
import fcntl
import math
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, TypeVar

from ktlslab.errors import UsageError, errno_name
from ktlslab.packages import extra

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

MAX_SECONDS = 1e9  # 31 years: what the kernel's time-outs can hold
MAX_COUNT = 1 << 62
BELOW_ONE = math.nextafter(1, 0)
# What Python and C say of a wrong argument, and what is said of it here.
WRONG = (TypeError, ValueError, BufferError, OverflowError, AttributeError, UsageError)
_ENDS = {os.O_RDONLY: "the reading end", os.O_WRONLY: "the writing end"}


def refuse(tried: str, name: str, value: object, remedy: str) -> Never:
    """Raise UsageError for a value of the wrong type."""
    raise UsageError(tried, answered=f"`{name}` is of type {type(value).__name__}", remedy=remedy)


def instance(tried: str, name: str, value: Any, kind: type[T] | tuple[type[T], ...], source: str = "") -> T:
    """Return the value if it has this type; `source` says where to get one."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(one.__name__ for one in kinds)
        refuse(tried, name, value, f"It takes {wanted}{f': {source}' if source else ''}.")
    return value


# Words and paths


def word(tried: str, name: str, value: Any, words: Iterable[str]) -> str:
    """Return the value if it is one of these words; for a near miss the error suggests the nearest."""
    known = list(words)
    if not isinstance(value, str):
        refuse(tried, name, value, f"It is one of {', '.join(known)}.")
    if value not in known:
        raise UsageError(
            tried, answered=f"`{name}` is {value!r}", remedy=f"{nearest(value, known)}It is one of {', '.join(known)}."
        )
    return value


def nearest(value: object, known: Iterable[str]) -> str:
    """Return "Did you mean ...? " for a near miss, "" for anything else."""
    by_case = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(str(value).casefold(), by_case, 1)
    return f"Did you mean {by_case[found[0]]}? " if found else ""


def text(tried: str, name: str, value: Any, source: str = "") -> str:
    """Return a string that is not empty and has no control characters."""
    if not instance(tried, name, value, str, source) or not value.isprintable():
        answered = f"`{name}` is {value!r}" if value else f"`{name}` is empty"
        raise UsageError(tried, answered=answered, remedy=f"It takes {source or 'a word'}.")
    return str(value)


def path(tried: str, name: str, value: Any, source: str = "the path of a file") -> Path:
    """Return a path, which may be given as a string."""
    remedy = f"It takes {source}: a string or a pathlib.Path."
    if not isinstance(value, str | os.PathLike) or isinstance(made := os.fspath(value), bytes):
        refuse(tried, name, value, remedy)
    if not made or "\0" in made:
        raise UsageError(tried, answered=f"`{name}` is {made!r}", remedy=remedy)
    return Path(made)


# Numbers


def whole(tried: str, name: str, value: Any, low: int = 0, high: int = MAX_COUNT) -> int:
    """Return a whole number within these bounds."""
    if type(value) is int and low <= value <= high:  # at once: some are checked at every call
        return value
    wanted = f"a whole number, {low} or more" if high >= MAX_COUNT else f"a whole number from {low} to {high}"
    number = instance(tried, name, value, int, wanted)
    if not low <= number <= high:
        raise UsageError(tried, answered=f"`{name}` is {number}", remedy=f"It is {wanted}.")
    return number


def number(tried: str, name: str, value: Any, low: float, high: float, *, source: str = "") -> float:
    """Return a number within these bounds; `source` says in words what they are."""
    wanted = source or f"a number from {low} to {high}"
    found = instance(tried, name, value, (int, float), wanted)
    if not low <= found <= high:
        raise UsageError(tried, answered=f"`{name}` is {found}", remedy=f"It is {wanted}.")
    return float(found)


def seconds(tried: str, name: str, value: Any, *, zero: bool = False) -> float | None:
    """Return a time that can be waited for; None is for ever. `zero`: not to wait may be meant."""
    if value is None:
        return None
    remedy = f"Give seconds {'from 0 on' if zero else 'above 0'}, or None to wait for ever."
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(tried, name, value, remedy)
    if not (0 < value < MAX_SECONDS or (zero and value == 0)):
        raise UsageError(tried, answered=f"`{name}` is {value}", remedy=remedy)
    return float(value)


# More than one


def optional(check: Callable[..., T], tried: str, name: str, value: Any, *more: Any) -> T | None:
    """Apply a check unless the value is None."""
    return None if value is None else check(tried, name, value, *more)


def several(tried: str, name: str, value: Any, check: Callable[[str, str, Any], T]) -> tuple[T, ...]:
    """Return a tuple of checked values from a list, a tuple or another iterable; a single value is a list of one."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        value = (value,)
    return tuple(check(tried, name, one) for one in value)


def words(tried: str, name: str, value: Any, source: str) -> list[str]:
    """Return a list of words, at least one, given as a list or as one word."""
    if isinstance(value, Mapping):
        refuse(tried, name, value, f"It takes {source}.")
    found = several(tried, name, value, lambda tried, name, one: instance(tried, name, one, str, source))
    return items(tried, name, found, str, source, least=1)


def items(tried: str, name: str, value: Any, kind: type[T], source: str, *, least: int = 0) -> list[T]:
    """Return a list of what is in a list or tuple, all of it of this type."""
    for at, one in enumerate(instance(tried, name, value, (list, tuple), source)):
        instance(tried, f"{name}[{at}]", one, kind, source)
    if len(value) < least:
        raise UsageError(tried, answered=f"`{name}` is empty", remedy=f"It takes {source}.")
    return list(value)


def address(tried: str, name: str, value: Any) -> tuple[str, int]:
    """Return (host, port)."""
    remedy = 'It takes a host and a port: ("localhost", 443).'
    if not isinstance(value, tuple | list) or len(value) != 2:
        refuse(tried, name, value, remedy)
    return text(tried, f"{name}[0]", value[0], "a host's name"), whole(tried, f"{name}[1]", value[1], 1, 65535)


def frame(tried: str, name: str, value: Any, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Return a DataFrame that has these columns."""
    with extra("lab"):
        import pandas as pd  # noqa: PLC0415 - half a second that the command line need not pay

    source = "what `ktlslab.sweep` or `ktlslab.read_table` returned"
    table = instance(tried, name, value, pd.DataFrame, source)
    if missing := [column for column in columns if column not in table]:
        answered = f"it lacks the columns {', '.join(missing)}"
        raise UsageError(tried, answered=answered, remedy=f"It takes {source}.")
    return table


# Memory and descriptors


def buffer(tried: str, name: str, value: Any, *, writable: bool = False) -> None:
    """Ask for bytes, bytearray, memoryview or what else has a buffer, in one piece; `writable` where it is filled."""
    try:
        view = memoryview(value)
    except TypeError:
        encode = "Encode it first: text.encode()." if isinstance(value, str) else ""
        refuse(tried, name, value, encode or "It takes a buffer: bytes, bytearray or memoryview.")
    except ValueError:
        raise UsageError(tried, answered="the memoryview was released", remedy="Give one that is in use.") from None
    with view:
        if writable and view.readonly:
            answered = f"`{name}` is of type {type(value).__name__}, which cannot be written to"
            raise UsageError(tried, answered=answered, remedy="Give a bytearray to be filled.")
        if not view.c_contiguous:
            raise UsageError(tried, answered=f"`{name}` is not in one piece", remedy="Copy it: bytes(data).")


def buffers(tried: str, name: str, value: Any, *, writable: bool = False) -> None:
    """Ask for a list or another iterable of buffers."""
    if isinstance(value, str | bytes | bytearray | memoryview) or not isinstance(value, Iterable):
        refuse(tried, name, value, "Give a list of buffers; one alone is for `send`.")
    for at, one in enumerate(value):
        buffer(tried, f"{name}[{at}]", one, writable=writable)


def descriptor(tried: str, name: str, value: Any) -> int:
    """Return the number of an open descriptor."""
    fd = instance(tried, name, value, int, "a descriptor's number, such as file.fileno()")
    try:
        os.fstat(fd)
    except (OSError, OverflowError) as error:
        answered = f"the descriptor {fd} is not open: {errno_name(getattr(error, 'errno', None) or 9)}"
        raise UsageError(tried, answered=answered, remedy="Give one before it is closed.") from None
    return fd


def pipe(tried: str, name: str, value: Any, end: int) -> int:
    """Return a pipe's descriptor, of the reading end (`os.O_RDONLY`) or the writing one (`os.O_WRONLY`)."""
    fd = descriptor(tried, name, value)
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        remedy = "Give one of the two that os.pipe() returns."
        raise UsageError(tried, answered=f"the descriptor {fd} is not a pipe", remedy=remedy)
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE not in {end, os.O_RDWR}:
        remedy = f"Give {_ENDS[end]}: os.pipe() returns the reading end first."
        raise UsageError(tried, answered=f"the descriptor {fd} is the pipe's other end", remedy=remedy)
    return fd
