"""The report's table of what was counted rather than clocked: system calls, records, bytes, the hardware's events.

A reader who wonders at a cost finds here what was done for it. Every figure is per operation, the median over a cell's
samples. A column that the machine gives no figure for is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ktlslab.show import selection
from ktlslab.show.analysis import ready
from ktlslab.show.html import Lines
from ktlslab.show.names import size_name, suite_name
from ktlslab.show.style import arms_of, rows_of

if TYPE_CHECKING:
    import pandas as pd


def overhead(rows: pd.DataFrame) -> pd.Series:
    """Return the bytes on the wire per operation, both ways, beyond the payload itself."""
    workloads = 1 + (rows["workload"] == "echo")
    return rows["wire_tx_bytes"] + rows["wire_rx_bytes"] - workloads * rows["payload_bytes"]


def _records(direction: str) -> Callable[[pd.DataFrame], pd.Series]:
    """Count the records that the kernel made or opened. Nobody counts OpenSSL's: NaN where the kernel did neither."""

    def each(rows: pd.DataFrame) -> pd.Series:
        moved = rows[f"kernel_{direction}_records"]
        return (moved / rows["operations"]).where(moved > 0)

    return each


_COUNTED: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "system calls": lambda rows: rows["client_syscalls"],
    "records the kernel made": _records("tx"),
    "records the kernel opened": _records("rx"),
    "bytes on the wire beyond the payload": overhead,
    "CPU cycles": lambda rows: rows["client_cycles"],
    "instructions": lambda rows: rows["client_instructions"],
    "cache misses": lambda rows: rows["client_cache_misses"],
}


def counts(frame: pd.DataFrame) -> Lines:
    """Show a row per arm and workload, at the smallest payload and a full record.

    Of one suite, on the newest kernel, at the usual depth, connections, record size and link.
    """
    rows = selection.one_place(ready(frame))
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
    with_suite = f" with {suite_name(suite)}" if suite else ""
    caption = f"Counted, not clocked: the median per operation{with_suite}, on the newest kernel."
    head = ("workload", "payload", "arm", *(names[at] for at in shown))
    return Lines(head=head, rows=lines, numbers=range(3, len(head)), caption=caption)


def _number(value: float) -> str:
    """Write three significant figures, and nothing for NaN."""
    return "" if math.isnan(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
