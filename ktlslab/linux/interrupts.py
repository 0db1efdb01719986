"""What the whole machine spends in interrupts and softirqs: the part of networking that no process asked for.

On loopback the receiver's half of TCP runs as a softirq on the sender's CPU, within its call. Where the kernel keeps
time of that apart (CONFIG_IRQ_TIME_ACCOUNTING), /proc/pressure/irq tells it exactly, in microseconds, and no process is
charged for it. Where it does not, which is usual (Debian's kernels do not), each tick of the timer, 4 ms or so, is
counted for what it met; /proc/stat tells the sum in units of 10 ms, so that it means something over a second or more
only, and the same time is in the clock of the process that was interrupted as well.

Sources: Documentation/accounting/psi.rst, proc_stat(5).
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

PRESSURE = "/proc/pressure/irq"
STAT = "/proc/stat"
_HEAD = 1024  # bytes: the first line of either


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An open file of the kernel's, and how finely it tells.

    `in_process_clocks`: what it tells of is in processes' CPU clocks as well, so that the two must not be added.
    """

    path: str
    descriptor: int
    resolution_ns: int

    @property
    def in_process_clocks(self) -> bool:
        return self.path != PRESSURE

    def read(self) -> int:
        """Return nanoseconds since the machine started. OSError, ValueError: it is not what it is taken for."""
        head = os.pread(self.descriptor, _HEAD, 0)
        if self.path == PRESSURE:
            return int(head.partition(b"total=")[2].split()[0]) * self.resolution_ns
        _, _, _, _, _, _, irq, softirq, *_ = head.split(None, 8)
        return (int(irq) + int(softirq)) * self.resolution_ns


@functools.cache
def source() -> Source | None:
    """Find out, once, where this kernel tells it: in the pressure file if that is there and has ever moved."""
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    for path, resolution in ((PRESSURE, 1_000), (STAT, tick)):
        try:
            found = Source(path=path, descriptor=os.open(path, os.O_RDONLY | os.O_CLOEXEC), resolution_ns=resolution)
        except OSError:
            continue
        try:
            if found.read() or path == STAT:
                return found
        except (OSError, ValueError, IndexError):  # EOPNOTSUPP: pressure is switched off
            pass
        os.close(found.descriptor)
    return None


def interrupt_time_ns() -> int | None:
    """Return the machine's time in interrupts and softirqs since it started, all CPUs together; None: not told.

    In nanoseconds, as finely as `source()` says. It costs one system call.
    """
    found = source()
    return found.read() if found else None
