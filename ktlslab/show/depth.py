"""What more operations in flight change: latency and CPU per operation against depth, connections or record size.

io_uring with one operation in flight costs more than a system call. It pays by batching, and the plot shows from
which depth on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab.errors import UsageError
from ktlslab.measure.analysis import QUANTITIES, intervals, noise_floor
from ktlslab.packages import extra
from ktlslab.show import axes as common
from ktlslab.show import selection
from ktlslab.show.analysis import ready
from ktlslab.show.names import ends_named, size_name, suite_name
from ktlslab.show.style import STYLE, Plot, arms_of, key, look, page, rows_of

with extra("lab"):
    import matplotlib as mpl

if TYPE_CHECKING:
    import pandas as pd

_FACTORS = {
    "depth": "operations in flight on a connection",
    "connections": "open connections",
    "record_size": "maximum payload bytes per record",
}
_MAX_COLUMNS = 4
# What sessions together took at least, for their memory to be drawn: a process has as much free before the first.
_MIN_MEMORY = 4 << 20


def against(
    frame: pd.DataFrame,
    factor: str = "depth",
    *,
    quantities: tuple[str, ...] = ("latency_p50", "client_cpu"),
    suite: str | None = None,
    workload: str | None = None,
    machine: str | None = None,
) -> Plot:
    """Plot quantities against a factor (depth, connections, record_size), a column for each workload and payload.

    UsageError where the table has only one value of it.
    """
    if factor not in _FACTORS:
        raise UsageError("plotting", answered=f"there is no {factor!r}", remedy=f"Choose {', '.join(_FACTORS)}.")
    place = selection.one_place(ready(frame), machine)
    rows = selection.chosen(place, workload, None)
    setting = selection.usual(rows, factor)
    rows = selection.at(rows, setting)
    if factor == "depth":  # at depth 1 one-way operations go in steps, between acknowledgements: not the same work
        rows = rows[rows["operations_per_step"] == rows["depth"] * rows["connections"]]
    cell = ["workload", "payload_bytes", "suite", "record_layer", "io_engine"]
    varied = rows.groupby(cell)[factor].transform("nunique") > 1
    if not varied.any():
        answered = f"the table has only {frame[factor].iloc[0]}"
        raise UsageError(f"plotting against {factor}", answered=answered, remedy="Sweep a plan with several.")
    rows = rows[varied]
    name = selection.one_suite(rows, suite)
    rows = rows[rows["suite"].isin([name, ""])]
    columns = [
        (work, size)
        for work in selection.workloads(rows)
        for size in selection.payloads(rows[rows["workload"] == work])
    ][:_MAX_COLUMNS]
    if factor == "connections" and "session_bytes" in rows:
        known = rows["session_bytes"].where(rows["session_bytes"] * rows["connections"] >= _MIN_MEMORY)
        rows = rows.assign(session_bytes=known)
        quantities = (*quantities, *(["session_bytes"] if known.notna().any() else []))
    unit, counts = str(rows["unit"].iloc[0]), sorted(map(int, rows[factor].unique()))
    floors, said = selection.at(noise_floor(place, list(quantities)), setting), []
    with mpl.rc_context(STYLE):
        figure, panels = page(len(quantities), len(columns), sharex=True)
        for line, quantity in zip(panels, quantities, strict=True):
            values = intervals(rows, quantity) if quantity in QUANTITIES else _typical(rows, quantity, factor)
            for axes, (work, size) in zip(line, columns, strict=True):
                part = values[(values["workload"] == work) & (values["payload_bytes"] == size)]
                for arm in arms_of(part):
                    one = rows_of(part, arm).sort_values(factor)
                    kib = quantity == "session_bytes"
                    scaled = one[["value", "low", "high"]] * (1 / 1024 if kib else common.scale(quantity, unit))
                    common.with_bars(axes, one[factor], scaled, **look(arm))
                if line is panels[0]:
                    axes.set_title(f"{work}, {size_name(size)}")
                    said.append(_said(part, work, size, factor, unit))
                common.count_axis(axes, counts, _FACTORS[factor], last=line is panels[-1])
            if quantity not in QUANTITIES:
                line[0].set_ylabel("memory of the server's\nprocess, KiB per session")
                line[0].set_ylim(bottom=0)
                continue
            common.value_axis(line[0], quantity, ends_named(QUANTITIES[quantity][0], rows["workload"]), unit)
            common.floor_bar(line[0], float(floors[floors["quantity"] == quantity]["floor"].max()))
        common.legend(figure, [key(arm) for arm in arms_of(rows)], common.blocks_said(values))
        counted = "the number of connections" if factor == "connections" else factor.replace("_", " ")
        head = f"What {counted} changes, {suite_name(name)}"
        common.title(figure, head + selection.setting_name(rows, factor, among=frame), rows)
    shown = ends_named("latency and client CPU", rows["workload"])
    figure.alt = f"Lines of {shown} per operation against {factor.replace('_', ' ')}, a line per arm."
    figure.caption = "\n".join(filter(None, said))
    return figure


def _typical(rows: pd.DataFrame, quantity: str, factor: str) -> pd.DataFrame:
    """Return the medians of a column that has no intervals, in the form of `intervals`."""
    cell = ["workload", "payload_bytes", "suite", "record_layer", "io_engine", factor]
    values = rows.groupby(cell)[[quantity]].median().reset_index().rename(columns={quantity: "value"})
    return values.assign(low=values["value"], high=values["value"], blocks=rows["repeat"].nunique())


def _said(values: pd.DataFrame, workload: str, size: int, factor: str, unit: str) -> str:
    """Say for each arm with TLS the ratio of latency at the factor's largest value to that at its smallest."""
    said = []
    for arm in arms_of(values):
        one = rows_of(values, arm).sort_values(factor)["value"]
        if len(one) > 1 and arm.record_layer != "plain":
            ends = f"{common.amount(one.iloc[0], 'latency', unit)} to {common.amount(one.iloc[-1], 'latency', unit)}"
            said.append(f"{arm} {one.iloc[-1] / one.iloc[0]:.2f} times ({ends})")
    low, high = values[factor].min(), values[factor].max()
    where = f"{common.sentence(workload)} of {size_name(size)}, from {factor.replace('_', ' ')} {low} to {high}"
    return f"{where}: latency {', '.join(said)}." if said else ""
