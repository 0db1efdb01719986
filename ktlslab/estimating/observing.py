"""What the arms cost here: CPU time of each cell and end, from a table of samples.

CPU time rather than latency: it counts what this process executed, whoever else kept the machine busy, and it is what
instructions stand for. Both ends are pinned to one CPU, as in a guest that counts instructions: so they take turns there
and here.
"""

from __future__ import annotations

from ktlslab import _checks
from ktlslab.errors import MachineError, UsageError
from ktlslab.estimating.costs import ENDS, IDENTITY
from ktlslab.measure.table import check
from ktlslab.packages import extra

with extra("lab"):
    import pandas as pd

_TRIED = "estimating: reading what the arms cost here"


def observed(table: pd.DataFrame) -> pd.Series:
    """Return nanoseconds of CPU per operation by cell and end: the median of the samples.

    UsageError where the table is in instructions or of several machines; MachineError where the CPU clock is too coarse.
    """
    _checks.frame(_TRIED, "measured", table)
    check(table, _TRIED)
    if (units := set(table["unit"])) != {"ns"}:
        answered = f"its unit is {' and '.join(sorted(units))}"
        raise UsageError(_TRIED, answered=answered, remedy="Give a table measured under the wall clock on one machine.")
    if len(places := set(zip(table["host"], table["machine"], table["kernel"], strict=True))) > 1:
        answered = f"it has rows of {len(places)} machines or kernels"
        raise UsageError(_TRIED, answered=answered, remedy="Weights belong to one CPU: give the rows of one machine.")
    long = table.melt([*IDENTITY], [f"{end}_cpu" for end in ENDS], "end", "ns")
    long["end"] = long["end"].str.removesuffix("_cpu")
    found = long.dropna(subset="ns").groupby([*IDENTITY, "end"])["ns"].median()
    if found.empty:
        answered = "no sample has its CPU time: this machine's CPU clock advances too coarsely"
        remedy = "Estimate on a machine whose CPU clock is finer than 0.1 ms: `ktlslab sweep` notes how coarse it is."
        raise MachineError(_TRIED, answered=answered, remedy=remedy)
    return found


def said_of(table: pd.DataFrame) -> list[str]:
    """Return what was unusual while the table was measured, a sentence each."""
    runs = table.attrs.get("provenance", {}).values()
    return [*dict.fromkeys(note for run in runs for note in run.get("unusual", ()))]
