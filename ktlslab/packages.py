"""Which system package provides a missing program, and which extra of ktlslab provides a missing library.

The names of the packages are in packages.txt. Whatever needs a library of an extra is imported inside `extra`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ktlslab.errors import MissingExtraError

# The command of each package manager and its distribution, in the order of the table's columns.
INSTALLERS = {"apt-get install": "Debian", "dnf install": "Fedora", "pacman -S": "Arch"}


def table() -> dict[str, dict[str, str]]:
    """Return the table: program -> installing command -> package."""
    text = Path(__file__).with_name("packages.txt").read_text(encoding="utf-8")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    rows = (line.replace("X.Y", version).split() for line in text.splitlines() if not line.startswith("#"))
    return {needed: dict(zip(INSTALLERS, names, strict=True)) for needed, *names in rows}


def how_to_get(needed: str) -> str:
    """Return the command that installs a program: this machine's, or all three if its package manager is unknown."""
    names = table()[needed]
    for command, name in names.items():
        if shutil.which(command.split()[0]):
            return f"{command} {name}"
    return "; ".join(f"{INSTALLERS[command]}: {command} {name}" for command, name in names.items())


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what an extra of ktlslab installs. If it is missing, MissingExtraError says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "a library").partition(".")[0]
        remedy = f"Install what ktlslab needs for this: pip install 'ktlslab[{name}]'"
        raise MissingExtraError(f"importing {missing}", answered="it is not installed", remedy=remedy) from None


def require(name: str, *modules: str) -> None:
    """Raise MissingExtraError now if a module of an extra is missing, before time is spent on work that needs it."""
    with extra(name):
        for module in modules:
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(name=module)
