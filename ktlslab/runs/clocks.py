"""The units of time.

`wall`: nanoseconds. `instructions`: the clock of the guest advances by one nanosecond per instruction, so reading the
time counts the machine's instructions. All count the same: an AESENC costs as much as a MOV. Such a figure is a
repeatable cost, not a duration, and is never shown as one. Inside a guest an environment variable names the clock.
"""

from __future__ import annotations

import functools
import math
import os
import resource
import time
from dataclasses import dataclass

UNITS = {"wall": "ns", "instructions": "instructions"}
CPU_CLOCK = time.CLOCK_PROCESS_CPUTIME_ID
MIN_TICKS = 100  # of a CPU clock in a figure, so that a tick is at most 1 % of it
_READINGS = 8
_PATIENCE_S = 1.0


def current() -> str:
    """Return the clock of this process: wall or instructions."""
    return os.environ.get("KTLSLAB_CLOCK", "wall")


@functools.cache
def resolution_ns(clock: int = CPU_CLOCK) -> int:
    """Return by how much a clock advances at a time; 1 where each reading differs from the last.

    It is measured: clock_getres(2) gives 1 ns for a CPU clock even where the scheduler's clock ticks every 10 ms.
    """
    readings = [time.clock_gettime_ns(clock) for _ in range(_READINGS)]
    if len(set(readings)) == _READINGS:
        return 1
    ticks: list[int] = []
    last, until = readings[-1], time.monotonic() + _PATIENCE_S
    while len(ticks) < 3 and time.monotonic() < until:
        if (now := time.clock_gettime_ns(clock)) != last:
            ticks.append(now - last)
            last = now
    return min(ticks, default=int(_PATIENCE_S * 1e9))


def cpu_figure(total: int, operations: int) -> float:
    """Return units of CPU per operation; NaN where `total` is too small for the CPU clock's resolution."""
    return total / operations if total >= MIN_TICKS * resolution_ns() else math.nan


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time of this process in the clock's unit. `user` and `system` are sampled by the tick, `total` is exact."""

    total: int
    user: int
    system: int

    @classmethod
    def read(cls) -> Cpu:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        total = time.clock_gettime_ns(CPU_CLOCK)
        return cls(total, int(usage.ru_utime * 1e9), int(usage.ru_stime * 1e9))

    @classmethod
    def since(cls, before: Cpu) -> Cpu:
        """Return the time since `read`, which reads the exact clock last, as this reads it first."""
        total = time.clock_gettime_ns(CPU_CLOCK)
        now = cls.read()
        return cls(total - before.total, now.user - before.user, now.system - before.system)
