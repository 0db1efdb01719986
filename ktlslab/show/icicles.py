"""The call tree of one operation as an icicle: a function's bar is as wide as what it and its callees execute.

Callers are above callees, and the first called is on the left. In a notebook it is plain HTML, as all pictures here
are: pointing at a bar names the function with its figures, and the same tree stands folded below it. `icicle_plot` is
the picture without a pointer, for paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.packages import extra
from ktlslab.profiling.comparison import selected
from ktlslab.profiling.frames import CELL, Profile
from ktlslab.show.classcolours import colour, in_order
from ktlslab.show.html import LINE, SMALL, Picture, picture, prose
from ktlslab.show.profiled import chosen
from ktlslab.show.style import STYLE, WIDTH, Plot

with extra("lab"):
    import matplotlib as mpl
    from matplotlib.patches import Patch, Rectangle

if TYPE_CHECKING:
    from collections.abc import Iterator


MIN_SHARE = 0.002  # of the picture's width: what is narrower is left out
_LABEL_SHARE = 0.035  # from which on a bar has its name in it
_ROW_EM = 1.35
_TRIED = "drawing an icicle"
_UNSAID = {"tls_version", "depth", "connections", "record_size", "link", "request_bytes"}


@dataclass(frozen=True, slots=True)
class Bar:
    """A function of the tree. `total` includes what it called."""

    name: str
    object: str
    kind: str
    own: float
    total: float
    calls: float
    children: list[Bar] = field(default_factory=list)

    def says(self) -> str:
        """Return what pointing at it shows."""
        calls = f"{self.calls:,.4g} calls" if self.calls else "entered before the operation"
        figures = f"{self.total:,.0f} instructions, {self.own:,.0f} its own; {calls}"
        return f"{self.name} [{self.object}]\n{figures}\n{self.kind}"

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Bar]]:
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


def bars(profile: Profile, *, mode: str | None = None, **only: Any) -> list[Bar]:
    """Return the trees of one cell's end. `mode`: "kernel" leaves user code out: each system call is a tree.

    `only`: fields of the cell, `machine`, `end` (by default client): record_layer="kernel", payload_bytes=16384.
    UsageError where they do not leave one cell.
    """
    _checks.instance(_TRIED, "profile", profile, Profile, "ktlslab.profile, ktlslab.read_profile")
    rows = selected(profile.trees, {"end": "client", **only})
    if several := [name for name in ("machine", *CELL) if len(rows[name].unique()) > 1]:
        have = "; ".join(f"{name}: {', '.join(map(str, rows[name].unique()))}" for name in several)
        raise UsageError(_TRIED, answered=f"more than one cell: {have}", remedy="Choose one: record_layer='kernel'.")
    made: dict[int, Bar] = {}
    roots: list[Bar] = []
    for row in rows.to_dict("records"):
        if mode is not None and row["mode"] != mode:
            continue
        own, total, calls = row["instructions"], row["total"], row["calls"]
        bar = Bar(row["function"] or row["object"], row["object"], row["class"], own, total, calls)
        made[row["node"]] = bar
        above = made.get(row["parent"])
        (roots if above is None else above.children).append(bar)
    return roots


def icicle(profile: Profile, *more: dict[str, Any], mode: str | None = None, **only: Any) -> Picture:
    """Return the icicle of one cell's end (see `bars`), or of several on one scale.

    `more`: further choices, over `only`: icicle(profile, {"record_layer": "kernel"}, {"record_layer": "userspace"},
    payload_bytes=16384).
    """
    choices = [{**only, **one} for one in more] or [only]
    drawn = [(choice, bars(profile, mode=mode, **choice)) for choice in choices]
    widest = max(sum(bar.total for bar in roots) for _, roots in drawn)
    parts: list[str] = []
    said: list[str] = []
    for choice, roots in drawn:
        total = sum(bar.total for bar in roots)
        name = _name(choice, total)
        said.append(name)
        row = "".join(_html(bar, total, total / widest) for bar in roots)
        width = 100 * total / widest
        parts.append(prose(name))
        parts.append(f'<div style="width:{width:.2f}%;display:flex;align-items:flex-start;{SMALL}">{row}</div>')
        parts.append(_folded(roots, widest))
    kinds = in_order({bar.kind for _, roots in drawn for root in roots for _, bar in root.walk()})
    parts.append(_legend(kinds))
    return picture("The way of one operation", *parts, text="\n".join(said))


def both_ways(profile: Profile) -> Picture | None:
    """Return the icicles of the newest kernel's records and of userspace's, in a cell that has both; None for none."""
    rows, suite, size = chosen(profile, None, None, None, None)
    for workload in ("upload", "echo", "download"):
        for engine in ("syscall", "uring"):
            some = rows[(rows["workload"] == workload) & (rows["io_engine"] == engine)]
            if {"kernel", "userspace"} <= set(some["record_layer"]):
                cell = {name: some[name].iloc[0] for name in ("machine", *CELL) if name != "record_layer"}
                cell |= {"suite": suite, "payload_bytes": size}
                cell["tls_version"] = some.loc[some["suite"] == suite, "tls_version"].iloc[0]
                return icicle(profile, {"record_layer": "kernel"}, {"record_layer": "userspace"}, **cell)
    return None


def icicle_plot(profile: Profile, *more: dict[str, Any], mode: str | None = None, **only: Any) -> Plot:
    """Return the same as a figure for paper: names stand in the bars that are wide enough."""
    choices = [{**only, **one} for one in more] or [only]
    drawn = [(choice, bars(profile, mode=mode, **choice)) for choice in choices]
    widest = max(sum(bar.total for bar in roots) for _, roots in drawn)
    placed = [list(_placed(roots, 0.0, 0, widest)) for _, roots in drawn]
    depths = [max(depth for _, depth, _ in some) + 1 for some in placed]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Plot(figsize=(WIDTH, 1.4 + 0.155 * sum(depths)), layout="constrained")
        panels = figure.subplots(len(drawn), 1, squeeze=False, height_ratios=depths)[:, 0]
        for axes, (choice, roots), some, deep in zip(panels, drawn, placed, depths, strict=True):
            for left, depth, bar in some:
                box = Rectangle(
                    (left, depth), bar.total, 1, facecolor=colour(bar.kind), edgecolor="white", linewidth=0.3
                )
                axes.add_patch(box)
                if bar.total >= 1.6 * _LABEL_SHARE * widest:
                    fits = int(bar.total / widest * 150)
                    label = bar.name if len(bar.name) <= fits else bar.name[: fits - 1] + "…"
                    axes.text(left + widest / 500, depth + 0.5, label, va="center", fontsize=5.5, clip_on=True)
            axes.set_xlim(0, widest)
            axes.set_ylim(deep, 0)
            axes.set_yticks([])
            axes.set_title(_name(choice, sum(bar.total for bar in roots)), loc="left")
            axes.tick_params(labelsize=7)
        panels[-1].set_xlabel("instructions per operation", fontsize=8)
        kinds = in_order({bar.kind for some in placed for _, _, bar in some})
        keys = [Patch(facecolor=colour(kind), label=kind) for kind in kinds]
        figure.legend(handles=keys, loc="outside lower center", ncols=5, fontsize=7, frameon=False)
        figure.suptitle("The way of one operation: each bar a function, as wide as what it and its callees execute")
    figure.alt = "An icicle: bars of functions, callers above callees, as wide as their instructions."
    figure.caption = "\n".join(_name(choice, sum(bar.total for bar in roots)) for choice, roots in drawn)
    return figure


def _name(choice: dict[str, Any], total: float) -> str:
    words = ", ".join(str(value) for name, value in choice.items() if name not in _UNSAID) or "client"
    return f"{words}: {total:,.0f} instructions per operation"


def _placed(roots: list[Bar], left: float, depth: int, widest: float) -> Iterator[tuple[float, int, Bar]]:
    for bar in roots:
        if bar.total >= MIN_SHARE * widest:
            yield left, depth, bar
            yield from _placed(bar.children, left, depth + 1, widest)
        left += bar.total


def _html(bar: Bar, above: float, share: float) -> str:
    """Return a bar above its children. `above`: its caller's total; `share`: its caller's part of the picture."""
    width = bar.total / above if above else 0
    if width * share < MIN_SHARE:
        return ""
    label = escape(bar.name) if width * share >= _LABEL_SHARE else "&nbsp;"
    tint = f"background-color:{colour(bar.kind)}a0;border:1px solid {LINE};box-sizing:border-box"
    below = "".join(_html(child, bar.total, share * width) for child in bar.children)
    return (
        f'<div style="width:{100 * width:.3f}%;min-width:0;flex:none">'
        f'<div title="{escape(bar.says())}" style="{tint};'
        f"height:{_ROW_EM}em;line-height:{_ROW_EM - 0.4:.2f}em;overflow:hidden;white-space:nowrap;font-size:0.8em;"
        f'padding:0 0.15em;cursor:default">{label}</div>'
        f'<div style="display:flex;align-items:flex-start">{below}</div></div>'
    )


def _folded(roots: list[Bar], widest: float) -> str:
    """Return the tree as nested lists that fold."""

    def line(bar: Bar) -> str:
        kept = [child for child in bar.children if child.total >= MIN_SHARE * widest]
        text = f"{escape(bar.name)} &nbsp; {bar.total:,.0f}, {bar.own:,.0f} its own, {bar.calls:,.4g} calls"
        style = f"margin-left:0.9em;border-left:1px solid {LINE};padding-left:0.3em"
        if not kept:
            return f'<div style="{style}">{text}</div>'
        inside = "".join(map(line, kept))
        return f'<details style="{style}"><summary style="cursor:pointer">{text}</summary>{inside}</details>'

    shown = "".join(line(bar) for bar in roots if bar.total >= MIN_SHARE * widest)
    head = f'<summary style="{SMALL};cursor:pointer">The same as a list that unfolds</summary>'
    listed = f'<div style="{SMALL};font-family:monospace">{shown}</div>'
    return f'<details style="margin:0.3em 0 0.8em 0">{head}{listed}</details>'


def _legend(kinds: list[str]) -> str:
    boxes = "".join(
        f'<span style="margin-right:1em;white-space:nowrap"><span style="background-color:{colour(kind)}a0;'
        f'border:1px solid {LINE};display:inline-block;width:0.9em;height:0.8em;margin-right:0.3em"></span>'
        f"{escape(kind)}</span>"
        for kind in kinds
    )
    return f'<div style="{SMALL}">{boxes}</div>'
