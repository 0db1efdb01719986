"""The command line of QEMU: a machine with nothing in it that a guest does not use.

No firmware menus, no graphics, no disk controller, no network card unless asked for. Files come over 9p shares, output
goes over virtio-serial ports, and the serial console exists to hear a dying kernel's last words.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ktlslab import _checks
from ktlslab.errors import GuestError, UsageError
from ktlslab.packages import how_to_get

if TYPE_CHECKING:
    from pathlib import Path

Clock = Literal["wall", "instructions"]
Accelerator = Literal["kvm", "tcg"]
CLOCKS: tuple[Clock, ...] = ("wall", "instructions")
PROGRAM = "qemu-system-x86_64"
MIN_MEMORY_BYTES = 256 << 20  # a kernel of today unpacks itself, but finds no room for its first program in less
_SECONDS = 30.0  # for it to say its version


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualMachine:
    """What QEMU is to be."""

    kernel: Path
    initrd: Path
    console: Path
    ports: tuple[int, ...]
    clock: Clock
    accelerator: Accelerator
    cpus: int
    memory_bytes: int
    rw: Path | None = None
    image: Path | None = None
    forwards: tuple[int, ...] = field(default=())
    outbound: bool = False


def arguments(machine: VirtualMachine) -> list[str]:
    """Return the whole command."""
    shares = [("root", "/", True)]
    if machine.rw:
        shares.append(("rw", str(machine.rw), False))
    argv = [program(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc,usb=off"]
    argv += accelerate(machine)
    argv += ["-smp", str(machine.cpus), "-m", f"{machine.memory_bytes >> 20}M"]
    argv += ["-kernel", str(machine.kernel), "-initrd", str(machine.initrd), "-append", " ".join(parameters(machine))]
    argv += ["-serial", f"file:{escaped(machine.console)}"]
    for tag, path, readonly in shares:
        options = ",readonly=on" if readonly else ""
        # multidevs=remap: a share may span several file systems, whose inode numbers must not be confused
        argv += ["-virtfs", f"local,path={escaped(path)},mount_tag={tag},security_model=none,multidevs=remap{options}"]
    argv += ["-device", "virtio-serial-pci,max_ports=8"]
    for number, descriptor in enumerate(machine.ports, 1):
        argv += ["-chardev", f"socket,id=port{number},fd={descriptor}"]
        argv += ["-device", f"virtserialport,chardev=port{number},nr={number},name=port{number}"]
    if machine.image:
        argv += ["-drive", f"file={escaped(machine.image)},if=none,id=image,format=raw,readonly=on,file.locking=off"]
        argv += ["-device", "virtio-blk-pci,drive=image"]
    if machine.forwards or machine.outbound:
        # restrict=on: the forwarded ports of this machine's loopback reach the guest, and the guest reaches nothing
        restrict = "off" if machine.outbound else "on"
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{port}-:{port}" for port in machine.forwards)
        argv += [
            "-netdev",
            f"user,id=net,restrict={restrict}{forwards}",
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
        ]
    return argv


def accelerate(machine: VirtualMachine) -> list[str]:
    """Return who executes the guest's instructions, and by which clock."""
    if machine.accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # thread=single: the CPUs take turns. Side by side, QEMU before 8.1 may run code that another CPU has just patched
    # away (it locks the page it translates since its commit deba78709a), and a kernel patches itself all the time.
    # la57: five-level page tables cost an emulated CPU much and bring a small guest nothing.
    emulated = ["-accel", "tcg,thread=single", "-cpu", "max,la57=off"]
    return emulated + (["-icount", "shift=0,sleep=off"] if machine.clock == "instructions" else [])


def parameters(machine: VirtualMachine) -> list[str]:
    """Return the kernel's command line."""
    line = ["console=ttyS0", "quiet", "loglevel=3", "panic=-1", "oops=panic", "nokaslr", "audit=0", "apparmor=0"]
    line += ["random.trust_cpu=on", "cryptomgr.notests", "8250.nr_uarts=1", "net.ifnames=0"]
    if machine.accelerator == "tcg":
        line += ["tsc=reliable", "no_timer_check"]
    if machine.clock == "instructions":
        # Calibrating the local timer is a busy loop of clock reads, each costly to count: 3 to 4 s of every boot.
        # Where a buffer lies changes what it costs: the same addresses in every run.
        line += ["clocksource=tsc", "noapictimer", "norandmaps"]
    return line


def cpus(clock: str | None, count: int | None) -> int | None:
    """Return how many CPUs, which is one where instructions are counted. UsageError where they cannot be had."""
    tried = "starting a guest"
    _checks.optional(_checks.whole, tried, "cpus", count, 1)
    if clock == "instructions" and count not in {None, 1}:
        remedy = "Leave out cpus, or take the wall clock."
        raise UsageError(f"{tried} with {count} CPUs", answered="counting instructions takes one", remedy=remedy)
    return count


def memory_bytes(memory: str) -> int:
    """Return how much memory "512M", "2G" or "1024" (mebibytes) is, in bytes.

    Raises UsageError for what is no size, is too little to boot with, or more than this machine has.
    """
    remedy = "Give a size such as 512M or 2G; 1G does for most."
    match = re.fullmatch(r"(\d+)([MG]?)i?B?", memory, re.IGNORECASE) if isinstance(memory, str) else None
    if not match:
        raise UsageError("starting a guest", answered=f"{memory!r} is no size of memory", remedy=remedy)
    size = int(match[1]) << (30 if match[2].upper() == "G" else 20)
    if size < MIN_MEMORY_BYTES:
        answered = f"{memory} of memory is less than the {MIN_MEMORY_BYTES >> 20}M that a kernel needs"
        raise UsageError("starting a guest", answered=answered, remedy=remedy)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > machine:
        answered = f"{memory} of memory is more than the {machine >> 20}M of this machine"
        raise UsageError("starting a guest", answered=answered, remedy=remedy)
    return size


def program() -> str:
    """Return QEMU's path."""
    found = shutil.which(PROGRAM)
    if not found:
        raise GuestError("starting a guest", answered=f"{PROGRAM} is missing", remedy=how_to_get(PROGRAM))
    return found


@functools.cache
def emulator() -> str:
    """Return what QEMU calls itself: "QEMU emulator version 7.2.22 (...)"."""
    done = subprocess.run([program(), "--version"], capture_output=True, text=True, check=False, timeout=_SECONDS)
    return done.stdout.partition("\n")[0].strip()


def escaped(path: object) -> str:
    """QEMU's own quoting inside an option."""
    return str(path).replace(",", ",,")
