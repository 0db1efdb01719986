"""From an address to what it belongs to: a function of the kernel or of one of its modules, or of a file of user code.

The kernel's come from /proc/kallsyms. Those of user code come from the ELF files that the guest shares with this
machine; a stripped file names only what it exports, and the rest has an empty name.
"""

from __future__ import annotations

import bisect
import functools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

VMLINUX = "kernel"  # the object of what is no module
_CODE = frozenset("tTwW")
_SYMTAB, _DYNSYM, _LOAD = 2, 11, 1
_FUNCTIONS = frozenset([0, 2, 10])  # no type (assembly), function, indirect function
_EXECUTABLE = 1


class Place(NamedTuple):
    """Where an address is. `start`: the function's first address, 0 where it is not known."""

    object: str
    function: str
    start: int


class KernelSymbols:
    """The symbols of a running kernel, from the text of /proc/kallsyms."""

    def __init__(self, text: str) -> None:
        named: dict[int, tuple[str, str]] = {}
        for line in text.splitlines():
            address, kind, name, *module = line.split()
            if kind not in _CODE or name.startswith("__pfx_"):
                continue
            at = int(address, 16)
            one = (name, module[0].strip("[]") if module else VMLINUX)
            named[at] = min(named.get(at, one), one, key=_plainness)
        self._starts = sorted(named)
        self._names = [named[start] for start in self._starts]

    def find(self, address: int) -> Place:
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0:
            return Place(VMLINUX, "", 0)
        name, module = self._names[index]
        return Place(module, plain(name), self._starts[index])


def _plainness(named: tuple[str, str]) -> tuple[Any, ...]:
    """Rank the names of one address: the plainest is first."""
    name = named[0]
    return name.startswith("__"), name.startswith("_"), len(name), name


def plain(name: str) -> str:
    """Return a function's name without what the compiler adds to that of a part or copy of it: `.cold`, `.isra.0`."""
    return name.partition(".")[0] or name


class UserCode:
    """The code of a process: `maps` lists [first address, address after the last, offset in the file, path]."""

    def __init__(self, maps: Sequence[Sequence[Any]]) -> None:
        self._maps = sorted((int(first), int(last), int(offset), str(path)) for first, last, offset, path in maps)

    def find(self, address: int) -> Place:
        index = bisect.bisect_right(self._maps, address, key=lambda one: one[0]) - 1
        if index < 0 or address >= self._maps[index][1]:
            return Place("", "", 0)
        first, _, offset, path = self._maps[index]
        if not path.startswith("/"):
            return Place(path or "generated code", "", 0)
        function, distance = elf(path).find(address - first + offset)
        return Place(Path(path).name, function, address - distance if function else 0)


class Elf:
    """The functions of an ELF file (64 bits, little-endian), by where they are in the file."""

    def __init__(self, path: Path) -> None:
        self._starts: list[int] = []
        self._functions: list[tuple[int, str]] = []
        try:
            data = path.read_bytes()
            functions = _functions(data) if data[:6] == b"\x7fELF\x02\x01" else {}
        except (OSError, struct.error, IndexError):
            functions = {}
        self._starts = sorted(functions)
        self._functions = [functions[start] for start in self._starts]

    def find(self, offset: int) -> tuple[str, int]:
        """Return the function there, and how far behind its beginning; ("", 0) for none."""
        index = bisect.bisect_right(self._starts, offset) - 1
        if index < 0:
            return "", 0
        size, name = self._functions[index]
        distance = offset - self._starts[index]
        return (name, distance) if distance < size else ("", 0)


@functools.cache
def elf(path: str) -> Elf:
    """Return a file's functions; none where it is no ELF file."""
    return Elf(Path(path))


def _functions(data: bytes) -> dict[int, tuple[int, str]]:
    """Return the functions of an ELF file: offset in the file -> (size, name). Source: elf(5)."""
    headers, sections = struct.unpack_from("<QQ", data, 32)
    header_size, header_count, section_size, section_count = struct.unpack_from("<HHHH", data, 54)
    loads = []
    for index in range(header_count):
        kind, flags, offset, address, _, size = struct.unpack_from("<IIQQQQ", data, headers + index * header_size)
        if kind == _LOAD and flags & _EXECUTABLE:
            loads.append((address, offset, size))
    tables = [
        struct.unpack_from("<IIQQQQIIQQ", data, sections + index * section_size) for index in range(section_count)
    ]
    chosen = [table for kind in (_SYMTAB, _DYNSYM) for table in tables if table[1] == kind]
    found: dict[int, tuple[int, str]] = {}
    if not chosen:
        return found
    _, _, _, _, begin, length, link, *_ = chosen[0]
    names = tables[link][4]
    for at in range(begin, begin + length, 24):
        name_at, info, _, section, value, size = struct.unpack_from("<IBBHQQ", data, at)
        if info & 15 not in _FUNCTIONS or not section or not size:
            continue
        for address, offset, space in loads:
            if address <= value < address + space:
                end = data.index(b"\0", names + name_at)
                name = data[names + name_at : end].decode(errors="replace")
                where = value - address + offset
                found[where] = min(found.get(where, (size, name)), (size, name), key=lambda one: (-one[0], one[1]))
    return found
