"""Checks of arguments: each returns the value in the form that is used, or raises UsageError.

`tried` is what the caller wanted to do, `name` the name of the argument. A message shows the type of a value; it shows
the value itself only if that cannot be a secret.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Never, TypeVar

from ktlslab.errors import UsageError

T = TypeVar("T")


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


def nearest(value: str, known: Iterable[str]) -> str:
    """Return "Did you mean ...? " for a near miss, otherwise ""."""
    by_case = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(value.casefold(), by_case, 1)
    return f"Did you mean {by_case[found[0]]}? " if found else ""


def whole(tried: str, name: str, value: Any, low: int, high: int) -> int:
    """Return a whole number within these bounds."""
    number = instance(tried, name, value, int, f"a whole number from {low} to {high}")
    if not low <= number <= high:
        raise UsageError(tried, answered=f"`{name}` is {number}", remedy=f"It is a whole number from {low} to {high}.")
    return number


def seconds(tried: str, name: str, value: Any) -> float | None:
    """Return a time-out in seconds; None waits for ever."""
    if value is None:
        return None
    remedy = "Give seconds above 0, or None to wait for ever."
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(tried, name, value, remedy)
    if not 0 < value < MAX_SECONDS or math.isnan(value):
        raise UsageError(tried, answered=f"`{name}` is {value}", remedy=remedy)
    return float(value)


MAX_SECONDS = 1e9  # 31 years: the kernel's time-outs can hold it


def text(tried: str, name: str, value: Any, source: str = "") -> str:
    """Return a string that is not empty and has no control characters."""
    if not instance(tried, name, value, str, source) or not value.isprintable():
        answered = f"`{name}` is {value!r}" if value else f"`{name}` is empty"
        raise UsageError(tried, answered=answered, remedy=f"It takes {source or 'a word'}.")
    return str(value)


def path(tried: str, name: str, value: Any) -> Path:
    """Return a path, which may be given as a string."""
    if not isinstance(value, str | os.PathLike) or isinstance(made := os.fspath(value), bytes):
        refuse(tried, name, value, "It takes a path: a string or a pathlib.Path.")
    if not made or "\0" in made:
        raise UsageError(tried, answered=f"`{name}` is {made!r}", remedy="It takes the path of a file.")
    return Path(made)


def number(tried: str, name: str, value: Any, low: float, high: float) -> float:
    """Return a number within these bounds."""
    found = instance(tried, name, value, (int, float), f"a number from {low} to {high}")
    if not low <= found <= high:
        raise UsageError(tried, answered=f"`{name}` is {found}", remedy=f"It is a number from {low} to {high}.")
    return float(found)


def address(tried: str, name: str, value: Any) -> tuple[str, int]:
    """Return (host, port)."""
    remedy = 'It takes a host and a port: ("localhost", 443).'
    if not isinstance(value, tuple | list) or len(value) != 2:
        refuse(tried, name, value, remedy)
    return text(tried, f"{name}[0]", value[0], "a host's name"), whole(tried, f"{name}[1]", value[1], 1, 65535)


def optional(check: Callable[..., T], tried: str, name: str, value: Any, *more: Any) -> T | None:
    """Apply a check unless the value is None."""
    return None if value is None else check(tried, name, value, *more)


def several(tried: str, name: str, value: Any, check: Callable[[str, str, Any], T]) -> tuple[T, ...]:
    """Return a tuple of checked values from a list, a tuple or another iterable; a single value is a list of one."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        value = (value,)
    return tuple(check(tried, name, one) for one in value)
