"""Folders that a guest may be given: each must be there, and the one to be written to must be the caller's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ktlslab import _checks
from ktlslab.errors import UsageError

# Where a guest has its own: a folder of this machine laid over one of them takes that from it.
GUESTS_OWN = ("/", "/dev", "/proc", "/run", "/sys")


def here(tried: str) -> Path:
    """Return the current folder, which may be gone."""
    try:
        return Path.cwd()
    except OSError as error:
        answered = "the current folder does not exist any more"
        raise UsageError(tried, answered=answered, remedy="Change to another one.") from error


def folder(tried: str, name: str, value: Any) -> Path:
    """Return a folder's absolute path."""
    given = _checks.path(tried, name, value, "the path of a folder")
    path = Path(os.path.abspath(given))  # noqa: PTH100 - links stay as they are: the guest sees them as well
    if not path.is_dir():
        answered = "this is not a folder" if path.exists() else "there is no such folder"
        raise UsageError(f"{tried} with {name}={path}", answered=answered, remedy="Make it first.")
    return path


def writable(tried: str, name: str, value: Any) -> Path:
    """Return the real path of a folder that a guest may be given to write to."""
    path = folder(tried, name, value).resolve()
    tried = f"{tried} with {name}={path}"
    remedy = "Give a folder of your own: `--rw DIR`, for a Jupyter kernel at `ktlslab kernelspec install`."
    if str(path) in GUESTS_OWN:
        raise UsageError(tried, answered="a guest has its own in this place", remedy=remedy)
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(tried, answered="you may not write to this folder", remedy=remedy)
    return path
