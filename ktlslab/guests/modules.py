"""Which modules a guest needs, in load order, read from the kernel's own `modules.dep`.

Nothing about a kernel's configuration is assumed: built-in modules are skipped, others are taken with all their
dependencies. Distributions compress modules; the initramfs holds them uncompressed, because an emulated CPU is the
slowest place to unpack them, and without what would take a fifth of a guest's start there and is of no use in it.
"""

from __future__ import annotations

import lzma
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ktlslab.errors import GuestError
from ktlslab.packages import how_to_get

if TYPE_CHECKING:
    from pathlib import Path

_SIGNED = b"~Module signature appended~\n"
_SIGNATURE_HEAD = 12  # struct module_signature, before these words; it ends with the size of what is before it
# Sections with names for values in the formats of tracepoints, and types for BPF programs. Under another name they stay
# unread, and every address what it was. The name of a section's relocations may end with the same bytes of the file.
UNREAD = (b"_ftrace_eval_map", b".BTF")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The index of a module tree: the path and dependencies of each module, and what is built in."""

    root: Path
    paths: dict[str, str]
    needs: dict[str, tuple[str, ...]]
    builtin: frozenset[str]

    def order(self, names: list[str], optional: list[str] | None = None) -> list[str]:
        """Return the files to load for `names`, dependencies first, each once; `optional` ones only if they exist."""
        missing = [name for name in map(_plain, names) if name not in self.paths and name not in self.builtin]
        if missing:
            answered = f"no {', '.join(missing)} in {self.root}"
            remedy = (
                "Take a kernel that has them (Debian's generic one does), or pass modules=() if only they are missing."
            )
            raise GuestError("collecting a guest's modules", answered=answered, remedy=remedy)
        chosen: dict[str, None] = {}
        for name in [*names, *(optional or [])]:
            self._add(_plain(name), chosen)
        return list(chosen)

    def _add(self, name: str, chosen: dict[str, None]) -> None:
        path = self.paths.get(name)
        if path is None or path in chosen:
            return
        for needed in self.needs[name]:
            self._add(needed, chosen)
        chosen[path] = None


def read(root: Path) -> Index:
    """Read a module tree's index."""
    builtin = root / "modules.builtin"
    try:
        dep = (root / "modules.dep").read_text(encoding="utf-8")
        built = builtin.read_text(encoding="utf-8") if builtin.exists() else ""
    except OSError as error:
        remedy = "Run `depmod` for this kernel, or fetch one: `ktlslab guest fetch newest`."
        raise GuestError(f"reading the module index in {root}", answered=str(error), remedy=remedy) from error
    return parse(root, dep, built)


def parse(root: Path, dep: str, builtin: str) -> Index:
    """Make an index from the text of `modules.dep` and `modules.builtin`."""
    paths: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for line in dep.splitlines():
        path, _, rest = line.partition(":")
        if path:
            name = name_of(path)
            paths[name] = path
            # modules.dep lists the dependencies in reverse load order
            needs[name] = tuple(name_of(needed) for needed in reversed(rest.split()))
    names = frozenset(name_of(line) for line in builtin.split())
    return Index(root=root, paths=paths, needs=needs, builtin=names)


def name_of(path: str) -> str:
    """Return the name of a module from its path: `kernel/arch/x86/crypto/aesni-intel.ko.xz` is `aesni_intel`."""
    return _plain(path.rpartition("/")[2].partition(".ko")[0])


def content(path: Path, *, signed: bool) -> bytes:
    """Return the uncompressed bytes of a module: as it is if it must stay `signed`, or with less for a kernel to do."""
    data = _uncompressed(path)
    if signed:
        return data
    if data.endswith(_SIGNED):
        end = len(data) - len(_SIGNED)
        data = data[: end - _SIGNATURE_HEAD - int.from_bytes(data[end - 4 : end], "big")]
    for section in UNREAD:
        data = data.replace(section + b"\0", b"-" + section[1:] + b"\0")
    return data


def _uncompressed(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        import gzip  # noqa: PLC0415 - hardly any distribution does this

        return gzip.decompress(data)
    if path.suffix == ".zst":  # the standard library reads it from 3.14 on
        try:
            done = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise GuestError(f"unpacking {path}", answered=str(error), remedy=how_to_get("zstd")) from error
        return done.stdout
    return data


def _plain(name: str) -> str:
    return name.replace("-", "_")
