"""What made the difference between two profiles: which classes, and which functions.

Cells of A and B that stand for the same thing are paired. A field of the cell that has one value in A and another in B
is what is compared (the kernels, or the record layers, or two payloads); all other fields must be equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab._html import table
from ktlslab.errors import UsageError
from ktlslab.profiling.classes import INTERRUPTS
from ktlslab.profiling.counting import MACHINE
from ktlslab.profiling.frames import CELL, Profile

if TYPE_CHECKING:
    import pandas as pd

REPEATABILITY = 0.002  # share of a cell's instructions by which a function of two equal runs may differ
_FUNCTION = ["mode", "class", "object", "function"]
_FIELDS = ("machine", *CELL)
_MAX_CLASSES, _MAX_FUNCTIONS = 8, 12
_TRIED = "comparing two profiles"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ProfileDifference:
    """Two profiles compared.

    `functions` has a row per pair of cells, end and function: `instructions_a`, `instructions_b`, `calls_a`, `calls_b`
    per operation, and `difference`, B minus A, the largest first. `classes` has the same by class. `of`: the fields
    that are compared, with their values in A and B. `tolerance`: the share of a cell by which a function may differ.
    """

    functions: pd.DataFrame
    of: Mapping[str, tuple[Any, Any]]
    tolerance: float

    @property
    def classes(self) -> pd.DataFrame:
        by = [*self._cell, "end", "mode", "class"]
        sums = self.functions.groupby(by, as_index=False, sort=False)[["instructions_a", "instructions_b"]].sum()
        sums["difference"] = sums["instructions_b"] - sums["instructions_a"]
        return sums.sort_values("difference", key=lambda one: -one.abs(), kind="stable", ignore_index=True)

    @property
    def changed(self) -> pd.DataFrame:
        """The functions that differ by more than two equal runs do, at either end; other threads run by chance."""
        total = self.functions.groupby([*self._cell, "end"])["instructions_a"].transform("sum")
        differs = self.functions["difference"].abs() > self.tolerance * total
        by_chance = (self.functions["class"] == INTERRUPTS) | (self.functions["end"] == MACHINE)
        return self.functions[differs & ~by_chance]

    @property
    def _cell(self) -> list[str]:
        return [name for name in _FIELDS if name in self.functions]

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        compared = " and ".join(f"{name} {a} (A) with {b} (B)" for name, (a, b) in self.of.items()) or "A with B"
        cells = self.functions.groupby([*self._cell, "end"])
        sums = self.functions[["instructions_a", "instructions_b"]].sum() / max(1, cells.ngroups)
        if self.changed.empty:
            return f"Compared {compared}: no function differs by more than {self.tolerance:.1%} of its cell."
        first = self.classes.iloc[0]
        where = f"in {first['class']} ({first['mode']}) of the {first['end']}"
        return (
            f"Compared {compared}: {len(self.changed)} functions differ. On average over {cells.ngroups} ends of cells "
            f"B takes {sums['instructions_b']:,.0f} instructions per operation where A takes "
            f"{sums['instructions_a']:,.0f}; the largest difference is {first['difference']:+,.0f}, {where}."
        )

    def parts(self) -> list[tuple[str, pd.DataFrame, pd.DataFrame]]:
        """Return for each pair of cells and end: its name, its classes and its functions, the largest first."""
        found, classes, changed = [], self.classes, self.changed
        for key, some in classes.groupby([*self._cell, "end"], sort=False):
            same = (changed[[*self._cell, "end"]] == list(key)).all(axis=1)
            name = ", ".join(f"{value}" for value in key if value != "")
            found.append((name, some, changed[same]))
        return found

    def __str__(self) -> str:
        lines = []
        for name, classes, functions in self.parts():
            lines += [name, f"{'A':>12} {'B':>12} {'B - A':>12}"]
            a, b = classes["instructions_a"].sum(), classes["instructions_b"].sum()
            lines.append(f"{a:12,.0f} {b:12,.0f} {b - a:+12,.0f}  in all")
            for _, one in classes.head(_MAX_CLASSES).iterrows():
                lines.append(f"{_figures(one)}  {one['class']} ({one['mode']})")
            for _, one in functions.head(_MAX_FUNCTIONS).iterrows():
                lines.append(f"{_figures(one)}      {_function(one)}: {one['class']}")
        return "\n".join([*lines, self.sentence])

    def __repr__(self) -> str:
        return f"ProfileDifference({self.sentence})"

    def _repr_html_(self) -> str:
        parts = []
        for name, classes, functions in self.parts():
            shown = [
                (*_figures(one).split(), f"{one['class']} ({one['mode']})", _function(one) if "function" in one else "")
                for some, most in ((classes, _MAX_CLASSES), (functions, _MAX_FUNCTIONS))
                for _, one in some.head(most).iterrows()
            ]
            drawn = table(("A", "B", "B - A", "class", "function"), shown, numbers=range(3))
            parts.append(f"<details><summary>{escape(name)}</summary>{drawn}</details>")
        return f"<div>{escape(self.sentence)}{''.join(parts)}</div>"

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON types."""
        return {
            "sentence": self.sentence,
            "compared": {name: [str(value) for value in pair] for name, pair in self.of.items()},
            "classes": json.loads(self.classes.to_json(orient="records")),
            "changed": json.loads(self.changed.to_json(orient="records")),
        }


def _figures(row: pd.Series) -> str:
    return f"{row['instructions_a']:12,.0f} {row['instructions_b']:12,.0f} {row['difference']:+12,.0f}"


def _function(row: pd.Series) -> str:
    calls = (
        f"{row['calls_a']:.4g}" if row["calls_a"] == row["calls_b"] else f"{row['calls_a']:.4g} -> {row['calls_b']:.4g}"
    )
    return f"{row['function'] or '?'} [{row['object']}], calls {calls}"


def compared(
    a: Profile,
    b: Profile,
    *,
    a_only: Mapping[str, Any] | None = None,
    b_only: Mapping[str, Any] | None = None,
    tolerance: float = REPEATABILITY,
) -> ProfileDifference:
    """Compare two profiles, or two parts of one.

    `a_only`, `b_only`: fields of the cell, or `machine` or `end`, with the value that A's (B's) cells have:
    {"record_layer": "kernel"}. UsageError where no cell of A has its like in B.
    """
    _checks.number(_TRIED, "tolerance", tolerance, 0.0, 1.0, source="a share, such as 0.01")
    ones = [
        selected(_checks.instance(_TRIED, name, one, Profile, "ktlslab.read_profile").functions, only or {})
        for name, one, only in (("a", a, a_only), ("b", b, b_only))
    ]
    of: dict[str, tuple[Any, Any]] = {}
    for name in (*_FIELDS, "end"):
        values = [one[name].unique() for one in ones]
        if all(len(value) == 1 for value in values) and values[0][0] != values[1][0]:
            of[name] = (values[0][0], values[1][0])
    cell = [name for name in (*_FIELDS, "end") if name not in of]
    sums = [one.groupby([*cell, *_FUNCTION], as_index=False)[["instructions", "calls"]].sum() for one in ones]
    pairs = sums[0][cell].drop_duplicates().merge(sums[1][cell].drop_duplicates())
    if pairs.empty:
        remedy = "Compare profiles of one plan, or choose cells: --a record_layer=kernel --b record_layer=userspace."
        raise UsageError(_TRIED, answered="no cell of A has its like in B", remedy=remedy)
    left, right = (pairs.merge(one) for one in sums)
    found = left.merge(right, on=[*cell, *_FUNCTION], how="outer", suffixes=("_a", "_b")).fillna(0.0)
    if "end" in of:
        found["end"] = " and ".join(of["end"])
    found["difference"] = found["instructions_b"] - found["instructions_a"]
    found = found.sort_values("difference", key=lambda one: -one.abs(), kind="stable", ignore_index=True)
    return ProfileDifference(functions=found, of=of, tolerance=tolerance)


def selected(frame: pd.DataFrame, only: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of a profile's frame whose fields have these values, given as such or as text."""
    for name, value in only.items():
        if name not in (*_FIELDS, "end"):
            known = ", ".join((*_FIELDS, "end"))
            raise UsageError("choosing cells of a profile", answered=f"no field {name!r}", remedy=f"Fields: {known}.")
        chosen = frame[frame[name].astype(str) == str(value)]
        if chosen.empty:
            have = ", ".join(sorted(frame[name].astype(str).unique()))
            answered = f"no cell has {name} {value!r}"
            raise UsageError("choosing cells of a profile", answered=answered, remedy=f"There are {have}.")
        frame = chosen
    return frame


def chosen(text: str) -> dict[str, str]:
    """Read a choice of cells: record_layer=kernel,payload_bytes=64. UsageError for anything else."""
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(name.strip() and equals for name, equals, _ in parts):
        remedy = "Write FIELD=VALUE, and commas between them: record_layer=kernel,payload_bytes=64."
        raise UsageError("choosing cells of a profile", answered=f"{text!r} is no choice", remedy=remedy)
    return {name.strip(): value.strip() for name, _, value in parts}
