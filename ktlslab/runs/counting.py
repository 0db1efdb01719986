"""Which CPU counted a table's instructions. What two different ones counted is not merged or compared.

For the same work, a CPU with other features executes other instructions: with `erms` each byte that kernel or libc
copies is one, without it an eighth of one or less. QEMU's version is no such difference where the CPU is the same.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    Run = Mapping[str, Any]

REMEDY = (
    "Measure one of them again on the CPU of the other: with other features, a CPU executes other instructions for the "
    "same work."
)


def counted(frame: pd.DataFrame) -> dict[str, Run]:
    """Return the provenance of the runs in a table that counted instructions, by `run_id`."""
    known = frame.attrs.get("provenance", {})
    return {run: known.get(run, {}) for run in frame.loc[frame["unit"] == "instructions", "run_id"].unique()}


def definition(run: Run) -> str:
    """Return QEMU's -cpu option of a run; "" for a run from before that was recorded."""
    return str(run.get("emulated_cpu") or "")


def names(one: Run, other: Run) -> tuple[str, str] | None:
    """Name the CPUs of two runs; None where they are the same. Equal names come with the features that differ."""
    if definition(one) == definition(other):
        return None
    return _named(one, other), _named(other, one)


def difference(ours: Mapping[str, Run], theirs: Mapping[str, Run]) -> str:
    """Say which run was counted by which CPU, for the first two that differ in it; "" where all are the same."""
    for (run, one), (its, other) in itertools.product(ours.items(), theirs.items()):
        if said := names(one, other):
            return f"run {run} was counted by {said[0]}, run {its} by {said[1]}"
    return ""


def _named(run: Run, other: Run) -> str:
    name = str(run.get("cpu") or "a CPU that is not known")
    if name != other.get("cpu"):
        return name
    if not (definition(run) and definition(other)):
        return f"{name} ({'' if definition(run) else 'not '}described in its provenance)"
    others = definition(other).split(",")
    return f"{name} ({', '.join(feature for feature in definition(run).split(',') if feature not in others) or 'less'})"
