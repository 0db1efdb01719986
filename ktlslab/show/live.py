"""A plot of a sweep that is still running: every sample that there is, and a line through the medians.

It judges nothing: intervals and the noise floor need whole blocks, and `ktlslab.show.plots` draws them afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab.packages import extra
from ktlslab.show import axes as common
from ktlslab.show import selection
from ktlslab.show.names import order, suite_names
from ktlslab.show.style import LAYERS, STYLE, Plot, key, look, page

with extra("lab"):
    import matplotlib as mpl
    import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from matplotlib.axes import Axes

    from ktlslab.measure.plan import Arm, Plan

_MAX_WORKLOADS = 3  # rows of panels: what a screen holds


def progress(rows: Sequence[Mapping[str, Any]], plan: Plan) -> Plot:
    """Plot the median latency of each sample against the payload: a row per workload, a column per suite.

    `rows`: one or more of a sweep's journal. Axes span what the plan will measure, so that points and not axes move.
    """
    frame = pd.DataFrame(list(rows))
    names = suite_names(list(plan.suites)[: selection.MAX_SUITES])
    workloads = sorted(plan.workloads, key=order)[:_MAX_WORKLOADS]
    unit = str(frame["unit"].iloc[0])
    arms = list(dict.fromkeys(cell.arm for cell in plan.cells()))
    arms.sort(key=lambda arm: (list(LAYERS).index(arm.record_layer), arm.io_engine))
    with mpl.rc_context(STYLE):
        figure, panels = page(len(workloads), len(names), sharex=True)
        for line, workload in zip(panels, workloads, strict=True):
            for axes, suite in zip(line, names, strict=True):
                shown = frame[(frame["workload"] == workload) & frame["suite"].isin([suite, ""])]
                _samples(axes, shown, arms, common.scale("latency_p50", unit))
                common.payload_axis(axes, sorted(plan.payloads), last=line is panels[-1])
            common.value_axis(line[0], "latency_p50", f"{workload}, latency", unit)
        for axes, name in zip(panels[0], names.values(), strict=True):
            axes.set_title(name)
        common.legend(figure, [key(arm) for arm in arms], "dot: a sample; line: the median of those so far")
    figure.alt = "Dots of latency against the payload, one per sample so far, a panel per workload and suite."
    return figure


def _samples(axes: Axes, frame: pd.DataFrame, arms: Sequence[Arm], scale: float) -> None:
    for arm in arms:
        part = frame[(frame["record_layer"] == arm.record_layer) & (frame["io_engine"] == arm.io_engine)]
        if part.empty:
            continue
        style = look(arm)
        axes.plot(part["payload_bytes"], part["latency_p50"] * scale, ".", color=style["color"], alpha=0.4)
        medians = part.groupby("payload_bytes")["latency_p50"].median() * scale
        axes.plot(medians.index, medians, linewidth=1.4, **style)
