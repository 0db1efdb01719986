"""Which package brings what is missing, in this machine's own words: packages.txt is the one table of names."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

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
