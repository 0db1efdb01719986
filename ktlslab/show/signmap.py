"""The sign map: kernel TLS over userspace TLS, one number per cell.

Rows are ciphers and workloads, columns payloads, panels I/O engines and kernels. A number is the difference in percent,
with its sign: -12 says that the kernel's record layer takes 12 % less. Blue is less, orange more, the deeper the
further from nothing, a pair that colour-blind readers can tell apart. A cell is hatched where no difference was found:
its interval includes 1, or the difference is inside the noise floor. In print without colours the sign and the hatching
say the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ktlslab.errors import UsageError
from ktlslab.measure.analysis import QUANTITIES, tally, unjudged
from ktlslab.measure.plan import Arm
from ktlslab.packages import extra
from ktlslab.show import axes as common
from ktlslab.show import selection
from ktlslab.show.analysis import analysed, ready
from ktlslab.show.names import ends_named, size_name, suite_names
from ktlslab.show.style import ENGINES, STYLE, WIDTH, Plot

with extra("lab"):
    import matplotlib as mpl
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Patch, Rectangle

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# From Okabe and Ito's blue through near white to their vermilion; light enough in the middle for black numbers.
COLOURS = LinearSegmentedColormap.from_list("sign", ["#0062A3", "#6FB1DD", "#F7F7F7", "#F0A35E", "#C04F00"])
_MIN_END, _MAX_END = math.log(1.1), math.log(3)  # the scale ends at the furthest ratio, within these
_DARK = 0.62  # of the way to the scale's end: from there on a number is white
_DARKEST = "#111111"  # on a cell, which is light in every theme
NOTHING = "////"
ROW = 0.27  # inches


_Line = tuple[str, str | None]  # a workload and a suite; no suite: the workload's heading


@dataclass(frozen=True, slots=True)
class _Panel:
    place: selection.Place
    engine: str


def sign_map(
    frame: pd.DataFrame,
    *,
    quantity: str = "latency_p50",
    layer: str = "kernel",
    over: str = "userspace",
    machine: str | None = None,
) -> Plot:
    """Draw the ratio `layer` / `over` of a quantity at every cell of each I/O engine and kernel of the table.

    UsageError where no cell was measured both ways.
    """
    if quantity not in QUANTITIES:
        remedy = f"Choose {', '.join(QUANTITIES)}."
        raise UsageError("drawing the sign map", answered=f"there is no {quantity!r}", remedy=remedy)
    frame = ready(frame)
    rows = frame if machine is None else selection.one_place(frame, machine)
    found = analysed(rows)  # of all rows: what is known of noise is borrowed across settings
    found = found[found["quantity"] == quantity]
    setting = selection.usual(rows)
    rows, found = selection.at(rows, setting), selection.at(found, setting)
    pairs = {(f"{layer}+{engine}", f"{over}+{engine}") for engine in ENGINES}
    found = found[[pair in pairs for pair in zip(found["of"], found["over"], strict=True)]]
    if found.empty:
        answered = f"no cell was measured as {layer} and as {over}"
        raise UsageError("drawing the sign map", answered=answered, remedy="Sweep both record layers.")
    where = selection.places(found)
    engines = [engine for engine in ENGINES if f"{layer}+{engine}" in set(found["of"])]
    panels = [[_Panel(place, engine) for engine in engines] for place in where]
    sizes = selection.payloads(found)
    names = suite_names(sorted(found["suite"].unique()))
    lines = lines_of(found, list(names))
    norm = norm_of(found["ratio"])
    name, less = QUANTITIES[quantity]
    name = ends_named(name, rows["workload"])
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        height = (len(lines) * ROW + 0.3) * len(where) + 1.9
        figure = Plot(figsize=(WIDTH, height), layout="constrained")
        drawn = figure.subplots(len(where), len(engines), squeeze=False, sharey=True).tolist()
        for line, wanted in zip(drawn, panels, strict=True):
            for axes, panel in zip(line, wanted, strict=True):
                part = _of_panel(found, panel, layer)
                _cells(axes, part, lines, sizes, norm, better_is_less=less)
                kernel = f"{selection.place_name(panel.place, where)}, " if len(where) > 1 else ""
                axes.set_title(f"{kernel}{panel.engine}", fontsize=9)
                labels(axes, lines, names, sizes, last=line is drawn[-1], first=axes is line[0])
        note = "empty: not measured" + "; ?: too few blocks, or no A/A arm, to judge" * bool(unjudged(found).any())
        common.legend(figure, _key(name, layer, over, less=less), note)
        head = f"{common.sentence(name)}: {layer} over {over} record layer, difference in percent"
        common.title(figure, head + selection.setting_name(rows, among=frame), rows)
    figure.alt = (
        f"A grid of numbers: {name} of the {layer} record layer against {over} in percent; rows are ciphers and "
        "workloads, columns payloads; hatched where no difference was found."
    )
    figure.caption = _said(found, layer, name, names)
    return figure


def _of_panel(found: pd.DataFrame, panel: _Panel, layer: str) -> pd.DataFrame:
    return selection.at_place(found[found["of"] == f"{layer}+{panel.engine}"], panel.place)


def lines_of(found: pd.DataFrame, suites: list[str]) -> list[_Line]:
    """Return what the rows of a panel are: for each workload a heading, then the suites that it was measured with."""
    lines: list[_Line] = []
    for workload in selection.workloads(found):
        have = set(found.loc[found["workload"] == workload, "suite"])
        lines += [(workload, None), *((workload, suite) for suite in suites if suite in have)]
    return lines


def norm_of(ratios: Iterable[float]) -> Normalize:
    """Return the scale of colours: as far as the furthest ratio, within limits, and as far on either side."""
    furthest = max(abs(math.log(ratio)) for ratio in ratios)
    end = min(max(furthest, _MIN_END), _MAX_END)
    return Normalize(-end, end)


def _cells(
    axes: Axes,
    part: pd.DataFrame,
    lines: list[_Line],
    sizes: list[int],
    norm: Normalize,
    *,
    better_is_less: bool,
) -> None:
    """Fill a panel: a rectangle, its hatching and its number for each cell that was measured."""
    open_ones = set(part.index[unjudged(part)])
    for _, cell in part.iterrows():
        x, y = sizes.index(int(cell["payload_bytes"])), lines.index((str(cell["workload"]), str(cell["suite"])))
        far = math.log(cell["ratio"]) * (1 if better_is_less else -1)
        nothing, unknown = cell["verdict"] == "none", cell.name in open_ones
        style: dict[str, Any] = {"facecolor": COLOURS(norm(far)), "edgecolor": "white", "linewidth": 1.2}
        if nothing:
            style |= {"facecolor": "#F7F7F7", "hatch": NOTHING, "edgecolor": "#B5B5B5", "linewidth": 0}
        if unknown:
            style["hatch"] = ""
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **style))
        colour = "white" if abs(far) > _DARK * float(norm.vmax or 1) and not nothing else _DARKEST
        box = {"facecolor": "#F7F7F7", "edgecolor": "none", "pad": 0.8} if nothing else None
        axes.text(
            x, y, signed(cell["ratio"]) + "?" * unknown, ha="center", va="center", fontsize=7.5, color=colour, bbox=box
        )
    axes.set_xlim(-0.5, len(sizes) - 0.5)
    axes.set_ylim(len(lines) - 0.5, -0.5)


def signed(ratio: float) -> str:
    """Say a ratio as a difference in percent with its sign: -12, +3.4; a real minus, as wide as the plus."""
    share = (ratio - 1) * 100
    text = f"{share:+.0f}" if abs(share) >= 9.95 else f"{share:+.1f}"
    return text.replace("-", "\N{MINUS SIGN}")


def labels(axes: Axes, lines: list[_Line], names: dict[str, str], sizes: list[int], *, last: bool, first: bool) -> None:
    """Name columns and rows; a workload's name stands in the line above its rows."""
    axes.set_xticks(range(len(sizes)), [size_name(size).replace(" ", "\n") for size in sizes] if last else [])
    rows = [(at, names[suite]) for at, (_, suite) in enumerate(lines) if suite is not None]
    axes.set_yticks([at for at, _ in rows], [name for _, name in rows])
    axes.tick_params(length=0, labelsize=7.5, labelleft=first)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    for at, (workload, suite) in enumerate(lines):
        if suite is None:
            axes.text(-0.45, at + 0.1, workload, ha="left", va="center", fontsize=8, fontweight="bold")
    if last:
        axes.set_xlabel("payload per operation")


def _key(name: str, layer: str, over: str, *, less: bool) -> list[Patch]:
    good, bad = COLOURS(0.08), COLOURS(0.92)
    low, high = (good, bad) if less else (bad, good)
    return [
        Patch(facecolor=low, label=f"\N{MINUS SIGN}: {layer} has less {name} than {over}"),
        Patch(facecolor=high, label=f"+: {layer} has more"),
        Patch(facecolor="#F7F7F7", edgecolor="#B5B5B5", hatch=NOTHING, label="no difference found"),
    ]


def _said(found: pd.DataFrame, layer: str, name: str, names: dict[str, str]) -> str:
    counts = tally(found)
    rest = f"; {counts['unjudged']} could not be judged" * bool(counts["unjudged"])
    cells = found.assign(io_engine=[Arm.named(of).io_engine for of in found["of"]])
    return (
        f"Of {len(found)} cells the {layer} record layer has less {name} in {counts['less']}, more in "
        f"{counts['more']}; in {counts['none']} no difference was found{rest}. The "
        f"differences range from {extremes(cells, names)}."
    )


def extremes(cells: pd.DataFrame, names: dict[str, str]) -> str:
    """Say the least and the greatest ratio, each as a difference in percent with its cell; `names`: those of suites."""
    said = [
        f"{signed(cell['ratio'])} % ({cell['workload']}, {size_name(int(cell['payload_bytes']))}, "
        f"{names[cell['suite']]}, {cell['io_engine']})"
        for _, cell in cells.sort_values("ratio").iloc[[0, -1]].iterrows()
    ]
    return " to ".join(said)
