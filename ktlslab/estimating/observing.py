"""What the arms cost here: nanoseconds of each cell and end, from a table of samples.

Both ends are pinned to one CPU, as in a guest that counts instructions: they take turns, and a step lasts as long as
both execute. On a busy machine two figures say how long that is, and each can only be too large. The median step leaves
out steps in which another process came between, but long steps all have such a pause. CPU time has no pauses, but holds
the caches that they leave cold. The smaller one of a sample is taken. CPU time also says how it divides between the
ends.
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
    """Return nanoseconds per operation by cell and end: the median of the samples (median step or CPU time of each).

    UsageError where the table is in instructions or of several machines; MachineError where the CPU clock is too
    coarse.
    """
    _checks.frame(_TRIED, "measured", table)
    check(table, _TRIED)
    if (units := set(table["unit"])) != {"ns"}:
        answered = f"its unit is {' and '.join(sorted(units))}"
        raise UsageError(_TRIED, answered=answered, remedy="Give a table measured under the wall clock on one machine.")
    if len(places := set(zip(table["host"], table["machine"], table["kernel"], strict=True))) > 1:
        answered = f"it has rows of {len(places)} machines or kernels"
        raise UsageError(_TRIED, answered=answered, remedy="Weights belong to one CPU: give the rows of one machine.")
    cpu = table["client_cpu"] + table["peer_cpu"]
    share = table["client_cpu"] / cpu
    if share.isna().all():
        answered = "no sample has its CPU time: this machine's CPU clock advances too coarsely"
        remedy = "Estimate on a machine whose CPU clock is finer than 0.1 ms: `ktlslab sweep` notes how coarse it is."
        raise MachineError(_TRIED, answered=answered, remedy=remedy)
    spent = table["latency_p50"].clip(upper=cpu)
    cells = table.assign(spent=spent, share=share).dropna(subset="share")
    cells = cells.groupby(list(IDENTITY))[["spent", "share"]].median()
    client, peer = ENDS
    ends = {client: cells["spent"] * cells["share"], peer: cells["spent"] * (1 - cells["share"])}
    found = pd.concat(ends, names=["end"]).rename("ns")
    return found.reorder_levels([*range(1, len(IDENTITY) + 1), 0])


def said_of(table: pd.DataFrame) -> list[str]:
    """Return what was unusual while the table was measured, a sentence each."""
    runs = table.attrs.get("provenance", {}).values()
    return [*dict.fromkeys(note for run in runs for note in run.get("unusual", ()))]
