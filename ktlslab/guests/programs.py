"""Finding programs: those meant for root lie where an ordinary user's PATH does not look."""

from __future__ import annotations

import shutil

from ktlslab.errors import MachineError

_ROOTS = "/usr/sbin:/sbin:/usr/local/sbin"


def program(name: str) -> str | None:
    """Return a program's path, or None."""
    return shutil.which(name) or shutil.which(name, path=_ROOTS)


def required(name: str, remedy: str) -> str:
    """Return a program's path; an error with its remedy if it is missing."""
    found = program(name)
    if not found:
        raise MachineError(f"looking for {name}", answered="it is not installed", remedy=remedy)
    return found
