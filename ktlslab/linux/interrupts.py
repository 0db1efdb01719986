"""The whole machine's time in interrupts and softirqs, where part of the networking is done.

On loopback the receiver's half of TCP runs as a softirq on the sender's CPU, within its system call. If the kernel
counts that time separately (CONFIG_IRQ_TIME_ACCOUNTING), /proc/pressure/irq gives it exactly, in microseconds, and no
process is charged for it. Most kernels do not, Debian's included. Then each timer tick, about 4 ms, counts for
whatever it interrupts. /proc/stat gives the sum in units of 10 ms, so it is meaningful only over a second or more, and
the same time is also in the CPU clock of the interrupted process.

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
    """An open file of the kernel, and its resolution.

    `in_process_clocks`: the same time is in the CPU clocks of processes, so the two must not be added.
    """

    path: str
    descriptor: int
    resolution_ns: int

    @property
    def in_process_clocks(self) -> bool:
        return self.path != PRESSURE

    def read(self) -> int:
        """Return nanoseconds since the machine started. OSError or ValueError if the file is not as expected."""
        head = os.pread(self.descriptor, _HEAD, 0)
        if self.path == PRESSURE:
            return int(head.partition(b"total=")[2].split()[0]) * self.resolution_ns
        _, _, _, _, _, _, irq, softirq, *_ = head.split(None, 8)
        return (int(irq) + int(softirq)) * self.resolution_ns


@functools.cache
def source() -> Source | None:
    """Find out once where this kernel reports it: in the pressure file if that exists and is not all zero."""
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
    """Return the machine's time in interrupts and softirqs since it started, over all CPUs; None if not available.

    In nanoseconds, with the resolution of `source()`. It takes one system call.
    """
    found = source()
    return found.read() if found else None
