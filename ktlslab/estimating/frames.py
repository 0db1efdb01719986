"""An estimate: its frames, how it is printed, written and read.

NAME.parquet holds the cells, NAME.json weights, checks, notes and the provenance of both tables behind it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ktlslab import _checks
from ktlslab._html import table
from ktlslab.errors import TableError
from ktlslab.estimating.checking import summary
from ktlslab.estimating.costs import COUNTED, IDENTITY, in_kernel
from ktlslab.packages import extra, require
from ktlslab.runs.storage import store, table_path, unreadable

with extra("lab"):
    import pandas as pd

UNIT = "estimated ns"  # no table of samples accepts it
ESTIMATE, FITTED = "estimate", "fitted"
# Of each cell, both ends together, per operation. `kind`: estimate, or fitted where the weights come from it.
CELLS = (
    *("kind", "unit", "machine", "kernel"),  # the guest that was profiled
    *IDENTITY,
    *("instructions", "estimate_ns", "estimate_low", "estimate_high"),  # the interval is one of 95 %
    *("ratio", "ratio_low", "ratio_high"),  # to the userspace record layer in the same cell, estimated too
    *("measured_ns", "measured_ratio"),  # here; NaN where this machine cannot
    "reason",  # why there is no estimate; empty where there is one
)
_SOURCE = "one that `ktlslab estimate -o` wrote"
_MAX_ROWS = 15  # on a page, where the frame is at hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What cells would cost on this CPU.

    `cells`: a row per cell (`CELLS`). `weights`: `ns`, `low`, `high` per cost class, per instruction or each. `checks`:
    see `checking.left_out`. `notes`: sentences on what was unusual. `runs`: provenance, measured and profiled.
    """

    cells: pd.DataFrame
    weights: pd.DataFrame
    checks: pd.DataFrame
    notes: list[str]
    runs: dict[str, Any]

    @property
    def predicted(self) -> pd.DataFrame:
        """The cells that did not take part in the fit."""
        return self.cells[self.cells["kind"] == ESTIMATE]

    def write(self, path: str | Path) -> None:
        """Write it, completely or not at all. StorageError where it cannot be written."""
        frame = self.cells.copy()
        about = {
            "weights": self.weights.reset_index(names="class").to_dict("list"),
            "checks": self.checks.to_dict("list"),
            "notes": self.notes,
            "runs": self.runs,
        }
        frame.attrs["provenance"] = {ESTIMATE: about}
        store(frame, table_path("writing an estimate", "path", path))

    def __str__(self) -> str:
        return "\n".join(_said(self))

    def __repr__(self) -> str:
        known = int((self.predicted["reason"] == "").sum())
        return f"Estimate({known} of {len(self.predicted)} cells that were not measured here)"

    def _repr_html_(self) -> str:
        """Show the largest part of what was estimated, and the weights folded."""
        known = self.predicted[self.predicted["reason"] == ""]
        rows = [(_cell(row), *_figures(row).split(", ", 1)) for row in _records(known.head(_MAX_ROWS))]
        more = f"; {_MAX_ROWS} of them, all in the frame that is called predicted" * (len(known) > _MAX_ROWS)
        weights = [
            (name, f"{row['ns']:.3f}") for name, row in zip(self.weights.index, _records(self.weights), strict=True)
        ]
        refused = [(reason, len(some)) for reason, some in self.predicted.groupby("reason", sort=False) if reason]
        return (
            f'<div><div style="font-weight:bold">ESTIMATED, not measured: {len(known)} cells{more}</div>'
            f"{table(('cell', 'nanoseconds per operation', 'over userspace'), rows)}"
            f"{table(('refused because', 'cells'), refused, numbers=[1]) if refused else ''}"
            '<details><summary style="cursor:pointer">weights on this CPU, in nanoseconds</summary>'
            f"{table(('class', 'ns'), weights, numbers=[1])}</details>"
            f"{table((), [(note,) for note in self.notes])}</div>"
        )


def read_estimate(path: str | Path) -> Estimate:
    """Read an estimate that `ktlslab estimate` wrote. TableError where it is none."""
    require("lab", "pandas", "pyarrow")
    path = _checks.path("reading an estimate", "path", path)
    try:
        cells = pd.read_parquet(path)
        if "request_bytes" not in cells:  # written before there was `serve`
            cells = cells.assign(request_bytes=0)
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))[ESTIMATE]
        if missing := [name for name in CELLS if name not in cells]:
            raise TableError(f"reading {path}", answered=f"it lacks {', '.join(missing)}", remedy=f"Give {_SOURCE}.")
        weights = pd.DataFrame(about["weights"]).set_index("class")
        checks = pd.DataFrame(about["checks"])
        return Estimate(cells=cells, weights=weights, checks=checks, notes=about["notes"], runs=about["runs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TableError(f"reading {path}", answered=unreadable(path, error), remedy=f"Give {_SOURCE}.") from error


def _said(one: Estimate) -> Iterator[str]:
    """Yield the lines that say weights, errors and predictions."""
    yield "Weights on this CPU (95 % interval):"
    width = max(map(len, one.weights.index))
    for name, row in zip(map(str, one.weights.index), _records(one.weights), strict=True):
        each = "each" if name in COUNTED else "per instruction"
        stand_in = "  stand-in: never measured here" if in_kernel(name) else ""
        yield f"  {name:<{width}}  {row['ns']:9.3f} ns {each:<15}  {row['low']:.3f} to {row['high']:.3f}{stand_in}"
    yield "Error where left out and predicted from the rest (geometric mean, worst cell):"
    for row in _records(summary(one.checks).reset_index()):
        said = f"{row['error']:.1%}, {row['worst']:.1%}" if row["cells"] else "could not be checked"
        yield f"  each {row['left_out']}: {said}"
    for row in _records(one.checks):
        why = row["reason"] or f"{row['error']:.1%}, {row['worst']:.1%} ({row['cells']} cells)"
        yield f"    {row['left_out']} {row['name']}: {'not checked: ' * bool(row['reason'])}{why}"
    if not one.predicted.empty:
        yield "ESTIMATED nanoseconds per operation, both ends (95 % interval), and over estimated userspace TLS:"
    known = one.predicted["reason"] == ""
    for row in _records(one.predicted[known]):
        yield f"  {_cell(row)}: {_figures(row)}{_measured(row)}"
    for reason, rows in one.predicted[~known].groupby("reason", sort=False):
        yield f"  REFUSED: {reason}: {'all ' * (not known.any())}{len(rows)} cell{'s' * (len(rows) > 1)}"
        for row in _records(rows):
            yield f"    {_cell(row)}{_measured(row)}"
    yield from one.notes


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def _cell(row: dict[str, Any]) -> str:
    name = f"{row['record_layer']}+{row['io_engine']} {row['suite']} {row['payload_bytes']} B {row['workload']}"
    return name + "".join(f", {row[what]} {what}" for what in ("depth", "connections") if row[what] > 1)


def _figures(row: dict[str, Any]) -> str:
    text = f"{row['estimate_ns']:,.0f} ({row['estimate_low']:,.0f} to {row['estimate_high']:,.0f}) ns"
    if not math.isnan(row["ratio"]):
        text += f", {row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f}) of userspace"
    return text


def _measured(row: dict[str, Any]) -> str:
    """Say what the cell takes here in truth, and how far the estimate is off; "" where that is not known."""
    if math.isnan(row["measured_ns"]):
        return ""
    text = f"; measured {row['measured_ns']:,.0f} ns"
    if not math.isnan(row["measured_ratio"]):
        text += f", {row['measured_ratio']:.2f} of userspace"
    return (
        text if row["reason"] else f"{text}; the estimate is off by {row['estimate_ns'] / row['measured_ns'] - 1:+.1%}"
    )
