"""Kernel against userspace, computed: the ratios behind the plots, and the sentence that a notebook may print.

A ratio is taken where all else is equal: machine, kernel, clock, suite, I/O engine, payload, direction, depth,
connections, and the repeat, since both arms of a repeat were measured in the same block. Ratios have no unit, but are
only ever taken within one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab.errors import UsageError
from ktlslab.show.html import Picture, picture, prose, table
from ktlslab.tls.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

PLACE = ["machine", "kernel", "clock", "unit"]
CELL = ["direction", "suite", "tls_version", "io_engine", "payload_bytes", "depth", "connections"]
# What is compared: the table's column, what people call it, and whether less of it is better.
QUANTITIES = {
    "latency_p50": ("latency", True),
    "client_cpu": ("client CPU", True),
    "peer_cpu": ("peer CPU", True),
    "throughput_bytes_per_unit": ("throughput", False),
}
UNITS = {"ns": "nanoseconds", "instructions": "instructions"}


def checked(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame if it can be drawn or compared. UsageError: no rows, mixed units, rows without proof."""
    if frame.empty:
        raise UsageError("showing a table", answered="it has no rows", remedy="Widen the selection.")
    units = sorted(frame["unit"].unique())
    if len(units) > 1:
        remedy = f"Choose one: frame[frame.unit == {units[0]!r}]."
        raise UsageError("showing a table", answered=f"it mixes the units {' and '.join(units)}", remedy=remedy)
    unproven = frame[(frame["record_layer"] != frame["record_layer_observed"]) | ~frame["payload_ok"]]
    if len(unproven):
        answered = f"{len(unproven)} rows have no proof of what made their records"
        raise UsageError("showing a table", answered=answered, remedy="A row without proof is not a row: leave it out.")
    return frame


def ratios(frame: pd.DataFrame, *, layer: str = "kernel", over: str = "userspace") -> pd.DataFrame:
    """Return one row a cell: each quantity of `layer` divided by that of `over`, median, lowest and highest repeat.

    Columns: machine, kernel, clock, unit, the cell's, and for each quantity NAME, NAME_low, NAME_high.
    """
    frame = checked(frame)
    keys = [*PLACE, *CELL, "repeat"]
    quantities = list(QUANTITIES)
    above, below = (frame[frame["record_layer"] == name].set_index(keys)[quantities] for name in (layer, over))
    each = above.div(below).dropna(how="all")
    if each.empty:
        have = ", ".join(sorted(frame["record_layer"].unique()))
        answered = f"no cell was measured both ways; there are {have}"
        raise UsageError(f"comparing {layer} with {over}", answered=answered, remedy="Sweep both record layers.")
    grouped = each.groupby([*PLACE, *CELL])
    result = grouped.median()
    for suffix, values in (("low", grouped.min()), ("high", grouped.max())):
        result = result.join(values.add_suffix(f"_{suffix}"))
    ordered = [name for quantity in quantities for name in (quantity, f"{quantity}_low", f"{quantity}_high")]
    return result[ordered].reset_index()


def summary(frame: pd.DataFrame, *, layer: str = "kernel", over: str = "userspace") -> Picture:
    """Say in computed sentences what the kernel's record layer cost and brought against userspace's."""
    compared = ratios(frame, layer=layer, over=over)
    rows, lines = [], []
    for direction, part in sorted(compared.groupby("direction"), key=lambda group: order(str(group[0]))):
        for quantity, (name, less) in QUANTITIES.items():
            part = part.dropna(subset=quantity)  # noqa: PLW2901
            if part.empty:
                continue
            values = part[quantity]
            low, high = part.iloc[int(values.to_numpy().argmin())], part.iloc[int(values.to_numpy().argmax())]
            better = int((values < 1).sum() if less else (values > 1).sum())
            word = "less" if less else "more"
            rows.append(
                (
                    str(direction),
                    name,
                    f"{values.median():.2f}",
                    f"{low[quantity]:.2f} ({cell_name(low)})",
                    f"{high[quantity]:.2f} ({cell_name(high)})",
                    f"{better} of {len(values)}",
                )
            )
            lines.append(
                f"{direction}, {name}: {layer} / {over} {values.median():.2f} in the median of {len(values)} cells, "
                f"{low[quantity]:.2f} to {high[quantity]:.2f}; {word} in {better}"
            )
    where = place_name(frame)
    said = (
        f"{layer} divided by {over}, at the same I/O engine, suite and payload, on {where}. Latency and CPU below 1 "
        f"are in favour of the {layer}, throughput above 1 is."
    )
    head = ("direction", "quantity", "median", "lowest (where)", "highest (where)", f"in favour of {layer}")
    return picture(f"{layer} against {over}", prose(said), table(head, rows, numbers=(2,)), text="\n".join(lines))


def cell_name(row: pd.Series) -> str:
    """Name a cell for people, without its direction."""
    extra = "".join(f", {row[name]} {name}" for name in ("depth", "connections") if row[name] > 1)
    return f"{size_name(int(row['payload_bytes']))}, {suite_name(str(row['suite']))}, {row['io_engine']}{extra}"


def place_name(frame: pd.DataFrame) -> str:
    """Say where and by which clock a frame was measured, and that an emulated CPU's seconds are emulated."""
    kernels = " and ".join(f"Linux {kernel}" for kernel in frame["kernel"].unique())
    unit = str(frame["unit"].iloc[0])
    machines = " and ".join(f"guest {name}" if name != "here" else "this machine" for name in frame["machine"].unique())
    counted = "counted in instructions" if unit == "instructions" else "timed in nanoseconds"
    emulated = ", on an emulated CPU" if unit == "ns" and is_emulated(frame) else ""
    return f"{kernels} ({machines}), {counted}{emulated}"


def is_emulated(frame: pd.DataFrame) -> bool:
    """Whether any run in the frame had an emulated CPU, as far as its provenance says."""
    runs = frame.attrs.get("provenance", {})
    return any(runs.get(run, {}).get("emulated", False) for run in frame["run_id"].unique())


def order(direction: str) -> tuple[int, str]:
    """Return what directions are sorted by: both ways, out, in, and whatever else there may be."""
    known = ("echo", "upload", "download")
    return (known.index(direction) if direction in known else len(known)), direction


def size_name(count: int) -> str:
    """Return 64 B, 16 KiB, 1 MiB."""
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} B"


def suite_name(name: str) -> str:
    """Return a suite's cipher and version: the part of its name that the record layer sees."""
    suite = Suite.__members__.get(name)
    return f"{suite.cipher.name}, {suite.version.label}" if suite else name or "no TLS"


def suite_names(names: Iterable[str]) -> dict[str, str]:
    """Return a name for each suite that is unique among them."""
    short = {name: suite_name(name) for name in names}
    values = list(short.values())
    return {name: value if values.count(value) == 1 else name for name, value in short.items()}
