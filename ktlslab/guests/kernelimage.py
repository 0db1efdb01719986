"""The packages that a guest imports, as a small disk image, because reading them over a share is far slower.

The image holds the distributions that a Jupyter kernel (or another named program) needs, laid out as in site-packages,
and comes before them in PYTHONPATH; everything else is still imported from this machine's files. Without mke2fs there
is no image, and the guest's imports are slower.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from ktlslab.errors import MachineError
from ktlslab.guests.cache import cache_dir, full_disk, lock, scratch, storage
from ktlslab.guests.programs import program
from ktlslab.packages import how_to_get

PLACE = Path("/run/ktlslab/site-packages")
_SPARE = 32 << 20


def build(*names: str) -> Path | None:
    """Return the image of these distributions (default: ipykernel) and their dependencies; None if it cannot be made.

    It is made if it is not in the cache.
    """
    mke2fs = program("mke2fs")
    found = closure(*(names or ("ipykernel",)))
    if not mke2fs or not found:
        return None
    stamp = hashlib.sha256(repr(sorted((d.name, d.version, str(d.locate_file(""))) for d in found)).encode())
    place = cache_dir("images") / f"site-{stamp.hexdigest()[:16]}.ext4"
    with lock("images"):
        if not place.exists():
            with scratch(place) as folder, storage(f"making {place}"):
                tree = folder / "tree"
                size = _copy(found, tree)
                argv = [
                    mke2fs,
                    "-q",
                    "-t",
                    "ext4",
                    "-O",
                    "^has_journal",
                    "-m",
                    "0",
                    "-d",
                    str(tree),
                    str(folder / "new"),
                ]
                done = subprocess.run(
                    [*argv, f"{(size * 5 // 4 + _SPARE) >> 10}k"], capture_output=True, text=True, check=False
                )
                if done.returncode and "space" in done.stderr:
                    raise full_disk(f"making {place}", done.stderr.strip())
                if done.returncode:
                    raise MachineError(f"making {place}", answered=done.stderr.strip(), remedy=how_to_get("mke2fs"))
                (folder / "new").rename(place)
    return place


def closure(*names: str) -> list[metadata.Distribution]:
    """Return distributions and their dependencies, as far as they are installed."""
    waiting, seen = list(names), dict[str, metadata.Distribution]()
    while waiting:
        wanted = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if wanted in seen:
            continue
        try:
            seen[wanted] = metadata.distribution(wanted)
        except metadata.PackageNotFoundError:
            continue
        for requirement in seen[wanted].requires or []:
            text, _, marker = requirement.partition(";")
            match = re.match(r"[A-Za-z0-9._-]+", text)
            if match and "extra" not in marker:
                waiting.append(match[0])
    return list(seen.values())


def _copy(distributions: list[metadata.Distribution], tree: Path) -> int:
    """Copy the distributions' files in site-packages; return how many bytes the file system must hold."""
    size = 0
    tree.mkdir()
    for distribution in distributions:
        for file in distribution.files or []:
            source = Path(str(file.locate()))
            if ".." in file.parts or file.is_absolute() or not source.is_file():
                continue
            target = tree / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            shutil.copystat(source, target)  # .pyc files are valid only for the exact mtime of the source
            size += (target.stat().st_size // 4096 + 2) * 4096
    return size
