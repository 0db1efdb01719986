"""The sign map of an estimate: kernel TLS over userspace TLS as it would be on this CPU.

It looks like the measured sign map and must not be taken for it: every estimated cell is hatched, and title and legend
say that it is an estimate. A number with a question mark has an interval that includes 0: the sign is not known. Where
this machine could measure as well, the measured difference is in brackets below, in italics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.estimating.checking import summary
from ktlslab.estimating.frames import Estimate
from ktlslab.packages import extra
from ktlslab.show import axes as common
from ktlslab.show import selection, signmap
from ktlslab.show.names import suite_names
from ktlslab.show.style import ENGINES, STYLE, WIDTH, Plot

with extra("lab"):
    import matplotlib as mpl
    from matplotlib.patches import Patch, Rectangle

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

HATCH = "\\\\\\"
_EDGE = "#00000038"  # of the hatching: over every colour, behind every number
_REFUSED = "#E6E6E6"
_TRIED = "drawing the estimated sign map"


def estimated_sign_map(estimate: Estimate, *, layer: str = "kernel") -> Plot:
    """Draw the estimated ratio of a record layer over userspace at every cell, as a difference in percent.

    UsageError where the estimate has no such cell.
    """
    _checks.instance(_TRIED, "estimate", estimate, Estimate, "what `ktlslab.estimate` returned")
    cells = estimate.predicted
    cells = cells[cells["record_layer"] == layer]
    if cells.empty:
        remedy = f"It has {', '.join(sorted(set(estimate.predicted['record_layer']))) or 'none'}."
        raise UsageError(_TRIED, answered=f"no cell of record layer {layer!r} was estimated", remedy=remedy)
    everywhere = cells
    cells = selection.at(cells, selection.usual(cells))
    sizes = selection.payloads(cells)
    names = suite_names(sorted(cells["suite"].unique()))
    lines = signmap.lines_of(cells, list(names))
    engines = [engine for engine in ENGINES if engine in set(cells["io_engine"])]
    known = cells["ratio"].dropna()
    norm = signmap.norm_of(known if len(known) else [1.0])
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Plot(figsize=(WIDTH, len(lines) * signmap.ROW * 1.25 + 2.3), layout="constrained")
        drawn = figure.subplots(1, len(engines), squeeze=False, sharey=True).tolist()[0]
        for axes, engine in zip(drawn, engines, strict=True):
            _cells(axes, cells[cells["io_engine"] == engine], lines, sizes, norm)
            axes.set_title(engine, fontsize=9)
            signmap.labels(axes, lines, names, sizes, last=True, first=axes is drawn[0])
        common.legend(figure, _key(layer, cells), _note(estimate))
        head = f"ESTIMATE, not a measurement: time per operation, {layer} over userspace record layer, difference in "
        head += f"percent{selection.setting_name(cells, among=everywhere)}"
        kernel = f"Linux {cells['kernel'].iloc[0]}, as it would be on this CPU ({_cpu(estimate)})"
        figure.suptitle(f"{head}\n{kernel}", fontsize=10, wrap=True)
    figure.alt = (
        f"A grid of estimated numbers, all hatched: time of the {layer} record layer against userspace in percent; "
        "rows are ciphers and workloads, columns payloads."
    )
    figure.caption = _said(cells, layer, names)
    return figure


def _cells(
    axes: Axes, part: pd.DataFrame, lines: list[tuple[str, str | None]], sizes: list[int], norm: Normalize
) -> None:
    """Fill a panel: a hatched rectangle and its number for each cell."""
    for row in part.to_dict("records"):
        x, y = sizes.index(int(row["payload_bytes"])), lines.index((str(row["workload"]), str(row["suite"])))
        refused = math.isnan(row["ratio"])
        colour = _REFUSED if refused else signmap.COLOURS(norm(math.log(row["ratio"])))
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.2))
        if not refused:
            axes.add_patch(
                Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="none", edgecolor=_EDGE, hatch=HATCH, linewidth=0)
            )
        beside = not math.isnan(row["measured_ratio"])
        box = {"facecolor": "#FFFFFFD0", "edgecolor": "none", "pad": 0.8}
        text = "refused" if refused else signmap.signed(row["ratio"]) + "?" * _open(row)
        axes.text(x, y - 0.16 * beside, text, ha="center", va="center", fontsize=7.5, color="#111111", bbox=box)
        if beside:
            measured = f"({signmap.signed(row['measured_ratio'])})"
            axes.text(x, y + 0.27, measured, ha="center", va="center", fontsize=6, style="italic", color="#111111")
    axes.set_xlim(-0.5, len(sizes) - 0.5)
    axes.set_ylim(len(lines) - 0.5, -0.5)


def _open(row: Mapping[Any, Any]) -> bool:
    """Whether the interval includes no difference."""
    return bool(row["ratio_low"] <= 1 <= row["ratio_high"])


def _key(layer: str, cells: pd.DataFrame) -> list[Patch]:
    low, high = signmap.COLOURS(0.08), signmap.COLOURS(0.92)
    keys = [
        Patch(facecolor=low, label=f"\N{MINUS SIGN}: {layer} would take less time"),
        Patch(facecolor=high, label=f"+: {layer} would take more"),
        Patch(facecolor="white", edgecolor="#808080", hatch=HATCH, label="hatched: estimated, not measured"),
    ]
    if cells["measured_ratio"].notna().any():
        keys.append(Patch(facecolor="none", label="(in brackets): measured here"))
    return keys


def _note(estimate: Estimate) -> str:
    errors = summary(estimate.checks)
    said = ", ".join(f"{kind}s {row['error']:.1%}" for kind, row in errors.iterrows() if row["cells"])
    return f"?: the 95 % interval includes 0.  Error where left out and predicted: {said}"


def _cpu(estimate: Estimate) -> str:
    runs = estimate.runs.get("measured", {}).values()
    return ", ".join(dict.fromkeys(str(run.get("cpu", "")) for run in runs)) or "unknown"


def _said(cells: pd.DataFrame, layer: str, names: dict[str, str]) -> str:
    known = cells[cells["ratio"].notna()]
    refused = f" {len(cells) - len(known)} are refused." * (len(known) < len(cells))
    if known.empty:
        return f"Of {len(cells)} cells none could be estimated: {cells['reason'].iloc[0]}."
    less, more = int((known["ratio_high"] < 1).sum()), int((known["ratio_low"] > 1).sum())
    return (
        f"Estimated, not measured: of {len(known)} cells the {layer} record layer would take less time in {less}, more "
        f"in {more}; in {len(known) - less - more} the interval includes no difference.{refused} The estimated "
        f"differences range from {signmap.extremes(known, names)}."
    )
