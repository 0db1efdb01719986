"""A profile: its frames, and how they are written and read.

NAME.parquet holds the functions, NAME.tree.parquet the call trees, NAME.json the provenance.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

from ktlslab import _checks
from ktlslab._html import table
from ktlslab.errors import TableError
from ktlslab.measure.plan import Cell
from ktlslab.packages import extra, require
from ktlslab.profiling.classes import INTERRUPTS, KERNEL, USER, class_of, name_of
from ktlslab.profiling.counting import CLIENT, PEER, Count
from ktlslab.profiling.trees import Node
from ktlslab.runs.storage import beside, store, table_path, unreadable
from ktlslab.tls.suites import Suite

with extra("lab"):
    import pandas as pd

CELL = tuple(field.name for field in fields(Cell) if field.name != "replica")
USUAL = {
    field.name: field.default
    for field in fields(Cell)
    if field.name in {"depth", "connections", "record_size", "link", "request_bytes"}
}
WHERE = ("run_id", "machine", "kernel", *CELL)
COLUMNS = (*WHERE, "end", "mode", "class", "object", "function", "instructions", "calls")
TREE_COLUMNS = (*WHERE, "end", "node", "parent", "level", *COLUMNS[-6:-1], "total", "calls")
_TREE = "tree"
# Of the trees: what the order and the levels of the nodes do not tell.
_WRITTEN = tuple(name for name in TREE_COLUMNS if name not in {"node", "parent", "total"})
_SOURCE = "one that `ktlslab profile -o` wrote"
_UNIT = "instructions per operation"
_MAX_PARTS = 8  # on a page


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

    @property
    def typical(self) -> pd.DataFrame:
        """The functions, as in `functions`, of the operation that stands for all (`ktlslab.profiling.typical`)."""
        by = list(COLUMNS[:-2])
        return self.trees.groupby(by, as_index=False, sort=False)[["instructions", "calls"]].sum()

    def classes(self, frame: pd.DataFrame | None = None) -> pd.DataFrame:
        """Return instructions per operation: a row per class, the largest first, a column per cell and end.

        `frame`: some of the rows of `functions`. Only the fields that differ among its cells are in the columns' names.
        """
        rows = self.functions if frame is None else frame
        varying = [name for name in ("machine", *CELL) if len(rows[name].unique()) > 1]
        table = rows.pivot_table(
            "instructions", ["mode", "class"], [*varying, "end"], aggfunc="sum", fill_value=0, sort=False
        )
        return table.loc[table.sum(axis=1).sort_values(ascending=False).index]

    def write(self, path: str | Path) -> None:
        """Write it, completely or not at all. StorageError where it cannot be written."""
        store(self.functions, table_path("writing a profile", "path", path), **{_TREE: self.trees[list(_WRITTEN)]})

    def __str__(self) -> str:
        """Return a table per setting and suite: a column per arm, of the client and of the peer."""
        return "\n\n".join(f"{name}: {_UNIT}\n{_aligned(lines)}" for name, lines in self._parts())

    def _parts(self) -> Iterator[tuple[str, list[list[str]]]]:
        """Yield for each setting, suite and end its name and its lines: the head, then class, mode and numbers."""
        alike = [name for name in ("machine", *CELL) if name not in {"record_layer", "io_engine", "tls_version"}]
        for end in (CLIENT, PEER):
            for key, rows in self.functions[self.functions["end"] == end].groupby(alike, sort=False):
                name = cell_name({**dict(zip(alike, key, strict=True)), "end": end})
                arms = rows["record_layer"] + "+" + rows["io_engine"]
                table = rows.assign(arm=arms).pivot_table(
                    "instructions", ["class", "mode"], "arm", aggfunc="sum", fill_value=0, sort=False
                )
                table = table.loc[table.max(axis=1).sort_values(ascending=False).index]
                table.loc[("in all", ""), :] = table.sum()
                shown = [["", "", *map(str, table.columns)]]
                shown += [
                    [*index, *(f"{value:,.0f}" for value in row)]
                    for index, row in zip(table.index, table.to_numpy(), strict=True)
                ]
                yield name, shown

    def _repr_html_(self) -> str:
        every = list(self._parts())
        parts = [
            f"<summary>{escape(name)}</summary>{table(head, rows, numbers=range(2, len(head)))}"
            for name, (head, *rows) in every[:_MAX_PARTS]
        ]
        folded = "".join(f"<details{' open' * (at == 0)}>{part}</details>" for at, part in enumerate(parts))
        more = len(every) - len(parts)
        said = f"<div>and {more} more: functions has them all, classes() in a table</div>" if more > 0 else ""
        return f"<div>Profile: {_UNIT}{folded}{said}</div>"


def cell_name(named: Mapping[str, Any]) -> str:
    """Name a cell for people by those of its fields that are given; its end and machine as well."""
    arm = "+".join(str(named[name]) for name in ("record_layer", "io_engine") if name in named)
    suite = [_suite_name(str(named["suite"]))] if "suite" in named else []
    size = f" of {named['payload_bytes']:,} B" if "payload_bytes" in named else ""
    said = [f"{named.get('workload', 'operations')}{size}", *([arm] if arm else []), *suite]
    said += [f"{name} {named[name]}" for name in USUAL if named.get(name, USUAL[name]) != USUAL[name]]
    said += [f"Linux {named['machine']}"] if "machine" in named else []
    return f"{', '.join(said)}{': the ' + named['end'] if 'end' in named else ''}"


def _suite_name(name: str) -> str:
    suite = Suite.__members__.get(name)
    return f"{suite.cipher.name}, {suite.version.label}" if suite else name or "no TLS"


def _aligned(lines: list[list[str]]) -> str:
    """Return lines in columns: two of words, then numbers."""
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            f"{word:<{width}}" if at < 2 else f"{word:>{width}}"
            for at, (word, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


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
        for level, node in root.walk():
            mode, place = KERNEL if node.in_kernel else USER, node.place
            kind = name_of(class_of(mode, place.object, place.function), about["suite"])
            figures = (node.instructions / operations, node.calls / operations)
            values = (end, level, mode, kind, place.object, place.function, *figures)
            rows.append({**about, **dict(zip(_WRITTEN[len(WHERE) :], values, strict=True))})
    return rows


def to_profile(rows: list[dict[str, Any]], nodes: list[dict[str, Any]], runs: dict[str, Any]) -> Profile:
    """Return the profile of these rows, nodes of call trees, and runs."""
    functions = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"instructions": float, "calls": float})
    functions.attrs["provenance"] = runs
    return Profile(functions=functions, trees=_completed(pd.DataFrame(nodes, columns=list(_WRITTEN))))


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
        answered = unreadable(path, error)
        if path.is_file() and not is_profile(path):
            answered = f"it is no profile: beside one lies {beside(path, _TREE).name}"
        raise TableError(f"reading {path}", answered=answered, remedy=f"Give {_SOURCE}.") from error
    # Profiles from before the workload `serve` lack it.
    frame, trees = (one if "request_bytes" in one else one.assign(request_bytes=0) for one in (frame, trees))
    for run in provenance.values():
        for check in run.get("cells", ()):
            check.setdefault("request_bytes", 0)
    missing = [name for name in COLUMNS if name not in frame] + [name for name in _WRITTEN if name not in trees]
    if missing:
        answered = f"it lacks the columns {', '.join(missing)}"
        raise TableError(f"reading {path}", answered=answered, remedy=f"Give {_SOURCE}.")
    frame.attrs["provenance"] = provenance
    return Profile(functions=frame, trees=_completed(trees))


def _completed(trees: pd.DataFrame) -> pd.DataFrame:
    """Return trees with the columns that are not written: each node comes before those that it called."""
    node: list[int] = []
    parent: list[int] = []
    total = trees["instructions"].tolist()
    way: list[int] = []  # the rows of the callers, outermost first
    first = 0  # the row of the tree's first node
    same = [*WHERE, "end"]
    begins = (trees[same] != trees[same].shift()).any(axis=1)
    for row, (level, new) in enumerate(zip(trees["level"].tolist(), begins.tolist(), strict=True)):
        if new:
            first, way = row, []
        del way[level:]
        node.append(row - first)
        parent.append(way[-1] - first if way else -1)
        way.append(row)
    for row in range(len(total) - 1, -1, -1):
        if parent[row] >= 0:
            total[row - node[row] + parent[row]] += total[row]
    return trees.assign(node=node, parent=parent, total=total)[list(TREE_COLUMNS)]
