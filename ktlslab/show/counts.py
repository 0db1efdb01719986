"""The report's table of what was counted rather than clocked: system calls, records, bytes, the hardware's events.

A reader who wonders at a cost finds here what was done for it. Everything is an operation's, the median over a cell's
samples; a column of which the machine tells nothing is not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ktlslab.measure.analysis import checked
from ktlslab.show import selection
from ktlslab.show.compare import size_name
from ktlslab.show.style import arms_of, rows_of

if TYPE_CHECKING:
    import pandas as pd

Rows = list[tuple[str, ...]]


def overhead(rows: pd.DataFrame) -> pd.Series:
    """Return the bytes on the wire, both ways, above what the payload itself is, an operation."""
    workloads = 1 + (rows["workload"] == "echo")
    return rows["wire_tx_bytes"] + rows["wire_rx_bytes"] - workloads * rows["payload_bytes"]


def _records(workload: str) -> Callable[[pd.DataFrame], pd.Series]:
    """Count those that the kernel made or opened: nobody counts OpenSSL's, so where it did it nothing is told."""

    def each(rows: pd.DataFrame) -> pd.Series:
        moved = rows[f"kernel_{workload}_records"]
        return (moved / rows["operations"]).where(moved > 0)

    return each


_COUNTED: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "system calls": lambda rows: rows["client_syscalls"],
    "records the kernel made": _records("tx"),
    "records the kernel opened": _records("rx"),
    "bytes on the wire above payload": overhead,
    "CPU cycles": lambda rows: rows["client_cycles"],
    "instructions": lambda rows: rows["client_instructions"],
    "cache misses": lambda rows: rows["client_cache_misses"],
}


def counts(frame: pd.DataFrame) -> tuple[tuple[str, ...], Rows, str]:
    """Return head, rows, and of what they are: an arm in a workload a row, at the smallest payload and a full record.

    Of one suite, on the newest kernel, at the usual depth, connections, record size and link.
    """
    rows = selection.one_place(checked(frame))
    rows = selection.at(rows, selection.usual(rows))
    suite = selection.one_suite(rows, None)
    rows = rows[rows["suite"].isin([suite, ""]) & (rows["replica"] == 0)]
    told: list[tuple[tuple[str, ...], list[float]]] = []
    for workload in selection.workloads(rows):
        there = rows[rows["workload"] == workload]
        sizes = selection.payloads(there)
        for size in sorted({sizes[0], selection.nearest(there, None)}):
            cells = there[there["payload_bytes"] == size]
            told += [
                (
                    (workload, size_name(size), str(arm)),
                    [float(of(rows_of(cells, arm)).median()) for of in _COUNTED.values()],
                )
                for arm in arms_of(cells)
            ]
    shown = [at for at in range(len(_COUNTED)) if not all(math.isnan(values[at]) for _, values in told)]
    names = list(_COUNTED)
    lines = [(*name, *(_number(values[at]) for at in shown)) for name, values in told]
    return ("workload", "payload", "arm", *(names[at] for at in shown)), lines, suite


def _number(value: float) -> str:
    """Write what is not told as nothing, else three figures that matter."""
    return "" if math.isnan(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
