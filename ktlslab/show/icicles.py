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
from ktlslab.profiling.counting import CLIENT
from ktlslab.profiling.frames import CELL, Profile, cell_name
from ktlslab.show.classcolours import colour, in_order
from ktlslab.show.html import LINE, SMALL, Picture, picture, prose
from ktlslab.show.profiled import chosen
from ktlslab.show.style import STYLE, WIDTH, Plot

with extra("lab"):
    import matplotlib as mpl
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch, Rectangle
    from matplotlib.ticker import StrMethodFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator


MIN_SHARE = 0.002  # of the picture's width: what is narrower is left out
_LABEL_SHARE = 0.055  # from which on a bar has its name in it
_ROW_PX = 16  # whole pixels, or the underscores of some names are cut off
_TRIED = "drawing an icicle"
_READ = (
    "Each bar is a function, as wide as the instructions that it and all that it called executed. Below it is what it "
    "called, from left to right in the order of the first call. Point at a bar for its name and figures."
)


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

    @property
    def label(self) -> str:
        """What is written in the bar: of a function without a name, the file that it is in."""
        return self.object if "@" in self.name else self.name

    def says(self) -> str:
        """Return what pointing at it shows."""
        calls = f"{self.calls:,.4g} calls" if self.calls else "entered before the operation"
        figures = f"{self.total:,.0f} instructions, {self.own:,.0f} its own; {calls}"
        return f"{self.name} [{self.object}]\n{figures}\n{self.kind}"

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Bar]]:
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


def bars(profile: Profile, *, mode: str | None = None, under: str | None = None, **only: Any) -> list[Bar]:
    """Return the trees of one cell's end. `mode`: "kernel" leaves user code out: each system call is a tree.

    `under`: a function's name; only what it executed and called.
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
    return roots if under is None else [bar for root in roots for _, bar in root.walk() if bar.name == under]


@dataclass(frozen=True, slots=True)
class _Way:
    """The tree of one cell's end, and its name with what it comes to."""

    name: str
    roots: list[Bar]

    @property
    def total(self) -> float:
        return sum(bar.total for bar in self.roots)

    @property
    def title(self) -> str:
        return f"{self.name}: {self.total:,.0f} instructions per operation"


def _ways(profile: Profile, more: tuple[dict[str, Any], ...], mode: str | None, only: dict[str, Any]) -> list[_Way]:
    choices = [{**only, **one} for one in more] or [only]
    return [_Way(_name(profile, choice), bars(profile, mode=mode, **choice)) for choice in choices]


def _name(profile: Profile, choice: dict[str, Any]) -> str:
    """Name a cell's end, and say for how many of the timed steps its tree stands."""
    end, under = choice.get("end", CLIENT), choice.get("under")
    fields = {field: value for field, value in choice.items() if field != "under"}
    row = selected(profile.trees, {"end": end, **fields}).iloc[0]
    name = cell_name({field: row[field] for field in ("machine", *CELL, "end")}) + (f", {under}" if under else "")
    for check in profile.provenance.get(row["run_id"], {}).get("cells", ()):
        if all(check[field] == row[field] for field in CELL) and end in check.get("alike", {}):
            name += f", as in {check['alike'][end]} of {check['steps']} timed steps"
    return name


def icicle(profile: Profile, *more: dict[str, Any], mode: str | None = None, **only: Any) -> Picture:
    """Return the icicle of one cell's end (see `bars`), or of several on one scale.

    `more`: further choices, over `only`: icicle(profile, {"record_layer": "kernel"}, {"record_layer": "userspace"},
    payload_bytes=16384).
    """
    ways = _ways(profile, more, mode, only)
    widest = max(way.total for way in ways)
    parts: list[str] = [prose(_READ)]
    for way in ways:
        row = "".join(_html(bar, way.total, way.total / widest) for bar in way.roots)
        width = 100 * way.total / widest
        parts.append(prose(way.title))
        parts.append(f'<div style="width:{width:.2f}%;display:flex;align-items:flex-start;{SMALL}">{row}</div>')
        parts.append(_folded(way.roots, widest))
    kinds = in_order({bar.kind for way in ways for root in way.roots for _, bar in root.walk()})
    parts.append(_legend(kinds))
    return picture("The way of one operation", *parts, text="\n".join(way.title for way in ways))


def both_ways(profile: Profile) -> Picture | None:
    """Return the icicles of the newest kernel's records and of userspace's, in a cell that has both; None for none.

    In an echo, if there is one: it sends a payload and receives it.
    """
    cell = both_layers(profile)
    return icicle(profile, {"record_layer": "kernel"}, {"record_layer": "userspace"}, **cell) if cell else None


def both_layers(profile: Profile) -> dict[str, Any]:
    """Return the fields of a cell of the newest kernel that has kernel and userspace records; empty for none."""
    rows, suite, size = chosen(profile, None, None, None, None)
    for workload in ("echo", "upload", "download"):
        for engine in ("syscall", "uring"):
            some = rows[(rows["workload"] == workload) & (rows["io_engine"] == engine)]
            if {"kernel", "userspace"} <= set(some["record_layer"]):
                cell = {name: some[name].iloc[0] for name in ("machine", *CELL) if name != "record_layer"}
                cell |= {"suite": suite, "payload_bytes": size}
                return cell | {"tls_version": some.loc[some["suite"] == suite, "tls_version"].iloc[0]}
    return {}


def icicle_plot(profile: Profile, *more: dict[str, Any], mode: str | None = None, **only: Any) -> Plot:
    """Return the same as a figure for paper: names stand in the bars that are wide enough."""
    ways = _ways(profile, more, mode, only)
    widest = max(way.total for way in ways)
    placed = [list(_placed(way.roots, 0.0, 0, widest)) for way in ways]
    depths = [max(depth for _, depth, _ in some) + 1 for some in placed]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Plot(figsize=(WIDTH, 1.4 + 0.155 * sum(depths)), layout="constrained")
        panels = figure.subplots(len(ways), 1, squeeze=False, height_ratios=depths)[:, 0]
        for axes, way, some, deep in zip(panels, ways, placed, depths, strict=True):
            for left, depth, bar in some:
                box = Rectangle(
                    (left, depth), bar.total, 1, facecolor=colour(bar.kind), edgecolor="white", linewidth=0.3
                )
                axes.add_patch(box)
                if bar.total >= _LABEL_SHARE * widest:
                    fits = int(bar.total / widest * 150)
                    label = bar.label if len(bar.label) <= fits else bar.label[: fits - 1] + "…"
                    style = {"va": "center", "fontsize": 5.5, "clip_on": True, "color": _ink(colour(bar.kind))}
                    axes.text(left + widest / 500, depth + 0.5, label, **style)
            axes.set_xlim(0, widest)
            axes.set_ylim(deep, 0)
            axes.set_yticks([])
            axes.set_title(way.title, loc="left", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        panels[-1].set_xlabel("instructions per operation", fontsize=8)
        kinds = in_order({bar.kind for some in placed for _, _, bar in some})
        keys = [Patch(facecolor=colour(kind), label=kind) for kind in kinds]
        figure.legend(handles=keys, loc="outside lower center", ncols=5, fontsize=7, frameon=False)
        figure.suptitle("The way of one operation: each bar a function, as wide as what it and its callees execute")
    figure.alt = "An icicle: bars of functions, callers above callees, as wide as their instructions."
    figure.caption = "\n".join(way.title for way in ways)
    return figure


def _ink(background: str) -> str:
    """Return black or white, whichever is easier to read on this colour (relative luminance as in WCAG 2.1)."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(background)
    )
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "white"


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
    label, style = "", f"height:{_ROW_PX}px"
    if width * share >= _LABEL_SHARE:  # what does not fit into the line is broken off, and out of sight below it
        label = escape(bar.label)
        style += f";line-height:{_ROW_PX - 2}px;overflow:hidden;word-break:break-all;font-size:0.8em;padding:0 0.15em"
    tint = f"background-color:{colour(bar.kind)}a0;border:1px solid {LINE};box-sizing:border-box"
    below = "".join(_html(child, bar.total, share * width) for child in bar.children)
    return (
        f'<div style="width:{100 * width:.3f}%;min-width:0;flex:none">'
        f'<div title="{escape(bar.says())}" style="{tint};{style};cursor:default">{label}</div>'
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
