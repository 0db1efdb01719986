"""What is sent with a request: bytes, a file, or pieces whose sum is not known before."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from ktlslab import _checks
from ktlslab.errors import UsageError

_PIECE_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class FilePart:
    """`count` bytes of a file from `offset` on. h11 takes it for bytes, as it asks only for the length."""

    file: BinaryIO
    offset: int
    count: int

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """`size` is in bytes; None: not known, so it is sent in chunks. `repeatable`: it can be sent more than once."""

    size: int | None
    data: bytes | FilePart | Iterable[bytes]

    @property
    def repeatable(self) -> bool:
        return isinstance(self.data, bytes | FilePart)

    def pieces(self) -> Iterator[bytes | FilePart]:
        """Yield what is sent, in pieces; of a file, which the kernel may send by itself, where they lie."""
        if isinstance(self.data, FilePart):
            part = self.data
            for at in range(0, part.count, _PIECE_BYTES):
                yield FilePart(part.file, part.offset + at, min(_PIECE_BYTES, part.count - at))
        elif isinstance(self.data, bytes):
            for at in range(0, len(self.data), _PIECE_BYTES):
                yield self.data[at : at + _PIECE_BYTES]
        else:
            for piece in self.data:
                _checks.buffer("sending a body", "body", piece)
                yield bytes(piece)


def body_of(tried: str, given: Any) -> Body | None:
    """Return what was given as a body: None, bytes, a string (UTF-8), a file open for reading, or pieces of bytes."""
    if given is None or isinstance(given, Body):
        return given
    if isinstance(given, str):
        given = given.encode()
    if isinstance(given, bytes | bytearray | memoryview):
        return Body(size=len(bytes(given)), data=bytes(given))
    if hasattr(given, "read"):
        return _file(tried, given)
    if not isinstance(given, Iterable):
        _checks.refuse(tried, "body", given, "It takes bytes, a string, a file opened by open(path, 'rb'), or pieces.")
    return Body(size=None, data=given)


def _file(tried: str, file: Any) -> Body:
    """Return a file's rest as a body: of known size if it is a regular file, in chunks if it is a pipe."""
    try:
        mode = os.fstat(file.fileno())
        if stat.S_ISREG(mode.st_mode):
            offset = file.tell()
            count = max(0, mode.st_size - offset)
            return Body(size=count, data=FilePart(file, offset, count))
    except (OSError, ValueError, AttributeError) as error:
        if getattr(file, "closed", False):
            raise UsageError(tried, answered=f"{file!r} is closed", remedy="Give an open file.") from error
    return Body(size=None, data=iter(lambda: file.read(_PIECE_BYTES), b""))
