"""What was unusual during a run, in sentences stored with its provenance.

They come from two snapshots of the machine's statistics, before and after. None of them makes a run invalid: they say
where to look first when two runs disagree.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktlslab.runs import clocks

_BUSY_CPUS = 0.1  # that other processes may keep busy, on average
_STOLEN = 0.01  # share of the time that the hypervisor may take
_FREQUENCY = 0.02  # relative change that is still usual
_UNSTEADY = 0.05  # share of samples whose warm-up may have ended unsteady


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    """The machine now: seconds of CPU time, summed over all CPUs, and the frequency of the CPUs."""

    at: float
    busy: float
    stolen: float
    ours: float
    megahertz: float
    throttled: int

    @classmethod
    def take(cls, root: Path) -> _Snapshot:
        tick = os.sysconf("SC_CLK_TCK")
        fields = _text(root / "proc/stat").partition("\n")[0].split()[1:]
        user, nice, system, _idle, _wait, irq, softirq, stolen, *_ = [*map(int, fields), *[0] * 8]
        clocks = [float(line.partition(":")[2]) for line in _text(root / "proc/cpuinfo").splitlines() if "MHz" in line]
        throttled = root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")
        return cls(
            at=time.monotonic(),
            busy=(user + nice + system + irq + softirq) / tick,
            stolen=stolen / tick,
            ours=_cpu_of_ours() / tick,
            megahertz=sum(clocks) / len(clocks) if clocks else 0.0,
            throttled=sum(int(_text(path) or 0) for path in throttled),
        )


class Unusual:
    """Create it before the first sample, pass each row to `take`, and read `notes` after the last."""

    def __init__(self, *, waited: str = "", links: Iterable[str] = (), root: Path = Path("/")) -> None:
        self._waited, self._links = waited, tuple(links)
        self._root = root
        self._rows = self._unsteady = self._without_cpu = 0
        self._before = _Snapshot.take(root)

    def take(self, row: dict[str, Any]) -> None:
        """Count a sample: whether its warm-up was steady, and whether the CPU clock was fine enough for it."""
        self._rows += 1
        self._unsteady += not row["steady"]
        self._without_cpu += math.isnan(row["client_cpu"]) or math.isnan(row["peer_cpu"])

    def notes(self) -> list[str]:
        """Return a sentence for each thing that was not as it should be."""
        before, after = self._before, _Snapshot.take(self._root)
        lasted = max(after.at - before.at, 1e-9)
        others = ((after.busy - before.busy) - (after.ours - before.ours)) / lasted
        stolen = (after.stolen - before.stolen) / lasted / (os.cpu_count() or 1)
        notes = []
        if self._waited:
            notes.append(f"Another measurement came first: {self._waited.partition(' (')[0]}.")
        if others > _BUSY_CPUS:
            notes.append(f"Other processes kept {others:.1f} of {os.cpu_count()} CPUs busy on average.")
        if stolen > _STOLEN:
            notes.append(f"The hypervisor kept {stolen:.0%} of the CPU time for itself (steal).")
        if before.megahertz and abs(after.megahertz / before.megahertz - 1) > _FREQUENCY:
            notes.append(f"The CPUs' frequency went from {before.megahertz:.0f} to {after.megahertz:.0f} MHz.")
        if throttled := after.throttled - before.throttled:
            notes.append(f"The CPUs were throttled {throttled} times because they were hot.")
        if self._unsteady > _UNSTEADY * self._rows:
            notes.append(f"{self._unsteady} of {self._rows} samples began before their warm-up was steady.")
        if self._without_cpu:
            tick = f"it advances by {clocks.resolution_ns() / 1e6:g} ms at a time"
            notes.append(
                f"The CPU clock is too coarse for {self._without_cpu} of {self._rows} samples ({tick}): their CPU "
                "is not available (NaN)."
            )
        return notes + self._of_the_clock()

    def _of_the_clock(self) -> list[str]:
        """Return what is known from the start: how far the clocks can be trusted."""
        notes = []
        source = _text(self._root / "sys/devices/system/clocksource/clocksource0/current_clocksource")
        if source and source not in {"tsc", "arch_sys_counter", "kvm-clock"}:
            notes.append(f"Time was read from {source}, a slow and coarse clock.")
        control = _text(self._root / "proc/sys/net/ipv4/tcp_congestion_control")
        if control and control not in {"cubic", "reno"}:
            notes.append(f"TCP's congestion control was {control}; where it paces, packets wait for a timer.")
        emulated = "QEMU" in _text(self._root / "proc/cpuinfo")
        counted = os.environ.get("KTLSLAB_CLOCK") == "instructions"
        if emulated and not counted:
            notes.append("The CPU was emulated in software: its nanoseconds say nothing about a real one.")
        if counted and any("ms" in link for link in self._links):
            notes.append("On a link with a delay, latencies include idle time, counted as instructions.")
        return notes


def _cpu_of_ours() -> int:
    """Return the CPU ticks of this process and its descendants, including those waited for (proc_pid_stat(5))."""
    spent: dict[int, tuple[int, int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        fields = _text(path).rpartition(")")[2].split()
        if len(fields) > 14:
            spent[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    ours = {os.getpid()}
    while more := {pid for pid, (parent, _) in spent.items() if parent in ours} - ours:
        ours |= more
    return sum(spent[pid][1] for pid in ours if pid in spent)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
