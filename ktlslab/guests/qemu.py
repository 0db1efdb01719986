"""QEMU's command line, for a machine that has only what a guest uses.

It has no firmware menus, no graphics, no disk controller, and a network card only on request. Files come over 9p
shares, output goes over virtio-serial ports, and the serial console shows the last messages of a kernel that dies.
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
MIN_MEMORY_BYTES = 256 << 20  # with less, current kernels unpack but cannot start their first program
# The emulated CPU: a fixed model with named features that QEMU 7.2 and 10 both have, since `max` is another CPU in each
# version. Without erms and fsrm, kernel and libc copy and clear by words and vectors. QEMU counts each byte of a `rep
# movsb` as an instruction, as much as an AES round, but a real CPU moves 32 bytes in a cycle.
CPU_NAME = "QEMU x86-64-v3 without erms and fsrm"
# What can be switched on to see what it does to a count, and the CPU's name then. fsrm cannot: QEMU 7.2 has it not.
FEATURES = {"erms": "QEMU x86-64-v3 with erms but without fsrm"}
_OFF = ("erms", "fsrm")
_ON = (
    *("aes", "pclmulqdq", "vaes", "avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "adx", "movbe", "popcnt", "abm"),
    *("ssse3", "sse4.1", "sse4.2", "sse4a", "cx16", "lahf-lm", "xsave", "xsaveopt", "xgetbv1", "rdrand", "rdtscp"),
    *("fsgsbase", "smep", "smap", "umip", "pku", "clflushopt", "clwb", "arat", "pdpe1gb", "svm", "npt"),
)


def _option(name: str, feature: str = "") -> str:
    switched = (f"{one}={'on' if one == feature else 'off'}" for one in _OFF)
    return ",".join(["qemu64-v1", f"model-id={name}", *(f"{one}=on" for one in _ON), *switched])


# QEMU's option -cpu by the name that a guest finds in /proc/cpuinfo.
CPUS = {CPU_NAME: _option(CPU_NAME), **{name: _option(name, feature) for feature, name in FEATURES.items()}}
CPU = CPUS[CPU_NAME]
# What kernels do at their start and no guest needs: functions for the parameter initcall_blacklist, which may name ones
# that a kernel lacks. Each takes some 5 to 10 % of the instructions up to the first program.
UNNEEDED = (
    "trace_eval_init",  # names for the values in the formats of tracepoints
    "ftrace_check_for_weak_functions",  # which functions the function tracer had better not list
    "jent_mod_init",  # tests of a source of randomness; an emulated CPU has rdrand
)
KEYRING = "load_system_certificate_list"  # the keys to check the signatures of modules with
_SECONDS = 30.0  # for QEMU to print its version


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
    plugin: str = ""
    cpu: str = CPU_NAME
    takes_unsigned: bool = False


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
    return argv + (["-plugin", machine.plugin] if machine.plugin else [])


def accelerate(machine: VirtualMachine) -> list[str]:
    """Return who executes the guest's instructions, and by which clock."""
    if machine.accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # thread=single: the CPUs take turns. In parallel, QEMU before 8.1 may run code that another CPU has just patched
    # (since its commit deba78709a it locks the page it translates), and a kernel patches itself all the time.
    emulated = ["-accel", "tcg,thread=single", "-cpu", CPUS[machine.cpu]]
    return emulated + (["-icount", "shift=0,sleep=off"] if machine.clock == "instructions" else [])


def parameters(machine: VirtualMachine) -> list[str]:
    """Return the kernel's command line."""
    line = ["console=ttyS0", "quiet", "loglevel=3", "panic=-1", "oops=panic", "nokaslr", "audit=0", "apparmor=0"]
    line += ["random.trust_cpu=on", "cryptomgr.notests", "8250.nr_uarts=1", "net.ifnames=0"]
    # rodata=off: protecting the kernel's own pages ends in a check of all page tables, a tenth of the start.
    unneeded = [*UNNEEDED, KEYRING] if machine.takes_unsigned else UNNEEDED
    line += ["rodata=off", f"initcall_blacklist={','.join(unneeded)}"]
    if machine.accelerator == "tcg":
        # acpi=noirq: to find four interrupts in the ACPI tables takes a seventh of the start.
        line += ["tsc=reliable", "no_timer_check", "acpi=noirq"]
    if machine.clock == "instructions":
        # Calibrating the local timer is a busy loop of clock reads, which takes 3 to 4 s of every boot when counted.
        # The address of a buffer affects its cost, so every run uses the same addresses.
        line += ["clocksource=tsc", "noapictimer", "norandmaps"]
    return line


def cpus(clock: str, count: int | None) -> int | None:
    """Return how many CPUs, which is one where instructions are counted. UsageError where they cannot be had."""
    tried = "starting a guest"
    _checks.optional(_checks.whole, tried, "cpus", count, 1)
    if clock == "instructions" and count not in {None, 1}:
        remedy = "Leave out cpus, or take the wall clock."
        raise UsageError(f"{tried} with {count} CPUs", answered="counting instructions takes one", remedy=remedy)
    return count


def memory_bytes(memory: str) -> int:
    """Return the size "512M", "2G" or "1024" (mebibytes) in bytes.

    Raises UsageError for an invalid size, too little memory to boot, or more than this machine has.
    """
    remedy = "Give a size such as 512M or 2G; 1G is usually enough."
    match = re.fullmatch(r"(\d+)([MG]?)i?B?", memory, re.IGNORECASE) if isinstance(memory, str) else None
    if not match:
        raise UsageError("starting a guest", answered=f"{memory!r} is not a size of memory", remedy=remedy)
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
    """Return the first line of `qemu --version`: "QEMU emulator version 7.2.22 (...)"."""
    done = subprocess.run([program(), "--version"], capture_output=True, text=True, check=False, timeout=_SECONDS)
    return done.stdout.partition("\n")[0].strip()


def escaped(path: object) -> str:
    """Quote a value inside a QEMU option."""
    return str(path).replace(",", ",,")
