"""Checks of the arguments for a guest: each raises UsageError with a message that names the invalid one."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ktlslab.errors import UsageError

TRIED = "starting a guest"
# Folders that a guest has itself; mounting a folder of this machine over one would hide the guest's own.
GUESTS_OWN = ("/", "/dev", "/proc", "/run", "/sys")


def words(name: str, value: object) -> None:
    """Check a command: a list of at least one word."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or not all(isinstance(w, str) for w in value):
        raise UsageError(TRIED, answered=f"{name} is {value!r}", remedy="Give a list of words: ['uname', '-r'].")
    if not value:
        raise UsageError(TRIED, answered="there is no command", remedy="Give one: `-- COMMAND ARGUMENT...`.")


def one_of(name: str, value: object, allowed: Sequence[Any]) -> None:
    """Check that a value is one of a few."""
    if value not in allowed:
        choices = " or ".join(str(choice) for choice in allowed if choice is not None)
        raise UsageError(TRIED, answered=f"{name} is {value!r}", remedy=f"Choose {choices}.")


def seconds(name: str, value: object) -> None:
    """Check a time-out."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < float(value) < math.inf):  # type: ignore[arg-type]
        raise UsageError(TRIED, answered=f"{name} is {value!r}", remedy="Give seconds, above 0.")


def cpus(clock: str | None, value: object) -> int | None:
    """Return the number of CPUs; counting instructions allows only one."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(TRIED, answered=f"cpus is {value!r}", remedy="Give a whole number, 1 or more.")
    if clock == "instructions" and value != 1:
        remedy = "Leave out cpus, or take the wall clock."
        raise UsageError(f"{TRIED} with {value} CPUs", answered="counting instructions allows only one", remedy=remedy)
    return value


def here() -> Path:
    """Return the current folder, or raise UsageError if it was deleted."""
    try:
        return Path.cwd()
    except OSError as error:
        raise UsageError(
            TRIED, answered="the current folder no longer exists", remedy="Change to another one."
        ) from error


def folder(name: str, value: object) -> Path:
    """Return a folder's absolute path."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise UsageError(TRIED, answered=f"{name} is {value!r}", remedy="Give the path of a folder.")
    path = Path(os.path.abspath(value))  # noqa: PTH100 - links stay as they are: the guest sees them as well
    if not path.is_dir():
        answered = "this is not a folder" if path.exists() else "there is no such folder"
        raise UsageError(f"{TRIED} with {name}={path}", answered=answered, remedy="Make it first.")
    return path


def writable(name: str, value: object) -> Path:
    """Return the real path of a folder that a guest may write to."""
    path = folder(name, value).resolve()
    tried = f"{TRIED} with {name}={path}"
    remedy = "Give a folder of your own: `--rw DIR`, for a Jupyter kernel at `ktlslab kernelspec install`."
    if str(path) in GUESTS_OWN:
        raise UsageError(tried, answered="a guest has its own folder there", remedy=remedy)
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(tried, answered="you may not write to this folder", remedy=remedy)
    return path


def environment(name: str, value: object) -> dict[str, str]:
    """Return a copy of an environment: a mapping of text to text."""
    if not isinstance(value, Mapping) or not all(isinstance(word, str) for pair in value.items() for word in pair):
        raise UsageError(TRIED, answered=f"{name} is {value!r}", remedy="Give a mapping of names to text.")
    return dict(value)
