"""Plots of a table of samples: functions from a frame to a figure, which shows itself in a notebook.

A point is the typical value over the blocks, its bar the 95 % bootstrap interval; the noise floor, what
equal arms differ by, is drawn into every plot. Every axis names its unit. A table of mixed units is refused:
nanoseconds and instructions have no common axis. Where a table spans more than a panel can show,
`ktlslab.show.selection` chooses, and the title says what.

    latency(frame)      median per operation, by payload: a panel for each workload and suite
    cpu(frame)          what client and peer spent per operation
    throughput(frame)
    ratio(frame)        kernel / userspace, 1 is "as expensive as userspace"
    sign_map(frame)     the same ratio at every cell, as numbers
    cpu_split(frame)    where the CPU went, with system calls and bytes on the wire
    kernels(frame)      the same cells on several kernels
    distributions(frame)  every timed step's latency, not only the median
    against(frame, "depth")  what more operations in flight change
    figures(frame)      all that the frame allows, by name
    summary(frame)      the same in sentences (from `ktlslab.show.compare`)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.measure.analysis import QUANTITIES, intervals, noise_floor, tally
from ktlslab.measure.plan import Arm
from ktlslab.packages import extra
from ktlslab.show import axes as common
from ktlslab.show import selection
from ktlslab.show.analysis import analysed, ready
from ktlslab.show.compare import ratios, summary
from ktlslab.show.depth import against
from ktlslab.show.histograms import distributions
from ktlslab.show.kernelratios import kernels
from ktlslab.show.names import ends_named, size_name, suite_name, suite_names
from ktlslab.show.signmap import sign_map
from ktlslab.show.split import cpu_split
from ktlslab.show.style import ENGINES, STYLE, Plot, arms_of, key, look, page, rows_of, series

with extra("lab"):
    import matplotlib as mpl
    from matplotlib.lines import Line2D

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ktlslab.profiling.frames import Profile

__all__ = [
    "Plot",
    "against",
    "cpu",
    "cpu_split",
    "distributions",
    "figures",
    "kernels",
    "latency",
    "ratio",
    "ratios",
    "sign_map",
    "summary",
    "throughput",
]

_QUANTITIES = {"latency_p50": "latency", "client_cpu": "client CPU", "peer_cpu": "peer CPU"}


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of panels: one workload of one quantity."""

    workload: str
    quantity: str
    label: str  # of the y axis


def latency(
    frame: pd.DataFrame, *, workload: str | None = None, suite: str | None = None, machine: str | None = None
) -> Plot:
    """Plot the median latency per operation against the payload."""
    return _grid(frame, "Latency", {"latency_p50": "latency"}, workload=workload, suite=suite, machine=machine)


def cpu(
    frame: pd.DataFrame,
    *,
    workload: str | None = None,
    suite: str | None = None,
    machine: str | None = None,
    of: str | None = None,
) -> Plot:
    """Plot client and peer CPU per operation; `of` chooses one of the two."""
    both = {"client": "client_cpu", "peer": "peer_cpu"}
    _checks.optional(_checks.word, "plotting CPU", "of", of, both)
    quantities = {column: f"{who} CPU" for who, column in both.items() if of in (None, who)}
    title = f"CPU of the {of}" if of else "CPU of client and peer"
    return _grid(frame, title, quantities, workload=workload, suite=suite, machine=machine)


def throughput(
    frame: pd.DataFrame, *, workload: str | None = None, suite: str | None = None, machine: str | None = None
) -> Plot:
    """Plot payload bytes per unit of time or work."""
    return _grid(
        frame,
        "Throughput",
        {"throughput_bytes_per_unit": "throughput"},
        workload=workload,
        suite=suite,
        machine=machine,
    )


def ratio(
    frame: pd.DataFrame,
    *,
    quantities: tuple[str, ...] = tuple(_QUANTITIES),
    layer: str = "kernel",
    over: str = "userspace",
    machine: str | None = None,
) -> Plot:
    """Plot the cost of `layer` divided by that of `over`, where all else is equal; 1 is a tie."""
    frame = ready(frame)
    place = selection.one_place(frame, machine)
    setting = selection.usual(place)
    rows, few = selection.few_suites(selection.at(place, setting))
    found = selection.at(selection.at_place(analysed(frame), selection.places(place)[0]), setting)
    found = found[found["suite"].isin(rows["suite"]) & found["quantity"].isin(quantities)]
    pairs = {(f"{layer}+{engine}", f"{over}+{engine}") for engine in ENGINES}
    found = found[[pair in pairs for pair in zip(found["of"], found["over"], strict=True)]]
    if found.empty:
        have = ", ".join(sorted(frame["record_layer"].unique()))
        answered = f"no cell was measured both ways; there are {have}"
        raise UsageError(f"comparing {layer} with {over}", answered=answered, remedy="Sweep both record layers.")
    names = suite_names(sorted(found["suite"].unique()))
    workloads, sizes = selection.workloads(found), selection.payloads(found)
    with mpl.rc_context(STYLE):
        figure, panels = page(len(quantities), len(workloads), sharex=True)
        for across, workload in enumerate(workloads):
            panels[0][across].set_title(workload)
            for down, quantity in enumerate(quantities):
                shown = found[(found["workload"] == workload) & (found["quantity"] == quantity)]
                axes = panels[down][across]
                floors = shown.groupby("payload_bytes")["floor"].max()
                common.floor_band(axes, list(floors.index), list(floors))
                _ratio_lines(axes, shown, names)
                common.payload_axis(axes, sizes, last=down == len(quantities) - 1)
        for line, quantity in zip(panels, quantities, strict=True):
            shown = found[found["quantity"] == quantity]
            label = ends_named(f"{_QUANTITIES.get(quantity, quantity)},\n{layer} / {over}", rows["workload"])
            common.ratio_axis(line[0], label, shown)
        keys = [Line2D([], [], color=c, marker=m, label=names[s]) for s, (c, m) in series(names).items()]
        used = {Arm.named(of).io_engine for of in found["of"]}
        keys += [_engine_key(engine) for engine in ENGINES if engine in used]
        common.legend(figure, [*keys, common.floor_key()], common.blocks_said(found))
        head = f"{layer.capitalize()} over {over} record layer, below 1 the {layer} is cheaper"
        common.title(figure, head + selection.setting_name(rows, among=frame) + few, rows)
    figure.alt = f"Lines of the ratio {layer} / {over} against the payload, a panel per workload and quantity."
    figure.caption = "\n".join(_ratio_said(found, quantity, layer) for quantity in quantities)
    return figure


def figures(frame: pd.DataFrame, profile: Profile | None = None) -> dict[str, Plot]:
    """Return every plot that this frame allows, by name. A plot of a single kernel shows the newest.

    `profile`: of the same cells; it says where user mode ends in the split of the CPU.
    """
    frame = ready(frame)
    newest = selection.one_place(frame)
    layers = set(newest["record_layer"])
    drawn: dict[str, Plot] = {}
    if {"kernel", "userspace"} <= layers:
        drawn["sign-map-latency"] = sign_map(frame)
        drawn["sign-map-cpu"] = sign_map(frame, quantity="client_cpu")
        drawn["ratio"] = ratio(frame)
    drawn["latency"] = latency(frame)
    drawn["cpu-client"] = cpu(frame, of="client")
    drawn["cpu-peer"] = cpu(frame, of="peer")
    drawn["throughput"] = throughput(frame)
    drawn["cpu-split"] = cpu_split(frame, profile=profile)
    usual = selection.at(newest, selection.usual(newest))
    sizes = selection.payloads(usual)
    if sizes[-1] > selection.nearest(usual, None):
        drawn["cpu-split-large"] = cpu_split(frame, payload=sizes[-1], profile=profile)
    if len(selection.places(frame)) > 1:
        drawn["kernels"] = kernels(frame)
    if usual["latency_histogram"].map(len).any():
        drawn["distributions"] = distributions(frame)
    for factor in ("depth", "connections", "record_size"):
        if len(newest[factor].unique()) > 1:
            drawn[factor.replace("_", "-")] = against(frame, factor)
    return drawn


def _grid(
    frame: pd.DataFrame,
    title: str,
    quantities: dict[str, str],
    *,
    workload: str | None,
    suite: str | None,
    machine: str | None,
) -> Plot:
    """Draw a row of panels for each workload and quantity, and a column for each suite."""
    place = selection.one_place(ready(frame), machine)
    rows = selection.chosen(place, workload, suite)
    setting = selection.usual(rows)
    rows, few = selection.few_suites(selection.at(rows, setting))
    panel_rows = [
        _Row(workload, name, label) for workload in selection.workloads(rows) for name, label in quantities.items()
    ]
    names = suite_names(sorted(set(rows["suite"]) - {""})) or {"": "no TLS"}
    values = {quantity: intervals(rows, quantity) for quantity in quantities}
    floors, unit = selection.at(noise_floor(place, list(quantities)), setting), str(rows["unit"].iloc[0])
    with mpl.rc_context(STYLE):
        figure, panels = page(len(panel_rows), len(names), sharex=True)
        for line, row in zip(panels, panel_rows, strict=True):
            shown = values[row.quantity][values[row.quantity]["workload"] == row.workload]
            for axes, name in zip(line, names, strict=True):
                if name and name not in set(shown["suite"]):
                    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", alpha=0.6)
                else:
                    _lines(axes, shown[shown["suite"].isin([name, ""])], common.scale(row.quantity, unit))
                common.payload_axis(axes, selection.payloads(rows), last=line is panels[-1])
            label = ends_named(f"{row.workload}, {row.label}", [row.workload])
            common.value_axis(line[0], row.quantity, label, unit)
            here = floors[(floors["workload"] == row.workload) & (floors["quantity"] == row.quantity)]
            common.floor_bar(line[0], float(here["floor"].max()))
        for axes, name in zip(panels[0], names.values(), strict=True):
            axes.set_title(name)
        every = values[panel_rows[0].quantity]
        common.legend(figure, [key(arm) for arm in arms_of(rows)], common.blocks_said(every))
        title = ends_named(title, rows["workload"])
        common.title(figure, f"{title} by payload{selection.setting_name(rows, among=frame)}{few}", rows)
    figure.alt = f"Lines of {title} against the payload, a line per arm, a panel per workload and suite."
    figure.caption = "\n".join(_grid_said(values[row.quantity], row, unit) for row in panel_rows)
    return figure


def _lines(axes: Axes, values: pd.DataFrame, scale: float) -> None:
    for arm in arms_of(values):
        part = rows_of(values, arm).sort_values("payload_bytes")
        for _, one in part.groupby("suite"):
            common.with_bars(axes, one["payload_bytes"], one[["value", "low", "high"]] * scale, **look(arm))


def _ratio_lines(axes: Axes, rows: pd.DataFrame, names: dict[str, str]) -> None:
    styles = series(names)
    for (suite, of), part in rows.sort_values("payload_bytes").groupby(["suite", "of"]):
        engine, (colour, marker) = Arm.named(str(of)).io_engine, styles[str(suite)]
        values = part[["ratio", "low", "high"]].rename(columns={"ratio": "value"})
        fill = "white" if engine == "syscall" else colour
        style = {"color": colour, "marker": marker, "linestyle": ENGINES[engine], "markerfacecolor": fill}
        common.with_bars(axes, part["payload_bytes"], values, **style)


def _engine_key(engine: str) -> Line2D:
    fill = "white" if engine == "syscall" else "black"
    return Line2D([], [], color="black", linestyle=ENGINES[engine], marker="o", markerfacecolor=fill, label=engine)


def _grid_said(values: pd.DataFrame, row: _Row, unit: str) -> str:
    """Say which arm with TLS does best at the smallest and at the largest payload of a row of panels."""
    values = values[(values["workload"] == row.workload)]
    values = values[values["suite"] != ""] if (values["suite"] != "").any() else values
    less, said = QUANTITIES[row.quantity][1], []
    for size in sorted({values["payload_bytes"].min(), values["payload_bytes"].max()}):
        part = values[values["payload_bytes"] == size].sort_values("value", ascending=less)
        best, worst = part.iloc[0], part.iloc[-1]
        factor = max(best["value"], worst["value"]) / min(best["value"], worst["value"])
        said.append(
            f"at {size_name(int(size))} {Arm(best['record_layer'], best['io_engine'])} with "
            f"{suite_name(best['suite'])} ({common.amount(best['value'], row.quantity, unit)}, "
            f"{f'{factor:.1f} times better than' if factor >= 1.05 else 'hardly better than'} the worst)"
        )
    return f"{common.sentence(row.workload)}, {row.label}: best {', '.join(said)}."


def _ratio_said(found: pd.DataFrame, quantity: str, layer: str) -> str:
    part = found[found["quantity"] == quantity]
    if part.empty:
        return ""
    counts = tally(part)
    unknown = f" ({counts['unjudged']} could not be judged)" * bool(counts["unjudged"])
    return (
        f"{common.sentence(_QUANTITIES.get(quantity, quantity))}: of {len(part)} cells the {layer} takes less in "
        f"{counts['less']}, more in {counts['more']}, and no difference was found in {counts['none']}{unknown}; the "
        f"ratio is {part['ratio'].median():.2f} in the median, {part['ratio'].min():.2f} to {part['ratio'].max():.2f}."
    )
