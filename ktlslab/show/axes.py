"""What the axes of all plots have in common: payloads in powers of two, values that name their unit, the noise floor.

Every axis of values says its unit, ratios have none. Where ratios are drawn the noise floor is a band around 1; on an
axis of values it is a bar that is as long as the floor is wide.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ktlslab.packages import extra
from ktlslab.show.names import place_name, size_name
from ktlslab.show.style import FLOOR

with extra("lab"):
    from matplotlib.patches import Patch
    from matplotlib.ticker import (
        EngFormatter,
        FixedLocator,
        Formatter,
        FuncFormatter,
        LogLocator,
        NullFormatter,
        NullLocator,
    )

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from ktlslab.show.style import Plot

_MAX_TICKS = 7
_LETTERS = 12  # of a title, per inch
_BARS: Any = {"capsize": 2, "elinewidth": 0.8, "linewidth": 1.4}
_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # between the ticks of a ratio


def scale(quantity: str, unit: str) -> float:
    """Return the factor that a column's values are multiplied by: nanoseconds become seconds, for SI prefixes."""
    if unit == "instructions":
        return 1.0
    return 1e9 if quantity.startswith("throughput") else 1e-9


def amount(value: float, quantity: str, unit: str) -> str:
    """Say a column's value with its unit: 88.2 k instructions, 105 us, 1.2 GB/s."""
    value *= scale(quantity, unit)
    if quantity.startswith("throughput"):
        return EngFormatter("B/s", places=1)(value) if unit == "ns" else f"{value:.3g} B per instruction"
    return EngFormatter("s", places=1)(value) if unit == "ns" else f"{EngFormatter('', places=1)(value)} instructions"


def payload_axis(axes: Axes, sizes: Sequence[int], *, last: bool) -> None:
    """Put the payloads that were measured on a log2 axis, by their names for people."""
    step = -(-len(sizes) // _MAX_TICKS)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([float(size) for size in sizes[::step]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_name(int(value)).replace(" ", "\n")))
    axes.tick_params(axis="x", labelrotation=0, labelsize=7.5)
    axes.set_xlim(min(sizes) / 1.6, max(sizes) * 1.6)
    if last:
        axes.set_xlabel("payload per operation")


def count_axis(axes: Axes, counts: Sequence[int], label: str, *, last: bool) -> None:
    """Put counts that were measured (depths, connections) on a log2 axis."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([float(count) for count in counts]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(min(counts) / 1.3, max(counts) * 1.3)
    if last:
        axes.set_xlabel(label)


def unit_of(quantity: str, unit: str) -> str:
    """Return the unit of a quantity's axis."""
    if quantity.startswith("throughput"):
        return "bytes per second" if unit == "ns" else "bytes per instruction"
    return "seconds per operation" if unit == "ns" else "instructions per operation"


def value_formatter(quantity: str, unit: str) -> Formatter:
    """Return the formatter of a quantity's axis, with SI prefixes: 20 k, 105 us."""
    if quantity.startswith("throughput"):
        return EngFormatter("B/s") if unit == "ns" else FuncFormatter(lambda value, _: f"{value:g}")
    return EngFormatter("s" if unit == "ns" else "")


def sentence(text: str) -> str:
    """Return a text with its first letter, and no other, changed to a capital."""
    return text[:1].upper() + text[1:]


def value_axis(axes: Axes, quantity: str, label: str, unit: str) -> None:
    """Put a quantity on a log axis that says its unit."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs: tuple[float, ...] = (1, 2, 5) if high / low < 80 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(value_formatter(quantity, unit))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if subs != (1,):
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(f"{label}\n{unit_of(quantity, unit)}")


def ratio_axis(axes: Axes, label: str, shown: pd.DataFrame) -> None:
    """Put a ratio on a log axis, so that twice and half are equally far from 1. The axis holds value, low and high."""
    axes.set_yscale("log")
    ends = shown[[name for name in ("value", "ratio", "low", "high") if name in shown]]
    low, high = min(float(ends.min().min()), 1 / 1.005), max(float(ends.max().max()), 1.005)
    room = (high / low) ** 0.06
    axes.set_ylim(low / room, high * room)
    step = next((step for step in _STEPS if (high - low) / step <= _MAX_TICKS), 10.0)
    ticks = [1 + step * number for number in range(math.ceil((low - 1) / step), math.floor((high - 1) / step) + 1)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    digits = 3 if step < 0.01 else 2
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.{digits}f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(label)


def with_bars(axes: Axes, at: pd.Series, values: pd.DataFrame, **style: Any) -> None:
    """Draw points at `at` with the bars that `values` (value, low, high) give them, joined by a line."""
    bars = [values["value"] - values["low"], values["high"] - values["value"]]
    axes.errorbar(at, values["value"], yerr=[bar.fillna(0).clip(lower=0) for bar in bars], **{**_BARS, **style})


def floor_band(axes: Axes, at: Sequence[float], floors: Sequence[float]) -> None:
    """Draw the noise floor around the ratio 1: `floors` (ratios of 1 and above) at the places `at` of the x axis."""
    axes.axhline(1, color="black", linewidth=1)
    known = [(x, floor) for x, floor in zip(at, floors, strict=True) if not math.isnan(floor)]
    if not known:
        return
    (first, first_floor), (last, last_floor) = known[0], known[-1]
    ends = [first / 2, *(x for x, _ in known), last * 2]
    wide = [first_floor, *(floor for _, floor in known), last_floor]
    low = [1 / floor for floor in wide]
    axes.fill_between(ends, low, wide, color=FLOOR, alpha=0.35, linewidth=0, label="noise floor", zorder=1)


def floor_bar(axes: Axes, floor: float) -> None:
    """Draw the noise floor on a log axis of values: a bar from a value to `floor` times it, with its percentage."""
    if math.isnan(floor):
        return
    low, high = axes.get_ylim()
    low *= (low / high) ** 0.1  # so that it lies below what was drawn
    axes.set_ylim(low, high)
    start = low * (high / low) ** 0.06
    style: Any = {"color": "black", "transform": axes.get_yaxis_transform(), "clip_on": False}
    axes.plot(
        [0.965, 0.965], [start, start * floor], linewidth=2.5, solid_capstyle="butt", label="noise floor", **style
    )
    axes.plot([0.95, 0.98], [start, start], linewidth=0.8, **style)
    axes.text(
        0.94,
        start,
        f"floor {percent(floor)}",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="center",
        fontsize=6.5,
        alpha=0.8,
    )


def percent(ratio: float) -> str:
    """Say a ratio as a difference from 1 without its sign: 0.8 %."""
    share = abs(ratio - 1) * 100
    return f"{share:.0f} %" if share >= 10 else f"{share:.1f} %" if share >= 0.1 else f"{share:.2f} %"


def title(figure: Plot, text: str, frame: pd.DataFrame) -> None:
    """Put above the panels what is shown, where it was measured and by which clock."""
    letters = int(figure.get_size_inches()[0] * _LETTERS)
    figure.heading = text, place_name(frame)
    lines = [line for part in figure.heading for line in _even_lines(part, letters)]
    figure.suptitle("\n".join(lines), fontsize=10)


def _even_lines(text: str, letters: int) -> list[str]:
    """Wrap into lines of similar length, so that no word stands alone on the last."""
    fewest_lines = len(textwrap.wrap(text, letters, break_on_hyphens=False))
    wrapped = (textwrap.wrap(text, width, break_on_hyphens=False) for width in range(letters // 2, letters + 1))
    return next(lines for lines in wrapped if len(lines) <= fewest_lines)


def legend(figure: Plot, keys: Sequence[Artist], note: str, *, width: float = 0) -> int:
    """Put below the panels what each line, point and bar is, and return in how many lines.

    `width`: in inches, where it is not the figure's.
    """
    widths = [0.65 + 0.07 * len(str(key.get_label())) for key in keys]
    across = width or figure.get_size_inches()[0]
    columns = len(keys) if sum(widths) <= across else across / max(widths)
    lines = -(-len(keys) // max(1, int(columns)))
    drawn = figure.legend(
        handles=list(keys),
        loc="outside lower center",
        ncols=-(-len(keys) // lines),
        frameon=False,
        fontsize=8.5,
        title=note or None,
        title_fontsize=8,
        handlelength=3.2,
    )
    drawn.get_title().set_alpha(0.8)
    return lines


def floor_key(differ: str = "equal arms") -> Patch:
    """Return the legend's entry for the noise floor; `differ` names the equal things that differ by as much."""
    return Patch(facecolor=FLOOR, alpha=0.35, label=f"noise floor: {differ} differ by as much")


def blocks_said(values: pd.DataFrame, kind: str = "bootstrap ") -> str:
    """Describe points and bars, from the number of `blocks` behind each interval."""
    low, high = int(values["blocks"].min()), int(values["blocks"].max())
    number = f"{low}" if low == high else f"{low} to {high}"
    bars = f"its 95 % {kind}interval" if values["low"].notna().any() else "none, too few blocks for an interval"
    return f"point: the typical value of {number} block{'s' * (high > 1)}; bar: {bars}"
