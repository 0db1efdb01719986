"""What guests need from this machine, each with the command that brings it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from ktlslab.guests.archive import KEYRING
from ktlslab.guests.initramfs import is_dynamic
from ktlslab.guests.qemu import PROGRAM


class Prerequisite(NamedTuple):
    """One thing: its name, whether it is there, and how to get it."""

    name: str
    present: bool
    remedy: str


def prerequisites() -> list[Prerequisite]:
    """Return everything that fetching and booting a kernel needs."""
    busybox = shutil.which("busybox")
    static = bool(busybox) and not is_dynamic(Path(busybox or "").read_bytes())
    return [
        Prerequisite(PROGRAM, bool(shutil.which(PROGRAM)), "apt-get install qemu-system-x86"),
        Prerequisite("busybox (static)", static, "apt-get install busybox-static"),
        Prerequisite("depmod", _program("depmod"), "apt-get install kmod"),
        Prerequisite("modprobe", _program("modprobe"), "apt-get install kmod"),
        Prerequisite("mke2fs", _program("mke2fs"), "apt-get install e2fsprogs"),
        Prerequisite("apt-get", _program("apt-get"), "Fetching kernels takes Debian's apt; a kernel of your own does not."),
        Prerequisite("dpkg-deb", _program("dpkg-deb"), "apt-get install dpkg"),
        Prerequisite("debian-archive-keyring", KEYRING.exists(), "apt-get install debian-archive-keyring"),
    ]


def _program(name: str) -> bool:
    """Whether a program is there; those for root alone lie where an ordinary PATH does not look."""
    return any(shutil.which(name, path=path) for path in (None, "/usr/sbin:/sbin"))
