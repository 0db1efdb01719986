"""Kernel against userspace, computed: the sentences that a notebook and a report may print.

All of it is a view of `ktlslab.measure.analysis`: ratios within blocks, their intervals, and the noise floor that a
difference must rise above. Ratios have no unit, but are only ever taken within one.
"""

from __future__ import annotations

from ktlslab.errors import UsageError
from ktlslab.measure.analysis import PLACE, QUANTITIES, Contrast, contrasts, effects, tally
from ktlslab.measure.plan import SETTING
from ktlslab.packages import extra
from ktlslab.show.analysis import analysed, ready
from ktlslab.show.html import Picture, picture, prose, table
from ktlslab.show.names import cell_name, order, place_name

with extra("lab"):
    import pandas as pd

CELL = [*SETTING, "suite", "tls_version", "io_engine"]
UNITS = {"ns": "nanoseconds", "instructions": "instructions"}
_ASKED = ("latency_p50", "client_cpu")


def compared(frame: pd.DataFrame, *, layer: str = "kernel", over: str = "userspace") -> pd.DataFrame:
    """Return `effects` of one record layer over another at equal I/O engine, with the engine as `io_engine`.

    UsageError where no cell was measured both ways.
    """
    asked = [Contrast("", (f"{layer}+{engine}",), (f"{over}+{engine}",), engine) for engine in ("syscall", "uring")]
    usual = {(one.of, one.over) for one in contrasts()}
    known = all((one.of, one.over) in usual for one in asked)
    found = analysed(frame) if known else effects(ready(frame), asked=asked)
    pairs = {(one.of[0], one.over[0]) for one in asked}
    found = (
        found[[pair in pairs for pair in zip(found["of"], found["over"], strict=True)]]
        .rename(columns={"at": "io_engine"})
        .reset_index(drop=True)
    )
    if found.empty:
        have = ", ".join(sorted(frame["record_layer"].unique()))
        answered = f"no cell was measured both ways; there are {have}"
        raise UsageError(f"comparing {layer} with {over}", answered=answered, remedy="Sweep both record layers.")
    return found


def ratios(frame: pd.DataFrame, *, layer: str = "kernel", over: str = "userspace") -> pd.DataFrame:
    """Return one row per cell: each quantity of `layer` divided by that of `over`, with its 95 % interval over blocks.

    Columns: the place's, the cell's, and for each quantity NAME, NAME_low, NAME_high (NaN for fewer than 3 blocks).
    """
    found = compared(frame, layer=layer, over=over).set_index([*PLACE, *CELL, "quantity"])[["ratio", "low", "high"]]
    ends = {"ratio": "", "low": "_low", "high": "_high"}
    parts = {
        f"{name}{suffix}": found[end].xs(name, level="quantity")
        for name in QUANTITIES
        if name in found.index.get_level_values("quantity")
        for end, suffix in ends.items()
    }
    return pd.DataFrame(parts).reset_index()


def summary(frame: pd.DataFrame, *, layer: str = "kernel", over: str = "userspace") -> Picture:
    """Say in computed sentences what the kernel's record layer costs and saves against userspace's."""
    found = compared(frame, layer=layer, over=over)
    rows, lines = [], []
    for workload in sorted(found["workload"].unique(), key=order):
        for quantity, (name, less) in QUANTITIES.items():
            part = found[(found["workload"] == workload) & (found["quantity"] == quantity)]
            if part.empty:
                continue
            values = part["ratio"]
            low, high = part.iloc[int(values.to_numpy().argmin())], part.iloc[int(values.to_numpy().argmax())]
            counts = tally(part)
            ends = [f"{end['ratio']:.2f} ({cell_name(end)})" for end in (low, high)]
            told = f"{counts['less']} less, {counts['more']} more, {counts['none']} none"
            told += f", {counts['unjudged']} not judged" * bool(counts["unjudged"])
            better = f"{counts['less' if less else 'more']} of {len(part)}"
            rows.append((workload, name, f"{values.median():.2f}", *ends, told, better))
            lines.append(
                f"{workload}, {name}: {layer} / {over} {values.median():.2f} in the median of {len(values)} cells, "
                f"{low['ratio']:.2f} to {high['ratio']:.2f}; {told}"
            )
    said = (
        f"{layer.capitalize()} divided by {over}, at the same I/O engine, suite and payload, on {place_name(frame)}. "
        f"Latency and CPU below 1 favour the {layer}, and so does throughput above 1. A cell counts as less or more "
        f"where its 95 % interval excludes 1 and the difference is larger than the noise floor."
    )
    head = ("workload", "quantity", "median", "lowest (where)", "highest (where)", "cells", f"in favour of {layer}")
    return picture(
        f"{layer.capitalize()} against {over}", prose(said), table(head, rows, numbers=(2,)), text="\n".join(lines)
    )


def verdict_sentence(frame: pd.DataFrame, *, layer: str = "kernel", over: str = "userspace") -> str:
    """Answer in one sentence whether `layer` costs less than `over`, whatever the figures say."""
    where = place_name(ready(frame))
    try:
        found = compared(frame, layer=layer, over=over)
    except UsageError as error:
        return f"On {where}, whether the {layer} record layer costs less than {over}'s is not known: {error.answered}."
    told = []
    for quantity in _ASKED:
        part = found[found["quantity"] == quantity]
        if part.empty:
            continue
        counts = tally(part)
        engines = [
            f"{100 * (one['ratio'].median() - 1):+.1f} % by {engine}" for engine, one in part.groupby("io_engine")
        ]
        ends = [f"{100 * (value - 1):+.1f} %" for value in part["ratio"].quantile([0.0, 1.0])]
        unknown = f", and could not be judged in {counts['unjudged']} (too few blocks, or no A/A arm)"
        told.append(
            f"{QUANTITIES[quantity][0]} is less in {counts['less']}, more in {counts['more']} and not different from "
            f"noise in {counts['none']} of {len(part)} cells{unknown * bool(counts['unjudged'])} "
            f"(median {' and '.join(engines)}; all from {ends[0]} to {ends[1]})"
        )
    if not told:
        return f"On {where}, neither latency nor client CPU was measured for both {layer} and {over}."
    asked = f"With the {layer} record layer instead of {over}'s, all else equal, on {where}"
    return f"{asked}: {'; '.join(told)}."
