"""The cache of what was fetched or built for guests. Everything in it can be fetched or built again.

It is `$KTLSLAB_CACHE`, else `$XDG_CACHE_HOME/ktlslab`, else `~/.cache/ktlslab`. Two rules keep it consistent. An item
is made in a scratch folder beside its place and renamed when complete, so no incomplete item is ever found. An item is
made under its lock, so two processes that want the same kernel make it once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ktlslab.errors import MachineError, StorageError, errno_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_CACHE = "$KTLSLAB_CACHE"
_FULL = "Free some space there, or point {} at a folder on a larger disk."


def cache_dir(*parts: str) -> Path:
    """Return the cache folder, or a folder in it; make it if it is missing."""
    explicit = os.environ.get("KTLSLAB_CACHE")
    if explicit:
        base = Path(explicit).expanduser().absolute()
    else:
        xdg = os.environ.get("XDG_CACHE_HOME")
        base = (Path(xdg) if xdg else Path.home() / ".cache") / "ktlslab"
    folder = base.joinpath(*parts)
    with storage(f"making the cache folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock of the cache; wait while another process holds it. A process that dies releases its locks."""
    path = cache_dir("locks") / name
    with storage(f"opening the lock {path}"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """Make a temporary folder on the same file system as `beside`."""
    with storage(f"making a scratch folder in {beside.parent}"):
        folder = Path(tempfile.mkdtemp(prefix=".making-", dir=beside.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def storage(tried: str, variable: str = _CACHE) -> Iterator[None]:
    """Turn an OSError into a StorageError that says what was being written and what to do.

    `variable`: the environment variable that decides where it is written.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or errno.EIO
        full = number in {errno.ENOSPC, errno.EDQUOT}
        remedy = _FULL.format(variable) if full else f"Point {variable} at a folder that you may write to."
        kind = StorageError if full or number in {errno.EACCES, errno.EROFS, errno.EPERM} else MachineError
        raise kind(tried, answered=errno_name(number), remedy=remedy) from error


def full_disk(tried: str, answered: str) -> StorageError:
    """Return the error for a program (apt, tar, mke2fs) that met a full disk."""
    return StorageError(tried, answered=answered, remedy=_FULL.format(_CACHE))
