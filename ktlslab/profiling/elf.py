"""The functions of an ELF file (64 bits, little-endian, x86-64), by where they are in it.

A file that was stripped names only what it exports. Where its other functions begin stands in its table for unwinding
(.eh_frame_hdr; Linux Standard Base, Core, 10.6). Such a function is named by what its instructions do, as far as that
can be seen, and by its address: aes@0x1c2d40, copy@..., clear@..., or code@... for all else.

Source: elf(5).
"""

from __future__ import annotations

import bisect
import functools
import re
import struct
from pathlib import Path
from typing import NamedTuple

_SYMTAB, _DYNSYM = 2, 11
_LOAD, _UNWINDING = 1, 0x6474E550  # PT_LOAD, PT_GNU_EH_FRAME
_FUNCTIONS = frozenset([0, 2, 10])  # no type (assembly), function, indirect function
_EXECUTABLE = 1
_TABLE_OF_OFFSETS = b"\x01\x1b\x03\x3b"  # version; pointer relative, count absolute, table relative to the header
_MAX_BYTES = 1 << 16  # of a function that are looked at

# What gives a function away, in machine code: a name, and patterns with how often each is found at least.
_VECTOR_STORE = rb"\xc5[\xe0-\xff]\x7f|\x0f[\x11\x29\x7f]"
_SIGNS: dict[str, tuple[tuple[bytes, int], ...]] = {
    # AESENC and its like, PCLMULQDQ
    "aes": ((rb"\x0f\x38[\xdb-\xdf]|\xc4[\xe2\xc2\x42\x62].[\xdb-\xdf]|\x0f\x3a\x44|\xc4[\xe3\xc3\x43\x63].\x44", 2),),
    # ChaCha20 rotates words left by 12 bits: shifts by 20 and 12 (RFC 8439, 2.1)
    "chacha": ((rb"\x72[\xd0-\xd7]\x14", 1), (rb"\x72[\xf0-\xf7]\x0c", 1)),
    # Poly1305 multiplies modulo 2^130 - 5: MUL, MULX or VPMULUDQ
    "multiply": ((rb"[\x48\x49]\xf7[\xe0-\xe7]|\xc5.\xf4|\xc4[\xc1\xe1\x41\x61].\xf4|\xc4[\xe2\xc2\x62\x42].\xf6", 8),),
    "copy": ((rb"\xc5[\xe0-\xff]\x6f|\x0f[\x10\x28\x6f]", 8), (_VECTOR_STORE, 8)),
    # a byte that is spread over a vector, and the vector stored
    "clear": ((rb"\xc4[\xe2\xc2]\x7d\x78|\x66\x0f\x60|\x0f\x38\x00", 1), (_VECTOR_STORE, 8)),
}
_PATTERNS = {name: [(re.compile(one, re.DOTALL), n) for one, n in some] for name, some in _SIGNS.items()}


class Function(NamedTuple):
    """A function, and how many bytes it has."""

    name: str
    size: int


class Elf:
    """The functions of a file; none where it is no such file."""

    def __init__(self, path: Path) -> None:
        found: dict[int, Function] = {}
        try:
            data = path.read_bytes()
            if data[:6] == b"\x7fELF\x02\x01":
                found = _functions(data)
        except (OSError, struct.error, IndexError, ValueError, OverflowError):
            found = {}
        self._starts = sorted(found)
        self._functions = [found[start] for start in self._starts]

    def find(self, offset: int) -> tuple[str, int]:
        """Return the function at an offset in the file, and how far behind its beginning; ("", 0) for none."""
        index = bisect.bisect_right(self._starts, offset) - 1
        if index < 0 or offset >= self._starts[index] + self._functions[index].size:
            return "", 0
        return self._functions[index].name, offset - self._starts[index]


@functools.cache
def functions_of(path: str) -> Elf:
    """Return a file's functions."""
    return Elf(Path(path))


def _functions(data: bytes) -> dict[int, Function]:
    headers = _segments(data)
    code = [
        (address, offset, size)
        for kind, flags, offset, address, size in headers
        if kind == _LOAD and flags & _EXECUTABLE
    ]

    def place(address: int) -> int | None:
        return next((address - at + offset for at, offset, size in code if at <= address < at + size), None)

    found: dict[int, Function] = {}
    for name, value, size in _symbols(data):
        if (where := place(value)) is not None:
            found[where] = min(found.get(where, Function(name, size)), Function(name, size), key=_plainness)
    unwound = sorted({where for value in _unwound(data, headers) if (where := place(value)) is not None})
    ends = [*unwound[1:], max((offset + size for _, offset, size in code), default=0)]
    covered = sorted((where, where + function.size) for where, function in found.items())
    starts = [where for where, _ in covered]
    for where, end in zip(unwound, ends, strict=True) if unwound else ():
        index = bisect.bisect_right(starts, where) - 1
        if index < 0 or where >= covered[index][1]:
            found[where] = Function(f"{_sign(data[where : min(end, where + _MAX_BYTES)])}@{where:#x}", end - where)
    return found


def _segments(data: bytes) -> list[tuple[int, int, int, int, int]]:
    """Return the program headers: kind, flags, offset, address, size in the file."""
    (at,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    found = []
    for index in range(count):
        kind, flags, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, at + index * size)
        found.append((kind, flags, offset, address, length))
    return found


def _symbols(data: bytes) -> list[tuple[str, int, int]]:
    """Return name, address and size of each function in the fuller of the symbol tables."""
    (at,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, at + index * size) for index in range(count)]
    tables = [section for kind in (_SYMTAB, _DYNSYM) for section in sections if section[1] == kind]
    found = []
    for _, _, _, _, begin, length, link, *_ in tables[:1]:
        names = sections[link][4]
        for where in range(begin, begin + length, 24):
            name_at, info, _, section, value, extent = struct.unpack_from("<IBBHQQ", data, where)
            if info & 15 in _FUNCTIONS and section and extent:
                end = data.index(b"\0", names + name_at)
                found.append((data[names + name_at : end].decode(errors="replace"), value, extent))
    return found


def _unwound(data: bytes, headers: list[tuple[int, int, int, int, int]]) -> list[int]:
    """Return the addresses at which functions begin, from the table for unwinding."""
    for kind, _, offset, address, _ in headers:
        if kind == _UNWINDING and data[offset : offset + 4] == _TABLE_OF_OFFSETS:
            (count,) = struct.unpack_from("<I", data, offset + 8)
            pairs = struct.unpack_from(f"<{2 * count}i", data, offset + 12)
            return [address + first for first in pairs[::2]]
    return []


def _sign(code: bytes) -> str:
    """Return what a function's instructions do."""
    for name, patterns in _PATTERNS.items():
        if all(len(pattern.findall(code)) >= least for pattern, least in patterns):
            return name
    return "code"


def _plainness(function: Function) -> tuple[int, str]:
    """Rank the names of one address: the longest function is first."""
    return -function.size, function.name
