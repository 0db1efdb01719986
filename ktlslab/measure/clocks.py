"""What time is measured in.

`wall`: nanoseconds. `instructions`: a guest whose clock advances one nanosecond an instruction counts the machine's
instructions whenever it is asked for the time; all alike, an AESENC costs as much as a MOV. Such a figure is a
repeatable cost, not a duration, and never shown as one. Inside a guest the environment says which it is.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass

UNITS = {"wall": "ns", "instructions": "instructions"}


def current() -> str:
    """Which clock this process lives under."""
    return os.environ.get("KTLSLAB_CLOCK", "wall")


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time of this process in the clock's unit. `user` and `system` are sampled by the tick, `total` is exact."""

    total: int
    user: int
    system: int

    @classmethod
    def read(cls) -> Cpu:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        total = time.clock_gettime_ns(time.CLOCK_PROCESS_CPUTIME_ID)
        return cls(total, int(usage.ru_utime * 1e9), int(usage.ru_stime * 1e9))

    @classmethod
    def since(cls, before: Cpu) -> Cpu:
        """Return what was spent since `read`: the exact clock is read last there and first here; nothing comes in."""
        total = time.clock_gettime_ns(time.CLOCK_PROCESS_CPUTIME_ID)
        now = cls.read()
        return cls(total - before.total, now.user - before.user, now.system - before.system)
