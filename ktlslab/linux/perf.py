"""Counting by the kernel's performance events: what the CPU did for this process, and how many system calls it made.

This only counts; it does not sample. An event is a descriptor, and reading it gives a number. What cannot be counted is
NaN, never 0. Emulated machines and most rented ones have no hardware counters, and only privileged users may count
events in the kernel (perf_event_paranoid). Source: perf_event_open(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Self

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on all architectures
_FSCONFIG_CMD_CREATE = 6

# struct perf_event_attr, PERF_ATTR_SIZE_VER0: type, size, config, period, sample_type, read_format, flags, the rest
_ATTRIBUTES = struct.Struct("=IIQQQQQ16x")
_HARDWARE, _TRACEPOINT = 0, 2
_ENABLED_AND_RUNNING = 0b11  # read_format: PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING
_INHERIT, _EXCLUDE_HV, _INHERIT_THREAD = 1 << 1, 1 << 6, 1 << 35
_FD_CLOEXEC = 1 << 3
_READING = struct.Struct("=QQQ")  # value, time enabled, time running

HARDWARE = {"cycles": 0, "instructions": 1, "cache_misses": 3}  # PERF_COUNT_HW_*

_SYS_ENTER = "events/raw_syscalls/sys_enter/id"

_libc = ctypes.CDLL(None, use_errno=True)


class Counter:
    """One event, counted in user mode and in the kernel, for this thread and the threads that it starts from now on."""

    def __init__(self, kind: int, config: int) -> None:
        flags = _INHERIT | _INHERIT_THREAD | _EXCLUDE_HV
        attributes = _ATTRIBUTES.pack(kind, _ATTRIBUTES.size, config, 0, 0, _ENABLED_AND_RUNNING, flags)
        number = _PERF_EVENT_OPEN.get(os.uname().machine, -1)
        self._descriptor = _syscall(number, attributes, 0, -1, -1, _FD_CLOEXEC)

    def read(self) -> float:
        """Return the count so far, scaled if the CPU's counters were shared; NaN if it never ran."""
        value, enabled, running = _READING.unpack(os.read(self._descriptor, _READING.size))
        if not running:
            return math.nan
        return float(value) if running == enabled else value * enabled / running

    def close(self) -> None:
        os.close(self._descriptor)


class HardwareCounters:
    """Cycles, instructions and cache misses (of the last level) of this process, from here to `close`.

    `why` gives the errno of each event that cannot be counted.
    """

    def __init__(self) -> None:
        self.why: dict[str, int] = {}
        self._counters: dict[str, Counter] = {}
        for name, config in HARDWARE.items():
            try:
                self._counters[name] = Counter(_HARDWARE, config)
            except OSError as error:
                self.why[name] = error.errno or 0

    def read(self) -> dict[str, float]:
        """Return the counts so far; NaN for events that this machine does not count."""
        return {name: self._counters[name].read() if name in self._counters else math.nan for name in HARDWARE}

    def close(self) -> None:
        for counter in self._counters.values():
            counter.close()
        self._counters.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Syscalls:
    """How many system calls this thread made. `count` is NaN until counting ends, and if it is not possible."""

    def __init__(self) -> None:
        self.count = math.nan
        self.why: int = 0


@contextlib.contextmanager
def count_syscalls() -> Iterator[Syscalls]:
    """Count the system calls that this thread makes in the context, by the tracepoint raw_syscalls:sys_enter.

    Each io_uring_enter(2) counts as one, whatever it submits. Do not use this around timed code or once per sample:
    while it counts, every system call on the machine takes the kernel's slow entry path, and ending it waits about
    10 ms for all CPUs. It needs root, or CAP_PERFMON and a readable tracefs; otherwise the count is NaN.
    """
    found = Syscalls()
    try:
        counter = Counter(_TRACEPOINT, _sys_enter())
    except OSError as error:
        found.why = error.errno or 0
        yield found
        return
    try:
        before = counter.read()
        yield found
        found.count = counter.read() - before - 1  # the read itself
    finally:
        counter.close()


@functools.cache
def _sys_enter() -> int:
    """Return the tracepoint's id. OSError if this kernel does not have it, or tracefs cannot be read."""
    for folder in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        with contextlib.suppress(OSError):
            return int(Path(folder, _SYS_ENTER).read_text())
    with _tracefs() as tracefs:
        descriptor = os.open(_SYS_ENTER, os.O_RDONLY | os.O_CLOEXEC, dir_fd=tracefs)
        try:
            return int(os.read(descriptor, 32))
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _tracefs() -> Iterator[int]:
    """Yield tracefs as a detached mount: no one else sees it, and closing the descriptor unmounts it.

    Source: fsopen(2), fsmount(2). OSError: EPERM without CAP_SYS_ADMIN, ENODEV without tracefs.
    """
    context = _syscall(_FSOPEN, b"tracefs", 1)
    try:
        _syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        mount = _syscall(_FSMOUNT, context, 1, 0)
    finally:
        os.close(context)
    try:
        yield mount
    finally:
        os.close(mount)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call that has no C library wrapper. Raises the kernel's errno as OSError."""
    wide = (ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments)
    result = int(_libc.syscall(ctypes.c_long(number), *wide))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
