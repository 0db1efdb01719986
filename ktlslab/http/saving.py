"""A body into a file. The file gets its name once it is whole: until then it is a hidden one beside it.

What is no regular file (a device, a pipe) is written to as it is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ktlslab.errors import RangeError, StorageError, errno_name

if TYPE_CHECKING:
    from ktlslab.http.exchange import Exchange

_PART = ".part"


def write_all(descriptor: int, data: bytes | memoryview, name: object) -> None:
    """Write everything, however little a write takes. StorageError if that is not possible."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise cannot_write(name, error) from error


def cannot_write(name: object, error: OSError) -> StorageError:
    remedy = "Choose another place, or make room."
    return StorageError(f"writing {name}", answered=errno_name(error.errno or 0), remedy=remedy)


def save(exchange: Exchange, target: Path, moved: Callable[[int], None]) -> None:
    """Write the body of an exchange into a file."""
    with opened(target) as descriptor:
        _move(exchange, descriptor, target, moved)


def part_of(target: Path) -> Path:
    """Return where `resume` keeps what has come so far."""
    return target.with_name(target.name + _PART)


def resume(exchange: Exchange, target: Path, start: int, moved: Callable[[int], None]) -> None:
    """Write the body behind the first `start` bytes of FILE.part, which stays if it fails, and becomes FILE if not.

    The time of FILE.part is that of the server's file, so that the next request can ask whether it is still the same.
    """
    part = part_of(target)
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(descriptor, start)
            os.lseek(descriptor, start, os.SEEK_SET)
            _move(exchange, descriptor, target, moved)
        finally:
            os.close(descriptor)
        part.replace(target)
    except OSError as error:
        raise cannot_write(part, error) from error


def check_range(exchange: Exchange, start: int, content_range: str) -> None:
    """Raise RangeError unless the range that came is the one that was asked for."""
    if not content_range.startswith(f"bytes {start}-"):
        answered = f"the server sent {content_range or 'no Content-Range'!r}"
        raise RangeError(f"going on with {exchange.request.url} at byte {start}", answered=answered)


def _move(exchange: Exchange, descriptor: int, target: Path, moved: Callable[[int], None]) -> None:
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    if not regular:
        for piece in exchange.pieces():
            write_all(descriptor, piece, target)
            moved(len(piece))
        return
    exchange.into(descriptor, lambda piece: write_all(descriptor, piece, target), moved)


@contextlib.contextmanager
def opened(target: Path, mode: int = 0o666) -> Iterator[int]:
    """Yield the descriptor of a file that replaces `target` when the block is left without an error."""
    try:
        real = target.resolve() if target.is_symlink() else target
        if real.exists() and not real.is_file():
            descriptor, temporary = os.open(real, os.O_WRONLY | os.O_CLOEXEC), None
        else:
            temporary = real.with_name(f".{real.name[:200]}.{secrets.token_hex(4)}{_PART}")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        if temporary:
            temporary.replace(real)
            temporary = None
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)
