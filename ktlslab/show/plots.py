"""Plots of a table of samples: latency, CPU, throughput, and kernel over userspace.

A point is the median over the repeats, its bar reaches from the lowest to the highest. Colour and marker say who made
the records, the line's style which I/O engine moved the bytes, so that the plots survive a black-and-white printer.
Every axis names its unit; a table of mixed units is refused: nanoseconds and instructions have no common axis.

    latency(frame)      median operation, by payload: a panel for each direction and suite
    cpu(frame)          what client and peer spent on an operation
    throughput(frame)
    ratio(frame)        kernel / userspace, the line at 1 being "as dear as userspace"
    figures(frame)      all of them, by name
    summary(frame)      the same in sentences (from `ktlslab.show.compare`)
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ktlslab.errors import UsageError
from ktlslab.show import axes as common
from ktlslab.show.compare import PLACE, checked, order, ratios, suite_names, summary
from ktlslab.tls.suites import Suite

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Plot", "cpu", "figures", "latency", "ratio", "ratios", "summary", "throughput"]

_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}
# Okabe and Ito's colours and a marker for each record layer; plain is the floor that the others stand on.
_LAYERS = {
    "plain": ("#7f7f7f", "o"),
    "userspace": ("#D55E00", "s"),
    "kernel": ("#0072B2", "^"),
    "kernel-tx": ("#56B4E9", ">"),
    "kernel-rx": ("#009E73", "<"),
}
_SUITES = (("#0072B2", "^"), ("#D55E00", "s"), ("#009E73", "o"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"))
_ENGINES: dict[str, Any] = {"uring": "-", "syscall": (0, (4, 2))}
_ARM = ["record_layer", "io_engine", "depth", "connections"]
_DPI = 144


class Plot(Figure):
    """A figure that shows itself in a notebook, sharp on a dense screen, without pyplot's global state."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=_DPI)
        width, height = self.get_size_inches()
        return data.getvalue(), {"width": int(width * 96), "height": int(height * 96)}

    def __repr__(self) -> str:
        return f"Plot({self.get_suptitle()})"


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of panels: one direction of one quantity."""

    direction: str
    quantity: str
    label: str  # of the y axis


def latency(frame: pd.DataFrame, *, direction: str | None = None, suite: str | None = None) -> Plot:
    """Plot the median latency of an operation against its payload."""
    return _grid(frame, "Latency", {"latency_p50": ""}, direction, suite)


def cpu(frame: pd.DataFrame, *, direction: str | None = None, suite: str | None = None, of: str | None = None) -> Plot:
    """Plot the CPU that an operation costs the client and the peer; `of` chooses one of the two."""
    both = {"client": "client_cpu", "peer": "peer_cpu"}
    if of is not None and of not in both:
        raise UsageError("plotting CPU", answered=f"there is no {of!r}", remedy="Choose client or peer.")
    chosen = {column: who for who, column in both.items() if of in (None, who)}
    return _grid(frame, f"CPU of the {of}" if of else "CPU of client and peer", chosen, direction, suite)


def throughput(frame: pd.DataFrame, *, direction: str | None = None, suite: str | None = None) -> Plot:
    """Plot payload bytes moved a unit of time or work."""
    return _grid(frame, "Throughput", {"throughput_bytes_per_unit": ""}, direction, suite)


def ratio(
    frame: pd.DataFrame,
    *,
    quantities: tuple[str, ...] = ("latency_p50", "client_cpu", "peer_cpu"),
    layer: str = "kernel",
    over: str = "userspace",
) -> Plot:
    """Plot what `layer` costs divided by what `over` costs, where all else is equal; the line at 1 is a tie."""
    compared = ratios(frame, layer=layer, over=over)
    names = suite_names(compared["suite"].unique())
    places = _places(compared)
    columns = [(place, way) for place in places for way in sorted(compared["direction"].unique(), key=order)]
    labels = {"latency_p50": "latency", "client_cpu": "client CPU", "peer_cpu": "peer CPU"}
    with mpl.rc_context(_STYLE):
        figure, panels = _figure(len(quantities), len(columns))
        for across, (place, way) in enumerate(columns):
            here = places[place][places[place]["direction"] == way]
            title = way if len(places) == 1 else f"{way}, Linux {place[1]}"
            panels[0][across].set_title(title)
            for down, quantity in enumerate(quantities):
                axes = panels[down][across]
                axes.axhline(1, color="black", linewidth=1)
                axes.axhspan(1e-3, 1, color="#0072B2", alpha=0.06, linewidth=0)
                _ratio_lines(axes, here, quantity, names)
                common.payload_axis(axes, compared["payload_bytes"], last=down == len(quantities) - 1)
        for row, quantity in zip(panels, quantities, strict=True):
            low, high = compared[f"{quantity}_low"].min(), compared[f"{quantity}_high"].max()
            common.ratio_axis(row[0], f"{labels.get(quantity, quantity)},\n{layer} / {over}", low, high)
        keys = [Line2D([], [], color=c, marker=m, label=names[s]) for s, (c, m) in _suite_styles(names).items()]
        keys += [Line2D([], [], color="black", linestyle=_ENGINES[e], label=e) for e in _engines(compared)]
        keys.append(Line2D([], [], color="black", linewidth=1, label="1: as dear as " + over))
        title = f"{layer.capitalize()} over {over} record layer, below 1 the {layer} is cheaper"
        common.title_and_legend(figure, title, frame, keys)
    return figure


def figures(frame: pd.DataFrame) -> dict[str, Plot]:
    """Return every plot that this frame allows, by name."""
    drawn = {
        "latency": latency(frame),
        "cpu-client": cpu(frame, of="client"),
        "cpu-peer": cpu(frame, of="peer"),
        "throughput": throughput(frame),
    }
    if {"kernel", "userspace"} <= set(frame["record_layer"]):
        drawn["ratio"] = ratio(frame)
    return drawn


def _grid(
    frame: pd.DataFrame, title: str, quantities: dict[str, str], direction: str | None, suite: str | None
) -> Plot:
    """Draw a row of panels for each direction and quantity, a column for each place and suite."""
    frame = _chosen(checked(frame), direction, suite)
    directions = sorted(frame["direction"].unique(), key=order)
    rows = [_Row(way, column, label) for way in directions for column, label in quantities.items()]
    names = suite_names(sorted(set(frame["suite"]) - {""})) or {"": "no TLS"}
    places = _places(frame)
    columns = [(place, name) for place in places for name in names]
    unit = str(frame["unit"].iloc[0])
    with mpl.rc_context(_STYLE):
        figure, panels = _figure(len(rows), len(columns))
        for across, (place, name) in enumerate(columns):
            at_place = places[place][places[place]["suite"].isin([name, ""])]
            panels[0][across].set_title(names[name] if len(places) == 1 else f"{names[name]}\nLinux {place[1]}")
            for down, row in enumerate(rows):
                axes = panels[down][across]
                _lines(
                    axes,
                    at_place[at_place["direction"] == row.direction],
                    row.quantity,
                    common.scale(row.quantity, unit),
                )
                common.payload_axis(axes, frame["payload_bytes"], last=down == len(rows) - 1)
        for row, line in zip(rows, panels, strict=True):
            label = f"{row.direction}, {row.label}" if row.label else row.direction
            common.value_axis(line[0], row.quantity, label, unit)
        arms = list(frame.sort_values(_ARM, key=_arm_order)[_ARM].drop_duplicates().itertuples(index=False, name=None))
        common.title_and_legend(
            figure, f"{title} by payload", frame, [Line2D([], [], label=_arm_name(arm), **_arm(arm)) for arm in arms]
        )
    return figure


def _chosen(frame: pd.DataFrame, direction: str | None, suite: str | None) -> pd.DataFrame:
    """Return the rows of a direction and a suite, plain TCP's with any suite."""
    if direction is not None:
        if direction not in set(frame["direction"]):
            have = ", ".join(sorted(frame["direction"].unique(), key=order))
            raise UsageError("plotting", answered=f"no rows of {direction!r}", remedy=f"There are {have}.")
        frame = frame[frame["direction"] == direction]
    if suite is not None:
        suites = sorted(set(frame["suite"]) - {""})
        try:
            name = Suite.named(suite).name
        except ValueError as error:
            raise UsageError("plotting", answered=str(error)) from error
        if name not in suites:
            raise UsageError("plotting", answered=f"no rows of {name}", remedy=f"There are {', '.join(suites)}.")
        frame = frame[frame["suite"].isin([name, ""])]
    return frame


def _places(frame: pd.DataFrame) -> dict[tuple[Any, ...], pd.DataFrame]:
    """Return the rows of each machine, kernel and clock, in the table's order."""
    return dict(list(frame.groupby(PLACE, sort=False)))


def _lines(axes: Axes, rows: pd.DataFrame, quantity: str, scale: float) -> None:
    for arm, samples in rows.sort_values(_ARM, key=_arm_order).groupby(_ARM, sort=False):
        values = samples.groupby("payload_bytes")[quantity].agg(["median", "min", "max"]) * scale
        _with_bars(axes, values, **_arm(arm))


def _ratio_lines(axes: Axes, rows: pd.DataFrame, quantity: str, names: dict[str, str]) -> None:
    styles = _suite_styles(names)
    for key, part in rows.groupby(["suite", "io_engine", "depth", "connections"]):
        suite, engine = str(key[0]), str(key[1])
        values = part.set_index("payload_bytes")[[quantity, f"{quantity}_low", f"{quantity}_high"]].sort_index()
        values.columns = ["median", "min", "max"]
        colour, marker = styles[suite]
        fill = "white" if engine == "syscall" else colour
        _with_bars(axes, values, color=colour, marker=marker, linestyle=_ENGINES[engine], markerfacecolor=fill)


def _with_bars(axes: Axes, values: pd.DataFrame, **style: Any) -> None:
    bars = [values["median"] - values["min"], values["max"] - values["median"]]
    axes.errorbar(values.index, values["median"], yerr=bars, capsize=2, elinewidth=0.8, linewidth=1.4, **style)


def _arm(arm: tuple[Any, ...]) -> dict[str, Any]:
    layer, engine, depth, connections = arm
    colour, marker = _LAYERS[layer]
    crowded = depth > 1 or connections > 1
    return {
        "color": colour,
        "marker": marker,
        "markersize": 4.5 if layer.startswith("kernel") else 6,  # drawn last: what lies below still shows
        "linestyle": ":" if crowded else _ENGINES[engine],
        "markerfacecolor": "white" if engine == "syscall" else colour,
    }


def _arm_name(arm: tuple[Any, ...]) -> str:
    layer, engine, depth, connections = arm
    name = f"{layer} + {engine}"
    name += f", depth {depth}" if depth > 1 else ""
    return name + (f", {connections} connections" if connections > 1 else "")


def _arm_order(column: pd.Series) -> pd.Series:
    if column.name == "record_layer":
        return column.map({name: at for at, name in enumerate(_LAYERS)})
    return column


def _suite_styles(names: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {name: _SUITES[at % len(_SUITES)] for at, name in enumerate(names)}


def _engines(frame: pd.DataFrame) -> list[str]:
    return [name for name in _ENGINES if name in set(frame["io_engine"])]


def _figure(rows: int, columns: int) -> tuple[Plot, list[list[Axes]]]:
    figure = Plot(figsize=(max(5.4, 1.0 + 3.1 * columns), 1.5 + 2.15 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=True, sharey="row").tolist()
