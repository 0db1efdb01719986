"""A user-mode kernel's command line. To this machine such a kernel is a program, which needs neither QEMU nor root.

Files come over hostfs, with the rights of whoever runs the kernel. Only the given folder is written to, as long as no
program in the guest mounts hostfs again by itself: for programs that one does not trust there is QEMU, whose share of
this machine is read-only. Output goes over serial lines, and the console, with the last messages of a kernel that dies,
to standard output. The program is started in the guest's folder, where the relative names below lead to its C library
(see `usermodearchive`), its first files, and its disk image.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ktlslab.errors import GuestError, StorageError, UsageError
from ktlslab.guests import usernetwork
from ktlslab.guests.initramfs import INITRD
from ktlslab.guests.kernels import Kernel
from ktlslab.guests.usermodearchive import LIBRARY
from ktlslab.packages import how_to_get

MEMORY = Path("/dev/shm")  # noqa: S108 - a mount of the system's, in which the kernel makes a file that has no name
IMAGE = "image"
_TRIED = "starting a user-mode kernel"
# What the console says where this machine does not let such a kernel run -> what helps.
TROUBLES = {
    "check_ptrace": "This machine forbids ptrace: in a container, allow it (`docker run --cap-add SYS_PTRACE`). "
    "User-mode kernels from 7.2 on do without it where seccomp is allowed; emulated ones (`newest`) need neither."
}


def check(*, clock: str, cpus: int | None = None, network: bool, plugin: str = "") -> None:
    """Raise UsageError for what only an emulated CPU can do, GuestError without what a network needs."""
    remedy = "Take an emulated CPU: `newest`, or another series of `ktlslab guest list`."
    if clock != "wall" or plugin:
        raise UsageError(_TRIED, answered="it runs on this machine's CPU and cannot count instructions", remedy=remedy)
    if cpus not in {None, 1}:
        raise UsageError(f"{_TRIED} with {cpus} CPUs", answered="such a kernel has one", remedy=remedy)
    if network:
        check_network()


def check_network() -> None:
    """Raise GuestError without the library that is such a kernel's network."""
    try:
        ctypes.CDLL(usernetwork.LIBRARY)
    except OSError as error:
        remedy = how_to_get(usernetwork.LIBRARY)
        raise GuestError(f"{_TRIED} with a network", answered=str(error), remedy=remedy) from error


def command(
    kernel: Kernel,
    folder: Path,
    *,
    ports: Sequence[int],
    memory_bytes: int,
    image: Path | None,
    forwards: Sequence[int],
    outbound: bool,
) -> list[str]:
    """Return the whole command, for the guest's folder as the current one, and put there what it names."""
    program = kernel.vmlinuz.resolve()
    if not os.access(program, os.X_OK):
        answered = f"{program} may not be executed: is its file system mounted noexec?"
        raise StorageError(_TRIED, answered=answered, remedy="Point $KTLSLAB_CACHE at a folder where programs can run.")
    (folder / LIBRARY).symlink_to(program.parents[1] / LIBRARY)
    environment = [f"LD_LIBRARY_PATH={LIBRARY}", f"TMPDIR={memory_folder(folder, memory_bytes)}"]
    argv = ["env", "-u", "TMP", "-u", "TEMP", *environment, str(program)]
    argv += [f"mem={memory_bytes >> 20}M", f"initrd={INITRD}", "uml_dir=.", "umid=uml"]
    argv += ["con=null", "con0=null,fd:1", *(f"ssl{number}=null,fd:{port}" for number, port in enumerate(ports, 1))]
    # noreboot: a restart, and so a panic, ends the program
    argv += ["noreboot", "panic=-1", "oops=panic", "quiet", "loglevel=3"]
    # The choice of RAID 6 code is a benchmark of 0.9 s, most of the boot, and no guest has such disks.
    argv += ["seccomp=auto", "audit=0", "random.trust_cpu=on", "initcall_blacklist=raid6_select_algo,raid6_init"]
    if image:
        (folder / IMAGE).symlink_to(image)
        argv += [f"ubd0rc={IMAGE}"]
    if forwards or outbound:
        settings = ["1" if outbound else "0", ",".join(map(str, forwards))]
        argv = [sys.executable, "-I", "-S", usernetwork.__file__, *settings, *argv]
    return argv


def memory_folder(folder: Path, memory_bytes: int) -> Path:
    """Return where the guest's memory is kept: this machine's memory if it has room there, else the guest's folder.

    The kernel runs code in its memory, so a file system that is mounted noexec will not do. StorageError if neither
    will.
    """
    said = []
    for place in (MEMORY, folder):
        if why := _unfit(place, memory_bytes):
            said.append(f"{place} {why}")
        else:
            return place
    remedy = "Give it less memory, or point $TMPDIR at a folder with room for it that is not mounted noexec."
    raise StorageError("finding a place for a guest's memory", answered="; ".join(said), remedy=remedy)


def _unfit(place: Path, size: int) -> str:
    try:
        found = os.statvfs(place)
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    if not os.access(place, os.W_OK | os.X_OK):
        return "is not writable"
    if found.f_flag & os.ST_NOEXEC:
        return "is mounted noexec"
    free = found.f_bavail * found.f_frsize
    return "" if free >= size else f"has {free >> 20}M free of the {size >> 20}M needed"
