"""Latency distributions: the share of timed steps that were at most this slow, for each arm.

Drawn from the histograms that every sample keeps, all blocks of a cell together. A median hides what a step in such a
line shows: two paths through the code, a timer that fired, a tail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab.errors import UsageError
from ktlslab.measure.plan import Arm
from ktlslab.packages import extra
from ktlslab.show import axes as common
from ktlslab.show import selection
from ktlslab.show.analysis import ready
from ktlslab.show.names import size_name, suite_name
from ktlslab.show.style import STYLE, Plot, arms_of, key, look, page, rows_of

with extra("lab"):
    import matplotlib as mpl
    import numpy as np
    from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_PANELS = 3  # payloads side by side
# Ticks of a log axis, by how many times its end is its start.
_SUBS = (
    (2, tuple(number / 10 for number in range(10, 100, 1) if number % 2 == 0)),
    (5, (1, 1.5, 2, 3, 4, 6, 8)),
    (12, (1, 2, 3, 5)),
)


def distributions(
    frame: pd.DataFrame,
    *,
    suite: str | None = None,
    workload: str | None = None,
    payloads: tuple[int, ...] | None = None,
    machine: str | None = None,
) -> Plot:
    """Draw each arm's cumulative latencies, a panel for each workload and payload, at one suite.

    `payloads`: by default the smallest, the largest, and the one nearest to a full record. UsageError where the table
    has no histograms.
    """
    rows = selection.chosen(selection.one_place(ready(frame), machine), workload, None)
    rows = selection.at(rows, selection.usual(rows))
    name = selection.one_suite(rows, suite)
    rows = rows[rows["suite"].isin([name, ""])]
    if not rows["latency_histogram"].map(len).any():
        raise UsageError("drawing distributions", answered="the table has no histograms", remedy="Sweep anew.")
    sizes = [selection.nearest(rows, size) for size in payloads] if payloads else _spread(rows)
    workloads, unit = selection.workloads(rows), str(rows["unit"].iloc[0])
    scale, said = common.scale("latency", unit), []
    with mpl.rc_context(STYLE):
        figure, panels = page(len(workloads), len(sizes), row=1.85, sharey="all")
        for line, work in zip(panels, workloads, strict=True):
            for axes, size in zip(line, sizes, strict=True):
                part = rows[(rows["workload"] == work) & (rows["payload_bytes"] == size)]
                if part.empty:
                    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", alpha=0.6)
                    axes.set_xticks([])
                    continue
                for arm in arms_of(part):
                    values, share = cumulated(rows_of(part, arm)["latency_histogram"])
                    said.append((work, size, arm, values, share))
                    _step(axes, values * scale, share, arm)
                axes.set_title(f"{work}, {size_name(size)}")
                _axis(axes, unit)
            line[0].set_ylabel("share of timed steps\nat most this slow")
        for axes in panels[-1]:
            axes.set_xlabel(f"latency, {common.unit_of('latency', unit)}")
        note = "all timed steps of all blocks; marker: the 99th percentile"
        common.legend(figure, [key(arm) for arm in arms_of(rows)], note)
        head = f"Distribution of latency, {suite_name(name)}{selection.setting_name(rows, among=frame)}"
        common.title(figure, head, rows)
    figure.alt = "Rising step lines: the share of timed steps at most as slow, against latency, a line per arm."
    figure.caption = _said(said, unit)
    return figure


def cumulated(histograms: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the latencies that occurred, ascending, and the share of steps that took at most as long."""
    pairs = [(float(value), float(count)) for histogram in histograms for value, count in histogram]
    values, inverse = np.unique([value for value, _ in pairs], return_inverse=True)
    counts = np.bincount(inverse, weights=[count for _, count in pairs])
    return values, np.cumsum(counts) / counts.sum()


def percentile(values: np.ndarray, share: np.ndarray, of: float) -> float:
    """Return the smallest latency that at least that share of steps did not exceed."""
    return float(values[int(np.searchsorted(share, of - 1e-9))])


def _spread(rows: pd.DataFrame) -> list[int]:
    have = selection.payloads(rows)
    return sorted({have[0], selection.nearest(rows, None), have[-1]})[:_PANELS]


def _step(axes: Axes, values: np.ndarray, share: np.ndarray, arm: Arm) -> None:
    drawn = look(arm)
    at = percentile(values, share, 0.99)
    line = {"color": drawn["color"], "linestyle": drawn["linestyle"], "linewidth": 1.4}
    axes.plot([values[0], *values], [0, *share], drawstyle="steps-post", label=str(arm), **line)
    dot = {name: drawn[name] for name in ("color", "marker", "markersize", "markerfacecolor")}
    axes.plot([at], [0.99], **dot)


def _axis(axes: Axes, unit: str) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high / low < 1.5:  # so narrow that a log axis would have no tick
        middle = (low * high) ** 0.5
        axes.set_xlim(middle / 1.25, middle * 1.25)
        low, high = axes.get_xlim()
    fine = next((subs for most, subs in _SUBS if high / low < most), (1, 2, 5))
    axes.xaxis.set_major_locator(LogLocator(subs=fine))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(common.value_formatter("latency", unit))
    axes.tick_params(axis="x", labelsize=7)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(-0.02, 1.04)


def _said(lines: list[tuple[str, int, Arm, np.ndarray, np.ndarray]], unit: str) -> str:
    """Say which arm has the longest tail: the 99th percentile over the median."""
    tails = [
        (percentile(v, s, 0.99) / percentile(v, s, 0.5), workload, size, arm, v, s)
        for workload, size, arm, v, s in lines
    ]
    longest = max(tails, key=lambda tail: tail[0])
    factor, workload, size, arm, values, share = longest
    return (
        f"The 99th percentile is {min(tail[0] for tail in tails):.2f} to {factor:.2f} times the median; the longest "
        f"tail is that of {arm} at {workload}, {size_name(size)}: median "
        f"{common.amount(percentile(values, share, 0.5), 'latency', unit)}, 99th percentile "
        f"{common.amount(percentile(values, share, 0.99), 'latency', unit)}."
    )
