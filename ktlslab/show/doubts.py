"""How far a figure can be trusted: one question to a function, one picture or small table to a question.

Notebook 10 asks them all. Nothing here merges what two CPUs counted, and an estimate has a column of its own.

    two_cpus        what each of two emulated CPUs says of kernel TLS, side by side
    classes         where the instructions of a few cells went
    bindings        how much of each arm is the interpreter and the binding
    weighed         the TLS tax as it is counted, estimated from weights, and measured where the weights are from
    equal_arms      how far equal arms differ, beside the differences that are called findings
    said            what the figures of a picture say, to be shown above it
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.estimating.frames import Estimate
from ktlslab.measure.analysis import effects
from ktlslab.packages import extra
from ktlslab.profiling.classes import AEAD
from ktlslab.profiling.comparison import selected
from ktlslab.profiling.frames import Profile
from ktlslab.show import axes as common
from ktlslab.show.analysis import analysed, ready
from ktlslab.show.classcolours import colour
from ktlslab.show.html import Lines, Picture, joined, plural, prose
from ktlslab.show.names import order, size_name, suite_name
from ktlslab.show.signmap import signed
from ktlslab.show.style import FLOOR, SERIES, STYLE, WIDTH, Plot, arms_of, rows_of

with extra("lab"):
    import matplotlib as mpl
    import pandas as pd
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINDING = ("interpreter", "our C")
REST = "everything else"
_CELL = ["workload", "payload_bytes", "io_engine"]


def said(what: Plot | str) -> Picture:
    """Return a plot's caption, or a text, as a paragraph."""
    text = what if isinstance(what, str) else _checks.instance("showing what is said", "what", what, Plot).caption
    return Picture(prose(text), text)


def two_cpus(frames: Mapping[str, pd.DataFrame]) -> Plot:
    """Draw what each table says of kernel records against userspace's: a row per cell, a mark per table.

    `frames`: tables of the same plan by the name of the CPU that counted them. Each ratio is of one table, so nothing
    is merged. UsageError where they have no cell of kTLS in common.
    """
    found = {name: _of_ktls(frame) for name, frame in frames.items()}
    common_cells = set.intersection(*(set(one.index) for one in found.values())) if found else set()
    if not common_cells:
        answered = "the tables have no cell of kTLS in common"
        raise UsageError("drawing two CPUs", answered=answered, remedy="Give tables of one plan.")
    cells = sorted(common_cells, key=lambda cell: (order(cell[0]), cell[1], cell[2]))
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Plot(figsize=(WIDTH * 0.8, 1.5 + 0.34 * len(cells)), layout="constrained")
        axes = figure.subplots()
        _grounds(axes, [max(one.loc[cell, "floor"] for one in found.values()) for cell in cells])
        for (hue, marker), (name, one) in zip(SERIES, found.items(), strict=False):
            rows = one.loc[cells]
            bars = [rows["ratio"] - rows["low"], rows["high"] - rows["ratio"]]
            axes.errorbar(
                _percent(rows["ratio"]),
                range(len(cells)),
                xerr=[100 * bar.fillna(0) for bar in bars],
                linestyle="none",
                color=hue,
                marker=marker,
                markersize=6,
                capsize=2,
                label=name,
            )
        for at, cell in enumerate(cells):
            ends = _percent(pd.Series([one.loc[cell, "ratio"] for one in found.values()]))
            axes.plot([ends.min(), ends.max()], [at, at], color=FLOOR, linewidth=1, zorder=1)
        axes.set_yticks(range(len(cells)), [f"{work}, {size_name(size)}, {engine}" for work, size, engine in cells])
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(FuncFormatter(_percentage))
        axes.set_xlabel("latency of kernel records over userspace records: less \N{LEFTWARDS ARROW} instructions "
                        "\N{RIGHTWARDS ARROW} more")  # fmt: skip
        keys = [
            Line2D([], [], color=hue, marker=marker, linestyle="none", label=name)
            for (hue, marker), name in zip(SERIES, found, strict=False)
        ]
        common.legend(figure, [*keys, common.floor_key()], "")
        figure.suptitle("The same kernel and the same work, counted by two emulated CPUs", fontsize=10)
    figure.alt = "Two marks in each row: the difference of kernel to userspace records as each of two CPUs counts it."
    figure.caption = _said_of_two(found, cells)
    return figure


def _of_ktls(frame: pd.DataFrame) -> pd.DataFrame:
    rows = analysed(frame)
    rows = rows[(rows["effect"] == "kTLS") & (rows["quantity"] == "latency_p50")]
    return rows.assign(io_engine=rows["at"]).set_index(_CELL)


def _grounds(axes: Axes, floors: Sequence[float]) -> None:
    """Draw no difference, and the noise floor around it, in each row."""
    axes.axvline(0, color="black", linewidth=1)
    for at, floor in enumerate(floors):
        low, high = 100 * (1 / floor - 1), 100 * (floor - 1)
        axes.barh(at, high - low, left=low, height=0.8, color=FLOOR, alpha=0.35, linewidth=0, zorder=0)


def _percent(ratios: pd.Series) -> pd.Series:
    return 100 * (ratios - 1)


def _percentage(value: float, _position: int) -> str:
    return f"{value:+g} %".replace("-", "\N{MINUS SIGN}") if value else "0"


def _said_of_two(found: Mapping[str, pd.DataFrame], cells: list[Any]) -> str:
    lines = []
    for name, rows in found.items():
        part = rows.loc[cells]
        less, more = (int((part["verdict"] == word).sum()) for word in ("less", "more"))
        median = signed(part["ratio"].median())
        lines.append(f"{name}: less in {less} of {len(part)} cells, more in {more}; median {median} %.")
    verdicts = [{rows.loc[cell, "verdict"] for rows in found.values()} for cell in cells]
    flipped, one_sees = sum({"less", "more"} <= some for some in verdicts), sum("none" in some for some in verdicts)
    lines.append(f"The sign flips in {plural(flipped, 'cell')}; in {one_sees} not both see a difference.")
    return "\n".join(lines)


def classes(
    profile: Profile, cells: Mapping[str, Any], *, by: Sequence[str], kinds: Sequence[str], end: str = ""
) -> Lines:
    """Show the instructions per operation of a profile's cells by class, a column per value of the fields `by`.

    `cells`: fields that choose cells (as `ktlslab.compare` takes them). `kinds`: the classes that have a row of their
    own; AEAD is every cipher's. `end`: client or peer; both ends together without it. UsageError where there is none.
    """
    rows = selected(
        _checks.instance("showing a profile", "profile", profile, Profile).functions,
        {**cells, **({"end": end} if end else {})},
    )
    named = rows["class"].where(~rows["class"].str.startswith(AEAD), AEAD)
    named = named.where(named.isin(list(kinds)), REST)
    table = rows.assign(named=named).pivot_table("instructions", "named", [*by], aggfunc="sum", fill_value=0.0)
    table = table.reindex([*kinds, REST]).fillna(0.0)
    head = table.columns.to_frame(index=False).astype(str).agg("\n".join, axis=1).tolist()
    shown = [
        (str(kind), *(f"{value:,.0f}" for value in row))
        for kind, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    shown.append(("in all", *(f"{value:,.0f}" for value in table.sum())))
    return Lines(
        head=("instructions per operation", *head),
        rows=shown,
        numbers=range(1, len(head) + 1),
        caption=_what(cells, end),
    )


def _what(cells: Mapping[str, Any], end: str) -> str:
    told = [size_name(value) if name == "payload_bytes" else str(value) for name, value in cells.items()]
    return f"{', '.join(told)}: {f'the {end}' if end else 'both ends together'}."


def bindings(profile: Profile, *, payloads: Sequence[int], workload: str = "upload", end: str = "client") -> Plot:
    """Draw each arm's instructions per operation at some payloads: the interpreter's, our C's and the rest.

    UsageError where the profile has no such cells.
    """
    _checks.instance("drawing bindings", "profile", profile, Profile, "ktlslab.read_profile")
    rows = selected(profile.functions, {"workload": workload, "end": end})
    sizes = _checks.several("drawing bindings", "payloads", payloads, _checks.whole)
    rows = pd.concat([selected(rows, {"payload_bytes": size}) for size in sizes])
    rows.attrs = {}  # or each step would copy the provenance
    arms = arms_of(rows)
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Plot(figsize=(WIDTH, 1.5 + 0.27 * len(arms)), layout="constrained")
        panels = figure.subplots(1, len(sizes), squeeze=False, sharey=True).tolist()[0]
        spreads = []
        for axes, size in zip(panels, sizes, strict=True):
            here = rows[rows["payload_bytes"] == size]
            weights = {str(arm): _bar(axes, at, rows_of(here, arm)) for at, arm in enumerate(arms)}
            axes.set_title(size_name(size), loc="left")
            axes.set_xlim(0, axes.get_xlim()[1] * 1.22)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:,.0f} k"))
            axes.set_xlabel("instructions per operation", fontsize=8)
            spreads.append(_spread(size, {name: one for name, one in weights.items() if one and "ssl" not in name}))
        panels[0].set_yticks(range(len(arms)), [str(arm) for arm in arms])
        panels[0].invert_yaxis()
        keys = [Patch(facecolor=colour(kind), linewidth=0, label=kind) for kind in BINDING]
        figure.legend(
            handles=[*keys, Patch(facecolor=FLOOR, alpha=0.35, linewidth=0, label=REST)],
            loc="outside lower center", ncols=3, fontsize=8, frameon=False,
        )  # fmt: skip
        kernels = joined(sorted(map(str, rows["kernel"].unique())))
        figure.suptitle(
            f"The {end} of an {workload}: interpreter and binding, in percent of all, Linux {kernels}", fontsize=10
        )
    figure.alt = "Stacked bars: what the interpreter and the binding execute in each arm, and everything else."
    figure.caption = "\n".join(spreads)
    return figure


def _bar(axes: Axes, at: int, rows: pd.DataFrame) -> float:
    """Draw an arm; return what the interpreter and our C execute."""
    if rows.empty:
        axes.text(0, at, " not profiled", va="center", fontsize=7.5)
        return 0.0
    sums = rows.groupby("class")["instructions"].sum()
    left = 0.0
    for kind in BINDING:
        axes.barh(at, sums.get(kind, 0.0), left=left, height=0.72, color=colour(kind), linewidth=0)
        left += float(sums.get(kind, 0.0))
    total = float(sums.sum())
    axes.barh(at, total - left, left=left, height=0.72, color=FLOOR, alpha=0.35, linewidth=0)
    axes.text(total, at, f" {left / total:.0%}".replace("%", " %"), va="center", fontsize=7.5)
    return left


def _spread(size: int, weights: Mapping[str, float]) -> str:
    if not weights:
        return f"{size_name(size)}: no arm."
    least, most = min(weights, key=lambda name: weights[name]), max(weights, key=lambda name: weights[name])
    return (
        f"{size_name(size)}: interpreter and our C take {weights[least]:,.0f} ({least}) to {weights[most]:,.0f} "
        f"({most}) instructions; all arms but stdlib-ssl lie within {weights[most] - weights[least]:,.0f}."
    )


def weighed(estimate: Estimate) -> Lines:
    """Show userspace TLS over plain TCP, which every machine can run: by instructions, by weights, by the clock.

    What the weights were fitted to, so no proof of them; how far they are off elsewhere is in `estimate.checks`.
    """
    _checks.instance("weighing", "estimate", estimate, Estimate, "ktlslab.read_estimate")
    names = [*_CELL, "depth", "connections", "record_size", "link"]
    figures = ["instructions", "estimate_ns", "measured_ns"]
    plain, tls = (
        estimate.cells[estimate.cells["record_layer"] == layer].set_index(names) for layer in ("plain", "userspace")
    )
    ratios = tls[figures] / plain[figures].reindex(tls.index)
    table = pd.concat([ratios, tls["suite"]], axis=1).dropna(subset=["instructions", "measured_ns"]).reset_index()
    rows = [
        (
            f"{row['workload']}, {size_name(row['payload_bytes'])}, {row['io_engine']}",
            suite_name(str(row["suite"])),
            *("refused" if math.isnan(row[name]) else f"{row[name]:.2f}" for name in figures),
        )
        for row in table.sort_values(["workload", "io_engine", "payload_bytes"]).to_dict("records")
    ]
    cpus = {
        kind: joined(sorted({str(run.get("cpu") or "a CPU not known") for run in runs.values()}))
        for kind, runs in estimate.runs.items()
    }
    told = [f"Counted on {cpus.get('profiled', '?')}, measured on {cpus.get('measured', '?')}.", *estimate.notes]
    head = ("userspace TLS over plain TCP", "suite", "counted", "ESTIMATED from weights", "measured")
    return Lines(head=head, rows=rows, numbers=range(2, 5), caption=" ".join(told))


def equal_arms(frame: pd.DataFrame) -> Plot:
    """Draw how far the equal arms of a table differ, beside its differences of kernel to userspace records."""
    frame = ready(frame)
    found = effects(frame, ["latency_p50"])
    groups = {"A/A: one arm, run twice": "A/A", "kernel over userspace records": "kTLS"}
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Plot(figsize=(WIDTH * 0.8, 2.5), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color="black", linewidth=1)
        told = []
        for at, (name, effect) in enumerate(groups.items()):
            rows = found[found["effect"] == effect]
            known = rows["verdict"] != "none"
            places = at + 0.28 * pd.Series([(number % 7 - 3) / 3 for number in range(len(rows))], rows.index)
            for drawn, fill in ((known, SERIES[0][0]), (~known, "white")):
                axes.plot(
                    _percent(rows.loc[drawn, "ratio"]), places[drawn], linestyle="none", marker="o", markersize=4.5,
                    color=SERIES[0][0], markerfacecolor=fill, alpha=0.85,
                )  # fmt: skip
            farthest = max(rows["ratio"].max(), 1 / rows["ratio"].min()) if len(rows) else float("nan")
            called = f"{int(known.sum())} are called findings"
            told.append(f"{name}: {len(rows)} differences, up to {common.percent(farthest)}; {called}.")
        floors = found.loc[found["effect"] == "kTLS", "floor"].dropna()
        if len(floors):
            low, high = 100 * (1 / floors.median() - 1), 100 * (floors.median() - 1)
            axes.axvspan(low, high, color=FLOOR, alpha=0.35, linewidth=0)
            told.append(f"The floor is {common.percent(floors.min())} to {common.percent(floors.max())}, by cell.")
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(FuncFormatter(_percentage))
        axes.set_xlabel("difference in latency")
        keys = [
            Line2D([], [], color=SERIES[0][0], marker="o", linestyle="none", label="called a finding"),
            Line2D(
                [], [], color=SERIES[0][0], marker="o", markerfacecolor="white", linestyle="none", label="called none"
            ),
            Patch(facecolor=FLOOR, alpha=0.35, linewidth=0, label="the median of the noise floors"),
        ]
        common.legend(figure, keys, "")
        common.title(figure, "Differences of equal arms, and of different ones", frame)
    figure.alt = "Points: differences of equal arms, near 0, above those of kernel to userspace records."
    figure.caption = "\n".join(told)
    return figure
