"""What each kernel keeps, as one picture: a square per promise, a line per group, a block per kernel.

A promise has the same place in each kernel's block, so that a difference between kernels shows as a difference. Kept is
light, broken is dark and crossed out, what a kernel does not have is empty and struck through, what was not tried on it
is a dot. The marks alone are enough, in print and for readers who cannot tell red from green.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ktlslab.packages import extra
from ktlslab.promises.verdicts import ABSENT, BROKEN, KEPT, UNTRIED
from ktlslab.show.names import kernel_name
from ktlslab.show.plots import Plot

with extra("lab"):
    import matplotlib as mpl
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Okabe and Ito's sky blue and vermilion: apart in brightness too.
FILL = {KEPT: "#9AD1F2", BROKEN: "#B23A00", ABSENT: "#FFFFFF"}
_EDGE = {KEPT: "#4A7D9B", BROKEN: "#5A1D00", ABSENT: "#8A8A8A"}
_DOT = "#5A5A5A"  # what was not tried
_SIDE = 0.8  # of a square, in steps of the grid
_LABELS, _COUNTS, _GAP = 9.5, 3.6, 1.4  # room for the groups' names, for a count, between blocks, in steps
_BAND = 3  # kernels side by side; the next ones go below
_HEAD = 2.4  # room for the kernels' names above a band, in steps
_STEP = 0.155  # inches


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where things go: kernels as (machine, release), groups and their promises, each in the table's order."""

    kernels: list[tuple[str, str]]
    groups: dict[str, list[str]]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Grid:
        """Lay out a scoreboard."""
        pairs = frame[["group", "promise"]].drop_duplicates()
        groups = {str(name): [str(one) for one in part["promise"]] for name, part in pairs.groupby("group", sort=False)}
        places = frame[["machine", "kernel"]].drop_duplicates("kernel")
        kernels = list(zip(places["machine"].astype(str), places["kernel"].astype(str), strict=True))
        return cls(kernels=kernels, groups=groups)

    @property
    def names(self) -> dict[str, str]:
        """What the kernels are called for people, by release."""
        return {release: kernel_name(machine, release) for machine, release in self.kernels}

    @property
    def widest(self) -> int:
        """The number of promises in the largest group."""
        return max(map(len, self.groups.values()))


def verdicts(frame: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return verdicts by (promise, kernel's release)."""
    keys = zip(frame["promise"].astype(str), frame["kernel"].astype(str), strict=True)
    return dict(zip(keys, frame["verdict"].astype(str), strict=True))


def heatmap(frame: pd.DataFrame) -> Plot:
    """Draw every promise on every kernel of a scoreboard, group by group."""
    grid, found = Grid.of(frame), verdicts(frame)
    block, tall = grid.widest + _COUNTS + _GAP, len(grid.groups) + _HEAD
    bands = [grid.kernels[at : at + _BAND] for at in range(0, len(grid.kernels), _BAND)]
    width, height = _LABELS + block * len(bands[0]), tall * len(bands) - _HEAD / 2
    with mpl.rc_context({"figure.facecolor": "white", "font.size": 8.5}):
        figure = Plot(figsize=(width * _STEP, (height + 5.0) * _STEP * 1.2), layout="constrained")
        axes = figure.subplots()
        axes.set_xlim(-_LABELS, width - _LABELS)
        axes.set_ylim(height - _HEAD / 2, -_HEAD / 2)
        axes.set_axis_off()
        for number, kernels in enumerate(bands):
            top = number * tall
            for down, group in enumerate(grid.groups):
                axes.text(-0.5, top + down + 0.4, group, ha="right", va="center")
            for across, (machine, release) in enumerate(kernels):
                axes.text(across * block, top - 0.45, kernel_name(machine, release), fontweight="bold", va="center")
                for down, names in enumerate(grid.groups.values()):
                    row = [found.get((name, release), "") for name in names]
                    _line(axes, across * block, top + down, row, grid.widest)
        figure.suptitle("What each kernel keeps: a square is a promise, at the same place for each kernel", fontsize=10)
        key = _key(untried=UNTRIED in found.values())
        figure.legend(handles=key, loc="outside lower center", ncols=len(key), frameon=False)
    return figure


def _line(axes: Axes, left: float, top: float, row: Sequence[str], widest: int) -> None:
    for at, verdict in enumerate(row):
        x, y = left + at, top
        if verdict == UNTRIED:
            axes.plot([x + _SIDE / 2], [y + _SIDE / 2], color=_DOT, marker=".", markersize=4, linestyle="none")
        if verdict not in FILL:
            continue  # a promise that was not checked on this kernel
        square = Rectangle((x, y), _SIDE, _SIDE, facecolor=FILL[verdict], edgecolor=_EDGE[verdict], linewidth=0.7)
        axes.add_patch(square)
        near, far = 0.22 * _SIDE, 0.78 * _SIDE
        if verdict == BROKEN:
            axes.plot([x + near, x + far], [y + near, y + far], color="white", linewidth=1.3)
            axes.plot([x + near, x + far], [y + far, y + near], color="white", linewidth=1.3)
        elif verdict == ABSENT:
            axes.plot([x, x + _SIDE], [y + _SIDE, y], color=_EDGE[ABSENT], linewidth=0.7)
    checked = [verdict for verdict in row if verdict in FILL]
    count = f"{checked.count(KEPT)} of {len(checked)}" if checked else ""
    axes.text(left + widest + 0.3, top + 0.4, count, va="center", alpha=0.75)


def _key(*, untried: bool) -> list[Patch | Line2D]:
    kept = Patch(facecolor=FILL[KEPT], edgecolor=_EDGE[KEPT], label=f"{KEPT} (counted at the right)")
    style = {"marker": "s", "markersize": 9, "linestyle": "none"}
    broken = Line2D([], [], markerfacecolor=FILL[BROKEN], markeredgecolor=_EDGE[BROKEN], label=f"{BROKEN}: ×", **style)  # type: ignore[arg-type]  # noqa: RUF001
    absent = Line2D([], [], markerfacecolor="white", markeredgecolor=_EDGE[ABSENT], label=f"{ABSENT}: /", **style)  # type: ignore[arg-type]
    dot = Line2D([], [], color=_DOT, marker=".", markersize=4, linestyle="none", label=UNTRIED)
    return [kept, broken, absent, *([dot] if untried else [])]
