"""The instruction clock counts copying and clearing by words and vectors, not by the byte."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ktlslab.errors import UsageError
from ktlslab.guests import fetch, qemu, run

MODEL_ID = 48  # characters of a CPU's name that CPUID has room for

# What decides which code the ciphers, libc and the kernel's copying take, as /proc/cpuinfo names it.
NEEDED = {
    *("aes", "pclmulqdq", "vaes", "avx", "avx2", "bmi1", "bmi2", "adx", "movbe", "fma", "ssse3", "sse4_1", "sse4_2"),
    *("popcnt", "abm", "xsave", "xsaveopt", "rep_good", "rdrand", "fsgsbase", "smep", "smap", "rdtscp", "svm"),
}
# What kernel and libc do with each byte, as a sweep's arms have it done. Each figure is the difference of a large and
# a small size, so the call around it does not count, in instructions per byte that was copied or cleared.
MEASURE = """
import ctypes, json, mmap, os, socket, time

def least(call, *sizes):
    small, large = (min(timed(call, size) for _ in range(5)) for size in sizes)
    return (large - small) / (sizes[1] - sizes[0])

def timed(call, size):
    begun = time.monotonic_ns()
    call(size)
    return time.monotonic_ns() - begun

source, target = bytes(range(256)) * 4096, bytearray(1 << 20)
a, b = socket.socketpair()
zero = os.open("/dev/zero", os.O_RDONLY)
to = ctypes.addressof(ctypes.c_char.from_buffer(target))
views = memoryview(source), memoryview(target)

def through_a_socket(size):
    a.send(views[0][:size])
    b.recv_into(views[1], size)

def pages(size):
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as place:
        place.madvise(mmap.MADV_HUGEPAGE)  # or the cost of a page fault would be larger than that of its clearing
        for at in range(0, size, 4096):
            place[at] = 1

flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags")).split()
print(json.dumps({
    "flags": flags,
    "kernel's copying": least(through_a_socket, 1 << 10, 1 << 14) / 2,
    "kernel's clearing": least(lambda size: os.readv(zero, [views[1][:size]]), 1 << 10, 1 << 14),
    "clearing of pages": least(pages, 1 << 22, 1 << 23),
    "libc's copying": least(lambda size: ctypes.memmove(to, source, size), 1 << 10, 1 << 16),
    "libc's copying of 1 MiB": least(lambda size: ctypes.memmove(to, source, size), 1 << 10, 1 << 20),
    "libc's clearing": least(lambda size: ctypes.memset(to, 1, size), 1 << 10, 1 << 16),
}))
"""


def measured(kernel, cpu=qemu.CPU_NAME):
    done = run(kernel, [sys.executable, "-c", MEASURE], clock="instructions", timeout=100, cpu=cpu)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    found = json.loads(done.stdout)
    return set(found.pop("flags")), found


def most(figure):
    """Return the bound: a byte of a page is cleared once, and pays its share of the page fault."""
    return 1 / 2 if figure == "clearing of pages" else 1 / 4


@pytest.mark.parametrize("series", ["oldest", "newest"])
def test_a_byte_that_is_copied_or_cleared_is_a_fraction_of_an_instruction(series, record_property):
    flags, found = measured(fetch(series))
    record_property("instructions per byte", json.dumps(found))
    assert {name: cost for name, cost in found.items() if cost > most(name)} == {}
    assert flags.isdisjoint({"erms", "fsrm", "fzrm", "fsrs", "fsrc", "la57"})
    assert flags >= NEEDED


def test_with_erms_a_byte_is_an_instruction(newest):
    flags, found = measured(newest, qemu.FEATURES["erms"])
    assert "erms" in flags
    copied = ("kernel's copying", "clearing of pages")  # the C library of Debian 13 does without string instructions
    assert {name: found[name] for name in copied if found[name] < 1} == {}


@pytest.mark.parametrize("cpu", qemu.CPUS)
def test_qemu_emulates_the_whole_cpu(cpu):
    """Where it does not, it warns, and the guest has a CPU that counts differently."""
    argv = [qemu.program(), "-nodefaults", "-display", "none", "-accel", "tcg", "-cpu", qemu.CPUS[cpu]]
    argv += ["-monitor", "stdio"]
    done = subprocess.run(argv, input="quit\n", capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_cpu_differs_in_what_was_switched_on_alone():
    usual = set(qemu.CPU.split(","))
    for feature, name in qemu.FEATURES.items():
        own = set(qemu.CPUS[name].split(","))
        assert own - usual == {f"model-id={name}", f"{feature}=on"}
        assert usual - own == {f"model-id={qemu.CPU_NAME}", f"{feature}=off"}
        assert len(name) <= MODEL_ID, "the guest would find a shorter name"


@pytest.mark.parametrize(("cpu", "clock"), [("QEMU", "instructions"), (qemu.FEATURES["erms"], "wall"), (7, "wall")])
def test_a_cpu_that_cannot_be_is_refused(newest, cpu, clock):
    with pytest.raises(UsageError, match="cpu"):
        run(newest, ["true"], clock=clock, cpu=cpu)
