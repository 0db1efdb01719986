"""Which package brings what is missing, in this machine's own words: packages.txt is the one table of names.

And which of ktlslab's extras brings a library that is missing: nothing that needs one is imported outside `extra`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ktlslab.errors import MissingExtraError

# A package manager's command, and whose it is, in the order of the table's columns.
INSTALLERS = {"apt-get install": "Debian", "dnf install": "Fedora", "pacman -S": "Arch"}


def table() -> dict[str, dict[str, str]]:
    """Return the table: what is needed -> the command that installs -> the package."""
    text = Path(__file__).with_name("packages.txt").read_text(encoding="utf-8")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    rows = (line.replace("X.Y", version).split() for line in text.splitlines() if not line.startswith("#"))
    return {needed: dict(zip(INSTALLERS, names, strict=True)) for needed, *names in rows}


def how_to_get(needed: str) -> str:
    """Return the command that installs what is needed: this machine's, or where that is not known all three."""
    names = table()[needed]
    for command, name in names.items():
        if shutil.which(command.split()[0]):
            return f"{command} {name}"
    return "; ".join(f"{INSTALLERS[command]}: {command} {name}" for command, name in names.items())


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what an extra of ktlslab brings: MissingExtraError says how to get it where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "a library").partition(".")[0]
        remedy = f"Install what ktlslab needs for this: pip install 'ktlslab[{name}]'"
        raise MissingExtraError(f"importing {missing}", answered="it is not installed", remedy=remedy) from None


def require(name: str, *modules: str) -> None:
    """Raise MissingExtraError where a module of an extra is missing, before time is spent on what will need it."""
    with extra(name):
        for module in modules:
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(name=module)
