"""A profile: its frames, and how they are written and read.

NAME.parquet holds the functions, NAME.tree.parquet the call trees, NAME.json the provenance.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from ktlslab import _checks
from ktlslab.errors import TableError
from ktlslab.measure.plan import Cell
from ktlslab.packages import require
from ktlslab.profiling.classes import INTERRUPTS, KERNEL, USER, class_of, name_of
from ktlslab.profiling.counting import Count
from ktlslab.profiling.trees import Node
from ktlslab.runs.storage import beside, store, unreadable

CELL = tuple(field.name for field in fields(Cell) if field.name != "replica")
WHERE = ("run_id", "machine", "kernel", *CELL)
COLUMNS = (*WHERE, "end", "mode", "class", "object", "function", "instructions", "calls")
TREE_COLUMNS = (*WHERE, "end", "node", "parent", "depth", *COLUMNS[-6:-1], "total", "calls")
_TREE = "tree"
_SOURCE = "one that `ktlslab profile -o` wrote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The instructions of the cells of a plan. `functions`, `trees`: see `ktlslab.profiling`."""

    functions: pd.DataFrame
    trees: pd.DataFrame

    @property
    def provenance(self) -> dict[str, Any]:
        """The runs, by run_id; `cells` in each compares the counts with the clock."""
        found: dict[str, Any] = self.functions.attrs["provenance"]
        return found

    def classes(self) -> pd.DataFrame:
        """Return instructions per operation: a row per class, the largest first, a column per cell and end."""
        varying = [name for name in ("machine", *CELL) if len(self.functions[name].unique()) > 1]
        table = self.functions.pivot_table(
            "instructions", ["mode", "class"], [*varying, "end"], aggfunc="sum", fill_value=0, sort=False
        )
        return table.loc[table.sum(axis=1).sort_values(ascending=False).index]

    def write(self, path: Path) -> None:
        """Write it, completely or not at all. StorageError where it cannot be written."""
        store(self.functions, path, **{_TREE: self.trees})

    def __str__(self) -> str:
        shown = self.classes().round().astype(int)
        return shown.to_string()


def rows_of(about: Mapping[str, Any], counts: Iterable[Count], operations: int) -> list[dict[str, Any]]:
    """Return the rows of one cell. `about`: the cell's fields and where it was run."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in counts:
        mode = KERNEL if one.in_kernel else USER
        kind = INTERRUPTS if one.interrupt else class_of(mode, one.place.object, one.place.function)
        key = (one.end, mode, name_of(kind, about["suite"]), one.place.object, one.place.function)
        row = rows.setdefault(
            key, {**about, **dict(zip(COLUMNS[len(WHERE) : -2], key, strict=True)), "instructions": 0, "calls": 0}
        )
        row["instructions"] += one.instructions
        row["calls"] += one.calls
    for row in rows.values():
        row["instructions"] /= operations
        row["calls"] /= operations
    return sorted(rows.values(), key=lambda row: -row["instructions"])


def nodes_of(about: Mapping[str, Any], roots: Mapping[str, Node], operations: int) -> list[dict[str, Any]]:
    """Return the rows of one cell's call trees: each function before those that it called."""
    rows: list[dict[str, Any]] = []
    for end, root in roots.items():
        numbers = {-1: -1}  # of the latest node at each depth
        for number, (depth, node) in enumerate(root.walk()):
            numbers[depth] = number
            mode, place = KERNEL if node.in_kernel else USER, node.place
            kind = name_of(class_of(mode, place.object, place.function), about["suite"])
            figures = (node.instructions / operations, node.total() / operations, node.calls / operations)
            values = (end, number, numbers[depth - 1], depth, mode, kind, place.object, place.function, *figures)
            rows.append({**about, **dict(zip(TREE_COLUMNS[len(WHERE) :], values, strict=True))})
    return rows


def to_profile(rows: list[dict[str, Any]], nodes: list[dict[str, Any]], runs: dict[str, Any]) -> Profile:
    """Return the profile of these rows, nodes of call trees, and runs."""
    functions = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"instructions": float, "calls": float})
    functions.attrs["provenance"] = runs
    return Profile(functions=functions, trees=pd.DataFrame(nodes, columns=list(TREE_COLUMNS)))


def is_profile(path: Path) -> bool:
    """Whether a file is a profile, not a table of samples or no table at all."""
    return path.exists() and beside(path, _TREE).exists()


def read_profile(path: str | Path) -> Profile:
    """Read a profile that `ktlslab profile` wrote. TableError where it is none."""
    require("lab", "pandas", "pyarrow")
    path = _checks.path("reading a profile", "path", path)
    try:
        frame, trees = pd.read_parquet(path), pd.read_parquet(beside(path, _TREE))
        provenance = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"reading {path}", answered=unreadable(path, error), remedy=f"Give {_SOURCE}.") from error
    missing = [name for name in COLUMNS if name not in frame] + [name for name in TREE_COLUMNS if name not in trees]
    if missing:
        answered = f"it lacks the columns {', '.join(missing)}"
        raise TableError(f"reading {path}", answered=answered, remedy=f"Give {_SOURCE}.")
    frame.attrs["provenance"] = provenance
    return Profile(functions=frame, trees=trees)
