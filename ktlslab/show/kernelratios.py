"""Kernels side by side: the same cells on several kernels, each divided by the oldest one's.

Kernels share no block: their intervals and floors are those of two tables compared (`ktlslab.measure.comparison`).

Each arm is a column of panels, each workload a row. What changed for userspace TLS and kernel TLS alike is the rest
of the kernel (TCP, system calls); what changed only for kernel TLS is kernel TLS. Points are dodged, so that none
hides another; the oldest kernel is the line at 1.
"""

from __future__ import annotations

from ktlslab.errors import UsageError
from ktlslab.measure.analysis import QUANTITIES, tally
from ktlslab.measure.comparison import difference
from ktlslab.measure.plan import Arm
from ktlslab.packages import extra
from ktlslab.show import axes as common
from ktlslab.show import selection
from ktlslab.show.analysis import ready
from ktlslab.show.names import suite_name
from ktlslab.show.style import STYLE, Plot, arms_of, page, rows_of, series

with extra("lab"):
    import matplotlib as mpl
    import pandas as pd
    from matplotlib.lines import Line2D

_DODGE = 1.16  # by this factor kernels stand apart on the log axis
_ARMS = ("userspace", "kernel")


def kernels(
    frame: pd.DataFrame, *, quantity: str = "latency_p50", suite: str | None = None, workload: str | None = None
) -> Plot:
    """Draw a quantity's ratio to the oldest kernel's, at one suite. UsageError for a table of one kernel."""
    frame = _one_host(ready(frame))
    rows = selection.chosen(frame, workload, None)
    setting = selection.usual(rows)
    rows = selection.at(rows, setting)
    where = selection.places(rows)
    if len(where) < 2:
        answered = f"there is only Linux {where[0][1]}"
        raise UsageError("comparing kernels", answered=answered, remedy="Sweep with several --on.")
    name = selection.one_suite(rows, suite)
    rows = rows[rows["suite"].isin([name, ""])]
    compared = selection.at(to_oldest(frame, quantity), setting)  # of all rows: what is known of noise is borrowed
    compared = compared[compared["suite"].isin([name, ""]) & compared["workload"].isin(rows["workload"])]
    arms = [arm for arm in arms_of(compared) if arm.record_layer in _ARMS] or arms_of(compared)
    workloads, sizes = selection.workloads(compared), selection.payloads(compared)
    styles = series(str(place[1]) for place in where)
    shift = {str(place[1]): _DODGE ** (at - (len(where) - 2) / 2) for at, place in enumerate(where[1:])}
    with mpl.rc_context(STYLE):
        figure, panels = page(len(workloads), len(arms), row=1.75, sharex=True, sharey="all")
        for line, work in zip(panels, workloads, strict=True):
            for axes, arm in zip(line, arms, strict=True):
                if line is panels[0]:
                    axes.set_title(str(arm))
                part = rows_of(compared, arm)
                part = part[part["workload"] == work]
                if part.empty:
                    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", alpha=0.6)
                    common.payload_axis(axes, sizes, last=line is panels[-1])
                    continue
                floors = part.groupby("payload_bytes")["floor"].max()
                common.floor_band(axes, list(floors.index), list(floors))
                for kernel, points in part.groupby("kernel"):
                    colour, marker = styles[str(kernel)]
                    look = {"color": colour, "marker": marker, "linestyle": "none"}
                    common.with_bars(axes, points["payload_bytes"] * shift[str(kernel)], points, **look)
                common.payload_axis(axes, sizes, last=line is panels[-1])
            common.ratio_axis(
                line[0], f"{work}\nratio to the oldest", pd.concat([rows_of(compared, arm) for arm in arms])
            )
        keys = [_key(str(place[1]), styles) for place in where[1:]]
        keys.append(Line2D([], [], color="black", linewidth=1, label=f"1: Linux {where[0][1]}"))
        common.legend(figure, [*keys, common.floor_key("two runs")], common.blocks_said(compared, kind=""))
        head = f"{common.sentence(QUANTITIES[quantity][0])} on each kernel relative to the oldest, {suite_name(name)}"
        common.title(figure, head + selection.setting_name(rows, among=frame), rows)
    figure.alt = (
        "Points: each kernel's ratio to the oldest one's, against the payload, a panel for each arm and workload."
    )
    figure.caption = _said(compared, arms, where)
    return figure


def _one_host(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the host with most kernels: two hosts differ by more than their kernels."""
    kernels = frame.groupby("host")["kernel"].nunique()
    return frame[frame["host"] == kernels.idxmax()]


def to_oldest(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Return each cell of the later kernels over the oldest kernel's: `difference`, and the fewer of their blocks."""
    oldest, *later = selection.places(frame)
    base = selection.at_place(frame, oldest)
    parts = [difference(base, selection.at_place(frame, place), quantities=[quantity]) for place in later]
    found = pd.concat(parts, ignore_index=True)
    blocks = found[["blocks_a", "blocks_b"]].min(axis=1)
    return found.rename(columns={"ratio": "value"}).assign(blocks=blocks)


def _key(kernel: str, styles: dict[str, tuple[str, str]]) -> Line2D:
    colour, marker = styles[kernel]
    return Line2D([], [], color=colour, marker=marker, linestyle="none", label=f"Linux {kernel}")


def _said(compared: pd.DataFrame, arms: list[Arm], where: list[selection.Place]) -> str:
    said = []
    for arm in arms:
        part = rows_of(compared, arm)
        newest = part[part["kernel"] == where[-1][1]]
        if len(newest):
            value, counts = newest["value"], tally(newest)
            ends = f"{value.min():.2f} to {value.max():.2f}, no difference in {counts['none']}"
            ends += f", {counts['unjudged']} not judged" * bool(counts["unjudged"])
            said.append(f"{arm} {value.median():.2f} in the median of {len(newest)} cells ({ends})")
    return f"Linux {where[-1][1]} over {where[0][1]}: {'; '.join(said)}."
