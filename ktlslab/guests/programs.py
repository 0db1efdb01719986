"""Finding programs, also those for root, which are not in an ordinary user's PATH."""

from __future__ import annotations

import shutil

from ktlslab.errors import MachineError
from ktlslab.packages import how_to_get

_ROOTS = "/usr/sbin:/sbin:/usr/local/sbin"


def program(name: str) -> str | None:
    """Return a program's path, or None."""
    return shutil.which(name) or shutil.which(name, path=_ROOTS)


def required(name: str) -> str:
    """Return a program's path; if it is missing, MachineError names the package that contains it."""
    found = program(name)
    if not found:
        raise MachineError(f"looking for {name}", answered="it is not installed", remedy=how_to_get(name))
    return found
