"""What made the difference between two profiles: which classes, and which functions.

Cells of A and B that stand for the same thing are paired. A field of the cell that has one value in A and another in B
is what is compared (the kernels, or the record layers, or two payloads); all other fields must be equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from ktlslab import _checks
from ktlslab._html import Html, table
from ktlslab.errors import UsageError
from ktlslab.profiling.classes import INTERRUPTS
from ktlslab.profiling.counting import MACHINE
from ktlslab.profiling.frames import CELL, Profile, cell_name

if TYPE_CHECKING:
    import pandas as pd

REPEATABILITY = 0.002  # share of a cell's instructions by which a function of two equal runs may differ
_FUNCTION = ["mode", "class", "object", "function"]
_FIELDS = ("machine", *CELL)
_MAX_CLASSES, _MAX_FUNCTIONS = 8, 4  # in a class
_WIDTH = 11  # of a column
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
        by = [*self._cell, "end", "class"]
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
        if self.changed.empty:
            return f"Compared {compared}: no function differs by more than {self.tolerance:.1%} of its cell."
        ends = self._ends()
        cells = ends[self._cell].drop_duplicates()
        a, b = ends[["instructions_a", "instructions_b"]].sum() / max(1, len(cells))
        first = self.classes.iloc[0]
        who = " and ".join(ends["end"].unique())
        who = f"{who} together take" if " and " in who else f"the {who} takes"
        pairs = f"{len(cells)} pairs of cells" if len(cells) > 1 else "one pair of cells"
        return (
            f"Compared {compared}: {len(self.changed)} functions differ. Per operation {who} {a:,.0f} instructions in "
            f"A and {b:,.0f} in B ({b / a - 1 if a else 0:+.1%}, {pairs}). The class that differs most is "
            f"{first['class']} of the {first['end']}: {first['difference']:+,.0f}."
        )

    def parts(self) -> list[tuple[str, list[_Line]]]:
        """Return for each pair of cells and end: its name, and its lines: the sum, classes, each with its functions.

        The largest difference is first. What differs by less than `tolerance` of the cell is one line, the last.
        """
        found = []
        for key, some in self._ends().groupby([*self._cell, "end"], sort=False):
            named = dict(zip([*self._cell, "end"], key, strict=True))
            same = (self.changed[list(named)] == list(key)).all(axis=1)
            found.append((cell_name(named), self._lines(some, self.changed[same])))
        return found

    def _ends(self) -> pd.DataFrame:
        """Return the classes of client and peer: the machine's own threads run by chance."""
        return self.classes[self.classes["end"] != MACHINE]

    def _lines(self, classes: pd.DataFrame, changed: pd.DataFrame) -> list[_Line]:
        heads, whole = self._heads(), _sums(classes)
        lines = [_Line(*whole, "in all")]
        rest = classes
        for at, one in classes.head(_MAX_CLASSES).iterrows():
            if abs(one["difference"]) <= self.tolerance * whole[0]:
                break
            rest = rest.drop(index=at)
            lines.append(_Line(one["instructions_a"], one["instructions_b"], str(one["class"])))
            inside = changed[changed["class"] == one["class"]]
            for _, each in inside.head(_MAX_FUNCTIONS).iterrows():
                lines.append(_Line(each["instructions_a"], each["instructions_b"], "", _function(each, *heads)))
        if len(rest):
            lines.append(_Line(*_sums(rest), f"{len(rest)} classes that differ less"))
        return lines

    def _heads(self) -> tuple[str, str]:
        """Return what stands above the two columns: the values that are compared, where these are short."""
        values = [str(value) for pair in self.of.values() for value in pair]
        if len(values) == 2 and all(0 < len(value) <= _WIDTH for value in values):
            return values[0], values[1]
        return "A", "B"

    def __str__(self) -> str:
        head = "".join(f"{word:>{_WIDTH + 1}}" for word in (*self._heads(), "difference"))
        lines = []
        for name, some in self.parts():
            lines += [name, head]
            for one in some:
                figures = "".join(f"{word:>{_WIDTH + 1}}" for word in one.figures())
                lines.append(f"{figures}  {one.kind}{'    ' * bool(one.function)}{one.function}")
            lines.append("")
        return "\n".join([*lines, self.sentence])

    def __repr__(self) -> str:
        return f"ProfileDifference({self.sentence})"

    def _repr_html_(self) -> str:
        heads = (*self._heads(), "difference", "class, and its functions")
        parts = {}
        for name, lines in self.parts():
            rows = [(*one.figures(), one.function or Html(f"<b>{escape(one.kind)}</b>")) for one in lines]
            parts[escape(name)] = table(heads, rows, numbers=range(3))
        wrap = "<div><div>{}</div>{}</div>" if len(parts) == 1 else "<details><summary>{}</summary>{}</details>"
        return f"<div>{escape(self.sentence)}{''.join(wrap.format(*both) for both in parts.items())}</div>"

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON types."""
        return {
            "sentence": self.sentence,
            "compared": {name: [str(value) for value in pair] for name, pair in self.of.items()},
            "classes": json.loads(self.classes.to_json(orient="records")),
            "changed": json.loads(self.changed.to_json(orient="records")),
        }


class _Line(NamedTuple):
    """A line of the text: instructions in A and in B, and the class or the function that they are of."""

    a: float
    b: float
    kind: str
    function: str = ""

    def figures(self) -> tuple[str, str, str]:
        return f"{self.a:,.0f}", f"{self.b:,.0f}", f"{self.b - self.a:+,.0f}"


def _sums(rows: pd.DataFrame) -> tuple[float, float]:
    return float(rows["instructions_a"].sum()), float(rows["instructions_b"].sum())


def _function(row: pd.Series, name_a: str, name_b: str) -> str:
    """Name a function, and say how often it is called in A and in B, which have these names."""
    a, b = (f"{row[name]:.4g}" for name in ("calls_a", "calls_b"))
    only = f"only in {name_a}, " * (not row["instructions_b"]) or f"only in {name_b}, " * (not row["instructions_a"])
    calls = (b if not row["instructions_a"] else a) if only or a == b else f"{a} -> {b}"
    return f"{row['function'] or '?'} [{row['object']}]: {only}{calls} {'call' if calls == '1' else 'calls'}"


def compared(
    a: Profile,
    b: Profile,
    *,
    a_only: Mapping[str, Any] | None = None,
    b_only: Mapping[str, Any] | None = None,
    typical: bool = False,
    tolerance: float = REPEATABILITY,
) -> ProfileDifference:
    """Compare two profiles, or two parts of one.

    `a_only`, `b_only`: fields of the cell, or `machine` or `end`, with the value that A's (B's) cells have:
    {"record_layer": "kernel"}. `typical`: of each end compare the operation that stands for all, in which two runs
    agree best; by default the mean of all operations. UsageError where no cell of A has its like in B.
    """
    _checks.number(_TRIED, "tolerance", tolerance, 0.0, 1.0, source="a share, such as 0.01")
    ones = []
    for name, one, only in (("a", a, a_only), ("b", b, b_only)):
        profile = _checks.instance(_TRIED, name, one, Profile, "ktlslab.read_profile")
        ones.append(selected(profile.typical if typical else profile.functions, only or {}))
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
