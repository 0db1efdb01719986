"""What a guest starts from: busybox, two shell scripts, the few modules that reach this machine's files, and the job.

The constant part is built once per kernel and kept in the cache. The job (the command and its environment) is a second,
small archive after it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ktlslab.errors import GuestError, UsageError
from ktlslab.guests import cpio, modules
from ktlslab.guests.cache import cache_dir, lock, scratch, storage
from ktlslab.guests.elf import is_dynamic
from ktlslab.packages import how_to_get

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ktlslab.guests.kernels import Kernel

# The modules that a guest needs to start, and those that `modprobe` could load later, but slowly, over the share.
NEEDED = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"]
USER_MODE_NEEDED = ["overlay"]  # the rest is built in
# What udev would load for this CPU on real hardware, so that a guest uses the same crypto as a real machine.
DRIVERS = ["aesni_intel", "ghash_clmulni_intel", "sha256_ssse3", "sha512_ssse3"]
# A module of user-mode kernels up to 6.12 that netlink does not load where it wants it.
USER_MODE_DRIVERS = ["ipv6"]

INITRD = "initrd"  # its name in a guest's folder
FILES = Path("/run/ktlslab/job/files")  # where a guest finds the files given to it


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestJob:
    """What a guest is to do; only its command is the caller's, the rest is decided by `boot`."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    release: str
    modules: Path
    rw: Path | None
    mark: str
    user_mode: bool = False
    image_at: Path | None = None
    network: bool = False
    outbound: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)


def build(kernel: Kernel, load: Sequence[str], *, image: bool = False, network: bool = False) -> Path:
    """Return the constant part for a kernel; build it if it is not in the cache."""
    index = modules.read(kernel.modules)
    if kernel.user_mode:
        start = USER_MODE_NEEDED
    else:
        start = [*NEEDED, *(["virtio_blk", "ext4"] if image else []), *(["virtio_net"] if network else [])]
    needed = index.order([*start, *load])
    wanted = [*(DRIVERS if "tls" in load else []), *(USER_MODE_DRIVERS if kernel.user_mode else [])]
    optional = [path for path in index.order([], wanted) if path not in needed]
    files = {"bin/busybox": _busybox(), "init": _script("init.sh"), "stage2.sh": _script("stage2.sh")}
    paths = [index.root / path for path in (*needed, *optional)]
    signed = not kernel.takes_unsigned
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    stamp = hashlib.sha256(repr((signed, modules.UNREAD, stats)).encode())
    for data in files.values():
        stamp.update(data)
    place = cache_dir("initramfs") / f"{kernel.release}-{stamp.hexdigest()[:16]}.cpio"
    with lock("initramfs"):
        if not place.exists():
            for path in paths:
                files[f"modules/{_plain(path)}"] = modules.content(path, signed=signed)
            files["modules/order"] = _lines(_plain(Path(path)) for path in needed)
            files["modules/optional"] = _lines(_plain(Path(path)) for path in optional)
            archive = cpio.pack(files, folders=("dev", "proc", "sys", "lower", "upper", "newroot"))
            with scratch(place) as folder, storage(f"writing {place}"):
                (folder / "new").write_bytes(archive)
                (folder / "new").rename(place)
    return place


def pack_job(job: GuestJob) -> bytes:
    """Return the archive with a job."""
    files = {f"job/files/{name}": content for name, content in job.files.items()}
    return cpio.pack({"job/settings": settings(job), "job/command": command(job), **files}, mode=0o600)


def settings(job: GuestJob) -> bytes:
    """Return the assignments that the guest's scripts read."""
    values = {
        "RELEASE": job.release,
        "MODULES": str(job.modules),
        "RW": str(job.rw or ""),
        "MARK": job.mark,
        "USER_MODE": "1" if job.user_mode else "",
        "IMAGE": str(job.image_at or ""),
        "NETWORK": "1" if job.network else "",
        "OUTBOUND": "1" if job.outbound else "",
    }
    return _lines(f"{name}={shlex.quote(value)}" for name, value in values.items())


def command(job: GuestJob) -> bytes:
    """Return the script that becomes the command: nothing in it is subject to the shell's own reading."""
    lines = []
    for name, value in job.env.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            remedy = "Name variables with letters, digits and underscores."
            raise UsageError(
                "passing an environment to a guest", answered=f"{name!r} is not a variable name", remedy=remedy
            )
        lines.append(f"export {name}={shlex.quote(value)}")
    cwd = shlex.quote(str(job.cwd))
    lines.append(f'cd {cwd} || {{ echo "ktlslab: the guest has no folder "{cwd} >&2; exit 126; }}')
    program, *arguments = map(shlex.quote, job.argv)
    if "/" not in program:  # busybox's shell would take its own `ip` or `sh` before this machine's
        lines.append(
            f'program=$(which -- {program}) || {{ echo "ktlslab: the guest has no "{program} >&2; exit 127; }}'
        )
        program = '"$program"'
    lines.append(" ".join(["exec", program, *arguments]))
    text = _lines(lines)
    if b"\0" in text:
        raise UsageError("passing a command to a guest", answered="it contains a NUL", remedy="Take it out.")
    return text


def _lines(lines: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(line) + b"\n" for line in lines)


def _plain(path: Path) -> str:
    return f"{modules.name_of(path.name)}.ko"


def _script(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def _busybox() -> bytes:
    """Return busybox. It must be static, because a guest starts it before it can see any library."""
    path = shutil.which("busybox")
    remedy = how_to_get("busybox")
    if not path:
        raise GuestError("building a guest's start", answered="busybox is missing", remedy=remedy)
    data = Path(path).read_bytes()
    if is_dynamic(data):
        raise GuestError("building a guest's start", answered=f"{path} is not static", remedy=remedy)
    return data
