"""What the axes of all plots have in common: payloads in powers of two, values that name their unit, a legend below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    Formatter,
    FuncFormatter,
    LogLocator,
    NullFormatter,
    NullLocator,
)

from ktlslab.show.compare import place_name, size_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_MOST_TICKS = 7


def scale(quantity: str, unit: str) -> float:
    """Return what a column's values are multiplied with: nanoseconds become seconds, for people's prefixes."""
    if unit == "instructions":
        return 1.0
    return 1e9 if quantity.startswith("throughput") else 1e-9


def payload_axis(axes: Axes, payloads: pd.Series, *, last: bool) -> None:
    """Put the payloads that were measured on a log2 axis, by their names for people."""
    sizes = sorted(payloads.unique())
    step = -(-len(sizes) // _MOST_TICKS)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([float(size) for size in sizes[::step]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_name(int(value))))
    axes.tick_params(axis="x", labelrotation=0, labelsize=8)
    if last:
        axes.set_xlabel("payload of an operation")


def value_axis(axes: Axes, quantity: str, label: str, unit: str) -> None:
    """Put a quantity on a log axis that says its unit."""
    if quantity.startswith("throughput"):
        said = "bytes a second" if unit == "ns" else "bytes an instruction"
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        _log(axes, EngFormatter("B/s") if unit == "ns" else plain)
    else:
        said = "seconds an operation" if unit == "ns" else "instructions an operation"
        _log(axes, EngFormatter("s" if unit == "ns" else ""))
    axes.set_ylabel(f"{label}\n{said}")


def ratio_axis(axes: Axes, label: str, low: float, high: float) -> None:
    """Put a ratio on a log axis, so that twice and half are as far from 1. `low` and `high` are its ends."""
    axes.set_yscale("log")
    low, high = min(low, 0.95), max(high, 1.05)
    axes.set_ylim(low / 1.02, high * 1.02)
    step = next((step for step in (0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / step <= _MOST_TICKS + 1), 1.0)
    ticks = [step * number for number in range(int(low / step), int(high / step) + 2)]
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(label)


def title_and_legend(figure: Figure, title: str, frame: pd.DataFrame, keys: Sequence[Line2D]) -> None:
    """Say above what is shown and where it was measured, below which line is which and what the bars are."""
    figure.suptitle(f"{title}\n{place_name(frame)}", fontsize=10)
    repeats = frame["repeat"].nunique()
    bars = f"median of {repeats} repeats, bars from lowest to highest" if repeats > 1 else "one sample a point"
    most = max(1, int(figure.get_size_inches()[0] / 1.75))
    lines = -(-len(keys) // most)
    legend = figure.legend(
        handles=list(keys),
        loc="outside lower center",
        ncols=-(-len(keys) // lines),
        frameon=False,
        fontsize=8.5,
        title=bars,
        title_fontsize=8.5,
        handlelength=3.2,
    )
    legend.get_title().set_alpha(0.75)


def _log(axes: Axes, formatter: Formatter) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs: tuple[float, ...] = (1, 2, 5) if high / low < 80 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.set_minor_formatter(NullFormatter())
    if subs != (1,):
        axes.yaxis.set_minor_locator(NullLocator())
