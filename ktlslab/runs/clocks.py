"""What time is measured in.

`wall`: nanoseconds. `instructions`: a guest whose clock advances one nanosecond an instruction counts the machine's
instructions whenever it is asked for the time; all alike, an AESENC costs as much as a MOV. Such a figure is a
repeatable cost, not a duration, and never shown as one. Inside a guest the environment says which it is.
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
MIN_TICKS = 100  # of a CPU clock in a figure: then a tick is at most 1 % of it
_READINGS = 8
_PATIENCE_S = 1.0


def current() -> str:
    """Which clock this process lives under."""
    return os.environ.get("KTLSLAB_CLOCK", "wall")


@functools.cache
def resolution_ns(clock: int = CPU_CLOCK) -> int:
    """Return how far a clock moves at a time; 1 where it moves from each reading to the next.

    It is watched: of a CPU clock clock_getres(2) says 1 ns even where the scheduler's clock ticks at 10 ms.
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
    """Return units of CPU per operation; NaN where the CPU clock is too coarse for so little."""
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
        """Return what was spent since `read`: the exact clock is read last there and first here; nothing comes in."""
        total = time.clock_gettime_ns(CPU_CLOCK)
        now = cls.read()
        return cls(total - before.total, now.user - before.user, now.system - before.system)
