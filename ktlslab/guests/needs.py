"""What guests need from this machine, each with the command that installs it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ktlslab.guests.apt import KEYRING
from ktlslab.guests.elf import is_dynamic
from ktlslab.guests.programs import program
from ktlslab.guests.qemu import PROGRAM
from ktlslab.packages import how_to_get


class Prerequisite(NamedTuple):
    """One program: its name, whether it is present, and the command that installs it."""

    name: str
    present: bool
    remedy: str


def prerequisites(*, user_mode: bool = False) -> list[Prerequisite]:
    """Return everything needed to boot a kernel and, if there is apt, to fetch one from Debian's archive.

    `user_mode`: a user-mode kernel, which needs less.
    """
    busybox = program("busybox")
    present = {
        "busybox": bool(busybox) and not is_dynamic(Path(busybox or "").read_bytes()),
        "modprobe": bool(program("modprobe")),
    }
    if not user_mode:
        present = {PROGRAM: bool(program(PROGRAM)), **present}
        present |= {"depmod": bool(program("depmod")), "mke2fs": bool(program("mke2fs"))}
    if program("apt-get"):
        present |= {"dpkg-deb": bool(program("dpkg-deb")), "debian-archive-keyring": KEYRING.exists()}
    return [
        Prerequisite("busybox (static)" if name == "busybox" else name, there, how_to_get(name))
        for name, there in present.items()
    ]
