"""From an address to what it belongs to: a function of the kernel or of one of its modules, or of a file of user code.

The kernel's come from /proc/kallsyms. Those of user code come from the ELF files that the guest shares with this
machine (`ktlslab.profiling.elf`).
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ktlslab.profiling.elf import functions_of

VMLINUX = "kernel"  # the object of what is no module
_CODE = frozenset("tTwW")
_ALIGNMENT = 16  # of functions
_LABEL, _LABEL_AMONG = re.compile(r"_[^_]\w*\d"), re.compile(r"\w+(_|done)\d+")


class Place(NamedTuple):
    """Where an address is. `start`: the function's first address, 0 where it is not known."""

    object: str
    function: str
    start: int


class KernelSymbols:
    """The functions of a running kernel, from the text of /proc/kallsyms.

    In the modules of older kernels the labels in assembly code are symbols as well (_esb_loop_121): what they name
    belongs to the function before them.
    """

    def __init__(self, text: str) -> None:
        named: dict[int, tuple[str, str]] = {}
        for line in text.splitlines():
            address, kind, name, *module = line.split()
            if kind not in _CODE or name.startswith("__pfx_"):
                continue
            at = int(address, 16)
            one = (name, module[0].strip("[]") if module else VMLINUX)
            named[at] = min(named.get(at, one), one, key=_plainness)
        label = False
        for at in sorted(named):
            name, where = named[at]
            label = where != VMLINUX and _is_label(at, name, among=label)
            if label:
                del named[at]
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


def _is_label(address: int, name: str, *, among: bool) -> bool:
    """Whether a module's symbol names a place within a function. `among`: the one before it does.

    Functions are aligned, except for a compiler's own parts of one, which have a dot in their names. A label may be
    aligned by chance, and then has its number at the end.
    """
    if "." in name:
        return False
    return bool(address % _ALIGNMENT or _LABEL.fullmatch(name) or (among and _LABEL_AMONG.fullmatch(name)))


def plain(name: str) -> str:
    """Return a function's name without what is added to it where it is compiled.

    The compiler marks a part or a copy: `.cold`, `.isra.0`. Kernels that can count allocations by place (from 6.10 on)
    have the function itself as `kmem_cache_alloc_node_noprof`.
    """
    return name.partition(".")[0].removesuffix("_noprof") or name


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
        function, distance = functions_of(path).find(address - first + offset)
        return Place(Path(path).name, function, address - distance if function else 0)
