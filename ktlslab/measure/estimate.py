"""About how long a plan takes: shown before it starts, and used to cut it into parts.

The model is linear: a fixed cost per sample, and a cost per operation and per byte, with warm-up and checksums. It is
good to a factor of two, which is enough to decide whether to wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ktlslab.measure.plan import Cell, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Seconds per run (its start), per sample, per timed operation in it, per byte moved, per opened session."""

    run: float
    sample: float
    operation: float
    byte: float
    session: float


# Fitted to how long `quick` and `standard` took (where instructions are counted: QEMU's CPU time), kernel 7.3, on a
# 2-core x86-64 virtual machine. Under the wall clock a sample lasts a fixed time; where instructions are counted, it
# lasts as long as its operations.
_HERE = Rate(run=2.0, sample=0.13, operation=0.0, byte=0.0, session=0.003)
_TIMED = Rate(run=8.0, sample=0.12, operation=0.0, byte=0.0, session=0.03)
_COUNTED = Rate(run=15.0, sample=0.035, operation=0.0005, byte=200e-9, session=0.04)


def rate(machine: str, clock: str) -> Rate:
    """Return the rate of a machine. A guest under KVM is as fast as `here`; this is not checked."""
    if clock == "instructions":
        return _COUNTED
    return _HERE if machine == "here" else _TIMED


def sample_seconds(plan: Plan, cell: Cell, at: Rate) -> float:
    """About how long a sample of this cell takes."""
    operations = plan.steps_of(cell) * cell.operations_per_step
    moved = operations * cell.payload_bytes * (2 if cell.workload == "echo" else 1)
    return at.sample + operations * at.operation + moved * at.byte


def opening_seconds(cells: Iterable[Cell], at: Rate) -> float:
    """About how long it takes to open the sessions of a setting of `serve`; in other workloads it is part of a run."""
    sets = {(cell.record_layer, cell.suite): cell for cell in cells if cell.workload == "serve" and cell.suite}
    return sum(cell.connections for cell in sets.values()) * at.session


def duration(seconds: float) -> str:
    """Format a duration: 40 s, 3 min, 2 h 10 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
