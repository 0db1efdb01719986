"""How much a plan is and about how long it takes: said before it starts, and what parts are cut by.

The model is a line: what a sample costs whatever is in it, and what its operations and bytes cost on top, warm-up and
checksums included. Good to a factor of two, which is what someone needs who decides whether to wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from ktlslab.measure.plan import Cell, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Seconds: to start a run; for a sample; for a timed operation in it, and for a byte that one moves."""

    run: float
    sample: float
    operation: float
    byte: float


# Fitted to how long `quick` and `standard` took (where instructions are counted: by QEMU's CPU time), kernel 7.3, on a
# 2-core x86-64 virtual machine. By the wall clock a sample lasts a time, whatever it moves; where instructions are
# counted it costs what its operations cost.
_HERE = Rate(run=2.0, sample=0.13, operation=0.0, byte=0.0)
_TIMED = Rate(run=8.0, sample=0.12, operation=0.0, byte=0.0)
_COUNTED = Rate(run=15.0, sample=0.035, operation=0.0005, byte=200e-9)


def rate(machine: str, clock: str) -> Rate:
    """Return what measuring costs there. Under KVM a guest is as fast as `here`; that is not asked for here."""
    if clock == "instructions":
        return _COUNTED
    return _HERE if machine == "here" else _TIMED


def sample_seconds(plan: Plan, cell: Cell, at: Rate) -> float:
    """About how long a sample of this cell takes."""
    operations = plan.steps_of(cell) * cell.operations_per_step
    moved = operations * cell.payload_bytes * (2 if cell.workload == "echo" else 1)
    return at.sample + operations * at.operation + moved * at.byte


def duration(seconds: float) -> str:
    """Say a duration as a person does: 40 s, 3 min, 2 h 10 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
