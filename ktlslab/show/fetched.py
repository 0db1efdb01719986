"""What whole fetches take, both ways: by body size, and stage by stage.

by_body(frame)      latency and client CPU against the body's size, and their ratio
by_stage(frame)     a bar for each way, of its stages
ratios(frame)       the figures, and how much two equal fetches differ
break_even(frame)   what the new way costs once, what it saves for each byte, and when that has paid
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.measure.fetcher import STAGES
from ktlslab.measure.ways import BEFORE, NOW
from ktlslab.packages import extra
from ktlslab.show import axes as common
from ktlslab.show.html import Lines
from ktlslab.show.names import size_name
from ktlslab.show.style import SERIES, STYLE, Plot, page

with extra("lab"):
    import matplotlib as mpl
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import EngFormatter

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES = {"latency": "latency", "client_cpu": "client CPU"}
_LOOKS: dict[str, dict[str, Any]] = {
    BEFORE: {"color": "#D55E00", "marker": "s"},
    NOW: {"color": "#0072B2", "marker": "^"},
}
_NEEDED = ("way", "replica", "body_bytes", "unit", "record_layer", *QUANTITIES)


def by_body(frame: pd.DataFrame) -> Plot:
    """Plot both quantities against the body's size: medians, with the range of all repeats."""
    rows = _ready(frame)
    unit, sizes = str(rows["unit"].iloc[0]), sorted(map(int, rows["body_bytes"].unique()))
    with mpl.rc_context(STYLE):
        figure, panels = page(1, len(QUANTITIES), row=2.6, sharey="all", sharex=True)
        for axes, (quantity, label) in zip(panels[0], QUANTITIES.items(), strict=True):
            for way, look in _LOOKS.items():
                values = rows[rows["way"] == way].groupby("body_bytes")[quantity].agg(["median", "min", "max"])
                scaled = values.rename(columns={"median": "value", "min": "low", "max": "high"})
                common.with_bars(
                    axes, scaled.index.to_series(), scaled * common.scale("latency", unit), linestyle="-", **look
                )
            axes.set_title(label)
            common.payload_axis(axes, sizes, last=True)
            axes.set_xlabel("bytes of the body")
        common.value_axis(panels[0][0], "latency", "a whole fetch", unit)
        keys = [Line2D([], [], label=f"{way}: {_who(rows, way)}", **look) for way, look in _LOOKS.items()]
        common.legend(
            figure, keys, f"medians of {rows['repeat'].nunique()} fetches each; bars from the least to the most"
        )
        common.title(figure, "A whole fetch, before and now", rows)
    figure.alt = "Lines of latency and client CPU of a whole fetch against the size of its body, for both ways."
    figure.caption = "\n".join(ratios_said(frame))
    return figure


def by_stage(frame: pd.DataFrame, body_bytes: int | None = None, quantity: str = "client_cpu") -> Plot:
    """Plot the stages of both ways as bars, at one size (None: the smallest and the largest)."""
    rows = _ready(frame)
    unit, known = str(rows["unit"].iloc[0]), sorted(map(int, rows["body_bytes"].unique()))
    _checks.word("plotting stages", "quantity", quantity, tuple(QUANTITIES))
    sizes = [known[0], known[-1]] if body_bytes is None else [body_bytes]
    prefix = "latency" if quantity == "latency" else "cpu"
    with mpl.rc_context(STYLE):
        figure, panels = page(len(sizes), 1, row=1.05, extra=1.5, sharex=False)
        for (axes,), size in zip(panels, sizes, strict=True):
            for at, way in enumerate((NOW, BEFORE)):
                part = rows[(rows["way"] == way) & (rows["body_bytes"] == size)]
                left = 0.0
                for (colour, _), stage in zip(SERIES, STAGES, strict=True):
                    wide = float(part[f"{prefix}_{stage}"].median()) * common.scale("latency", unit)
                    axes.barh(at, wide, left=left, color=colour, height=0.62)
                    left += wide
            axes.set_yticks([0, 1], [NOW, BEFORE])
            axes.set_title(f"body of {size_name(size)}", loc="left")
            axes.grid(visible=False, axis="y")
            axes.xaxis.set_major_formatter(EngFormatter("" if unit == "instructions" else "s"))
        panels[-1][0].set_xlabel(f"{QUANTITIES[quantity]}, {common.unit_of('latency', unit)}")
        keys = [Patch(color=colour, label=stage) for (colour, _), stage in zip(SERIES, STAGES, strict=True)]
        common.legend(figure, keys, "medians")
        common.title(figure, "Where a fetch spends it", rows)
    figure.alt = f"Bars of {QUANTITIES[quantity]}, divided into the stages of a fetch, for both ways."
    figure.caption = "\n".join(_stage_said(rows, size, prefix) for size in sizes)
    return figure


def ratios(frame: pd.DataFrame) -> Lines:
    """Show what each size takes both ways, and the ratio of now to before beside that of two equal fetches."""
    rows = _ready(frame, replicas=True)
    unit = str(rows["unit"].iloc[0])
    lines = []
    for size in sorted(map(int, rows["body_bytes"].unique())):
        for quantity, label in _known(rows).items():
            before, now, again = (_median(rows, way, replica, size, quantity) for way, replica in _ARMS)
            lines.append(
                (
                    size_name(size),
                    label,
                    _amount(before, unit),
                    _amount(now, unit),
                    f"{now / before:.2f}",
                    f"{max(now, again) / min(now, again):.3f}",
                )
            )
    head = ("body", "", "before", "now", "now / before", "now / now again")
    coarse = "" if len(_known(rows)) == len(QUANTITIES) else " The CPU clock of this kernel is too coarse for a fetch."
    return Lines(head=head, rows=lines, numbers=(2, 3, 4, 5), caption=f"Of a whole fetch: {_place(rows)}.{coarse}")


def break_even(frame: pd.DataFrame) -> Lines:
    """Show what each way takes without a body and for each further byte, and from which size on the new one is less.

    The first is taken from the smallest body, the second from the two largest, block by block. A saving that is less
    than two equal ways differ by in any block is none.
    """
    rows = _ready(frame, replicas=True)
    unit = str(rows["unit"].iloc[0])
    *_, large, largest = sizes = sorted(map(int, rows["body_bytes"].unique()))
    lines = []
    for quantity, label in _known(rows).items():
        once = [_median(rows, *arm, sizes[0], quantity) for arm in _ARMS]
        wide = rows.pivot_table(quantity, "repeat", ["way", "replica", "body_bytes"])
        before, now, again = ((wide[(*arm, largest)] - wide[(*arm, large)]) / (largest - large) for arm in _ARMS)
        cells = [_amount(value, unit) for value in once[:2]]
        each = [f"{values.median():.2f}" for values in (before, now)]
        lines.append((label, *cells, *each, _paid(once[1] - once[0], before - now, noise=(again - now).abs().max())))
    head = ("", "before, once", "now, once", "before, per byte", "now, per byte", "the new way takes less")
    return Lines(head=head, rows=lines, numbers=(1, 2, 3, 4), caption=f"In {unit}, once and per byte of the body.")


_ARMS = ((BEFORE, 0), (NOW, 0), (NOW, 1))


def _paid(more: float, saved: pd.Series, *, noise: float) -> str:
    """Say when what each byte saves has paid for what a fetch takes more; `saved`: block by block."""
    typical, size = float(saved.median()), EngFormatter("B", places=0)
    if abs(typical) <= noise:
        return "no difference per byte: less than two equal ways differ by"
    if typical < 0:
        return "never: each byte takes more as well"
    said = f"from {size(more / typical)} on, if the lines go on like that"
    if saved.min() <= 0:
        return f"{said}; not in every block"
    low, high = (size(more / each) for each in (saved.max(), saved.min()))
    return said if low == high else f"{said}; block by block, {low} to {high}"


def ratios_said(frame: pd.DataFrame) -> list[str]:
    """Say for each quantity at which sizes the new way takes less; what equal fetches differ by counts as nothing."""
    rows = _ready(frame, replicas=True)
    said = []
    for quantity, label in _known(rows).items():
        less: list[str] = []
        more: list[str] = []
        for size in sorted(map(int, rows["body_bytes"].unique())):
            before, now, again = (_median(rows, way, replica, size, quantity) for way, replica in _ARMS)
            noise = max(now, again) / min(now, again)
            if max(now / before, before / now) > noise:
                (less if now < before else more).append(size_name(size))
        parts = [f"{word} at {_sizes(some, rows)}" for word, some in (("less", less), ("more", more)) if some]
        said.append(f"The new way takes {' and '.join(parts) or 'neither more nor less'} in {label}.")
    return said


def _known(rows: pd.DataFrame) -> dict[str, str]:
    """Return the quantities for which this table has figures."""
    return {name: label for name, label in QUANTITIES.items() if rows[name].notna().all()}


def _sizes(some: list[str], rows: pd.DataFrame) -> str:
    return "every size" if len(some) == rows["body_bytes"].nunique() else ", ".join(some)


def _median(rows: pd.DataFrame, way: str, replica: int, size: int, quantity: str) -> float:
    chosen = rows[(rows["way"] == way) & (rows["replica"] == replica) & (rows["body_bytes"] == size)]
    return float(chosen[quantity].median())


def _stage_said(rows: pd.DataFrame, size: int, prefix: str) -> str:
    unit, said = str(rows["unit"].iloc[0]), []
    for way in _LOOKS:
        part = rows[(rows["way"] == way) & (rows["body_bytes"] == size)]
        stages = [(stage, float(part[f"{prefix}_{stage}"].median())) for stage in STAGES]
        named = ", ".join(f"{name} {_amount(value, unit)}" for name, value in stages if value)
        said.append(f"{way}: {named}")
    return f"{size_name(size)}, in {unit}, {'; '.join(said)}."


def _who(rows: pd.DataFrame, way: str) -> str:
    """Say who made a way's records, and how its bytes travelled."""
    first: Any = rows[rows["way"] == way].iloc[0]
    makes = "the kernel" if first["record_layer"] == "kernel" else "rustls"
    return f"{makes} makes records, {'io_uring' if first['io_engine'] == 'uring' else 'blocking calls'}"


def _amount(value: float, unit: str) -> str:
    return common.amount(value, "latency", unit).removesuffix(f" {unit}")


def _place(rows: pd.DataFrame) -> str:
    """Say what was measured, and where."""
    where = f"Linux {rows['kernel'].iloc[0]}" if "kernel" in rows else "here and now"
    return f"time by the wall clock, {where}" if rows["unit"].iloc[0] == "ns" else f"instructions, {where}"


def _ready(frame: pd.DataFrame, *, replicas: bool = False) -> pd.DataFrame:
    _checks.frame("showing fetches", "frame", frame, list(_NEEDED))
    return frame if replicas else frame[frame["replica"] == 0]
