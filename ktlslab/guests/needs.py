"""What guests need from this machine, each with the command that brings it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ktlslab.guests.archive import KEYRING
from ktlslab.guests.initramfs import is_dynamic
from ktlslab.guests.programs import program
from ktlslab.guests.qemu import PROGRAM

_APT = "Fetching kernels takes Debian's apt; a kernel of your own does not: `ktlslab guest run /boot/vmlinuz-...`."


class Prerequisite(NamedTuple):
    """One thing: its name, whether it is there, and how to get it."""

    name: str
    present: bool
    remedy: str


def prerequisites() -> list[Prerequisite]:
    """Return everything that fetching and booting a kernel needs."""
    busybox = program("busybox")
    static = bool(busybox) and not is_dynamic(Path(busybox or "").read_bytes())
    return [
        Prerequisite(PROGRAM, bool(program(PROGRAM)), "apt-get install qemu-system-x86"),
        Prerequisite("busybox (static)", static, "apt-get install busybox-static"),
        Prerequisite("depmod", bool(program("depmod")), "apt-get install kmod"),
        Prerequisite("modprobe", bool(program("modprobe")), "apt-get install kmod"),
        Prerequisite("mke2fs", bool(program("mke2fs")), "apt-get install e2fsprogs"),
        Prerequisite("apt-get", bool(program("apt-get")), _APT),
        Prerequisite("dpkg-deb", bool(program("dpkg-deb")), "apt-get install dpkg"),
        Prerequisite("debian-archive-keyring", KEYRING.exists(), "apt-get install debian-archive-keyring"),
    ]
