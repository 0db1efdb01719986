"""What changed from one table to another: `ktlslab compare A B`.

Cells that both tables have are compared, B over A. The two runs share no block, so nothing cancels. The interval is
combined from each run's own (Zou and Donner's method of variance estimates recovery, 2008). The noise floor combines
the floors of both tables and the repeatability, by which two runs of the same thing differ anyway, as squares. A table
has hundreds of figures, and some would "change" by chance. So the false discovery rate over all of them is limited
(Benjamini and Hochberg, 1995): two runs of the same thing show any change at most 5 times in 100.

Tables with different clocks or units are not compared, nor those whose instructions different CPUs counted. Different
kernels, commits and versions are; the result lists what differs.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab._html import table
from ktlslab.errors import UsageError
from ktlslab.measure.analysis import (
    BLOCK,
    CELL,
    PLACE,
    QUANTITIES,
    decided,
    figures_of,
    floors_of,
    logarithms,
    one_fleet,
)
from ktlslab.measure.bootstrap import MIN_BLOCKS, student_tail, typical
from ktlslab.measure.plan import SETTING
from ktlslab.packages import extra
from ktlslab.runs import counting

with extra("lab"):
    import numpy as np
    import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# How much two runs of the same thing may differ; one run cannot show it. Wall clock: frequency, temperature, layout of
# memory and code. Instructions: what ktlslab promises for latency up to 16 KiB. CPU differs more, because one boot can
# be cheaper than another for all blocks: in two of six recordings of `standard`, receiving 4 KiB with kernel TLS on 6.1
# took 0.8 % less CPU.
REPEATABILITY = {"instructions": 0.005, "wall": 0.03}
_OF_CPU = {"instructions": 0.01, "wall": 0.03}
FALSE_DISCOVERIES = 0.05
_NAMED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "kernel": lambda run: run.get("kernel"),
    "CPU": lambda run: run.get("cpu"),
    "QEMU": lambda run: run.get("emulator"),
    "governor": lambda run: run.get("governor"),
    "commit": lambda run: run.get("commit"),
    "Python": lambda run: run.get("python"),
    "client's OpenSSL": lambda run: run.get("client_openssl"),
    "peer's OpenSSL": lambda run: run.get("peer_openssl"),
    "packages": lambda run: run.get("packages"),
    "crypto drivers": lambda run: run.get("crypto_drivers"),
    "mitigations": lambda run: run.get("mitigations"),
    "steps per sample": lambda run: run.get("plan", {}).get("steps"),
    "arm slowed on purpose": lambda run: run["plan"].get("handicap") or "none" if "plan" in run else None,
}
_MAX_LINES = 40
_MAX_ROWS = 15  # on a page, where the frame is at hand
_TRIED = "comparing two tables"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Difference:
    """Two tables compared. `cells` is the frame that `difference` returns; the rest is text."""

    cells: pd.DataFrame
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> pd.DataFrame:
        """The rows with a verdict, the largest change first."""
        rows = self.cells[self.cells["verdict"] != "none"]
        order = np.argsort(-np.abs(np.log(rows["ratio"].to_numpy(dtype=float))), kind="stable")
        return rows.take(order.tolist())

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        changed, cells = self.changed, len(self.cells.drop_duplicates([*PLACE, *CELL]))
        looked = f"{_many(len(self.cells), 'figure')} of {_many(cells, 'common cell')}"
        unknown = int(self.cells["reason"].isin(["blocks"]).sum())
        silent = f" {_many(unknown, 'figure')} had fewer than {MIN_BLOCKS} blocks in a table." if unknown else ""
        if changed.empty:
            return f"No difference found from A to B, in {looked}.{silent}"
        less, more = (int((changed["verdict"] == verdict).sum()) for verdict in ("less", "more"))
        first = changed.iloc[0]
        most = f"{QUANTITIES.get(first['quantity'], (first['quantity'],))[0]} of {cell_words(first)}"
        return (
            f"{_many(len(changed), 'difference')} found from A to B, in {looked}: {less} less, {more} more; the "
            f"largest is {percent(first['ratio'])} in {most}.{silent}"
        )

    def __str__(self) -> str:
        lines = [_line(row) for _, row in self.changed.head(_MAX_LINES).iterrows()]
        head = [f"{'B over A':>9} {'95 % interval':>20} {'noise':>8}  quantity and cell"] if lines else []
        more = len(self.changed) - len(lines)
        lines += [f"and {more} more; --json lists all"] if more else []
        return "\n".join([*head, *lines, *self._missing(), *self.notes, self.sentence])

    def _missing(self) -> list[str]:
        return [
            f"only in {name}: {_many(len(cells), 'cell')}, such as {cells[0]}"
            for name, cells in (("A", self.only_a), ("B", self.only_b))
            if cells
        ]

    def __repr__(self) -> str:
        return f"Difference({self.sentence})"

    def _repr_html_(self) -> str:
        changed = self.changed
        rows = [_row(row) for _, row in changed.head(_MAX_ROWS).iterrows()]
        more = len(changed) - len(rows)
        said = [
            self.sentence,
            *([f"The largest {len(rows)}, and {more:,} more in the frame that is called changed:"] if more else []),
        ]
        head = ("B over A", "95 % interval", "noise", "quantity", "cell", "kernels")
        drawn = table(head, rows, numbers=range(3)) if rows else ""
        notes = table((), [note.split(": ", 1) for note in [*self._missing(), *self.notes]])
        return f"<div>{'<br>'.join(map(escape, said))}{drawn}{notes}</div>"

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON types; NaN is null."""
        rows = json.loads(self.changed.to_json(orient="records", double_precision=10))
        return {
            "sentence": self.sentence,
            "compared": len(self.cells),
            "changed": rows,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "notes": self.notes,
        }


def difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    tolerance: float | None = None,
    quantities: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return what changed from `a` to `b`: a row per common cell and quantity. For arguments and errors see `compared`.

    Columns: B's place and the cell, `from_machine` and `from_kernel` (A's), quantity, ratio (b / a), low, high,
    blocks_a, blocks_b, floor, verdict ("less", "more" or "none"), and reason (why the verdict is "none": "blocks",
    "interval", "floor" or "chance").
    """
    return compared(a, b, tolerance, quantities).cells


def compared(
    a: pd.DataFrame,
    b: pd.DataFrame,
    tolerance: float | None = None,
    quantities: str | Sequence[str] | None = None,
) -> Difference:
    """Compare two tables. Places match by machine, or across machines where each table has only one per unit.

    `tolerance`: the repeatability of two runs, 0.01 for 1 %; the default is REPEATABILITY, or more for CPU. Raises
    UsageError where the tables have no unit, no machine or no cell in common, or other CPUs counted.
    """
    quantities = list(QUANTITIES) if quantities is None else figures_of(quantities)
    if tolerance is not None:
        tolerance = _checks.number(
            _TRIED, "tolerance", tolerance, 0, _checks.BELOW_ONE, source="a share, such as 0.01 for 1 %"
        )
    a, b = (
        one_fleet(_checks.frame(_TRIED, name, frame, [*PLACE, *CELL, "run_id"])) for name, frame in (("a", a), ("b", b))
    )
    places = matched(a, b)
    if answered := counting.difference(counting.counted(a), counting.counted(b)):
        raise UsageError(_TRIED, answered=answered, remedy=counting.REMEDY)
    parts, only_a, only_b = [], _missing(a, {one for one, _ in places}), _missing(b, {two for _, two in places})
    for one, two in places:
        here, there = at(a, one), at(b, two)
        part = _part(here, there, tolerance, quantities)
        parts.append(part.assign(**dict(zip(PLACE, two, strict=True)), from_machine=one[0], from_kernel=one[1]))
        ours, theirs = _cells(here), _cells(there)
        only_a += [f"{words} on {one[0]}" for cell, words in ours.items() if cell not in theirs]
        only_b += [f"{words} on {two[0]}" for cell, words in theirs.items() if cell not in ours]
    cells = pd.concat(parts, ignore_index=True)
    if cells.empty:
        remedy = "Sweep the same plan, or parts of it, twice."
        raise UsageError(_TRIED, answered="they have no cell in common", remedy=remedy)
    cells = _judged(cells)
    names = [*PLACE, "from_machine", "from_kernel", *CELL, "quantity", "ratio", "low", "high", "blocks_a", "blocks_b"]
    notes = [*_differing(a, b), *_without_floor(cells)]
    return Difference(cells=cells[[*names, "floor", "verdict", "reason"]], only_a=only_a, only_b=only_b, notes=notes)


def matched(a: pd.DataFrame, b: pd.DataFrame) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return the pairs of places to compare. UsageError where there are none."""
    ours, theirs = _places(a), _places(b)
    units = {place[3] for place in ours} & {place[3] for place in theirs}
    if not units:
        had = " and ".join(", ".join(sorted({place[3] for place in places})) for places in (ours, theirs))
        remedy = "Compare tables with the same clock: nanoseconds and instructions have no ratio."
        raise UsageError(_TRIED, answered=f"their units differ: {had}", remedy=remedy)
    found = []
    for unit in sorted(units):
        left = [place for place in ours if place[3] == unit]
        right = [place for place in theirs if place[3] == unit]
        for alike in ((0, 1, 4), (0, 4), (0,)):  # machine, kernel, host: the most of these that match uniquely
            for one in list(left):
                fit = [two for two in right if all(one[at] == two[at] for at in alike)]
                rivals = [other for other in left if all(one[at] == other[at] for at in alike)]
                if len(fit) == len(rivals) == 1:
                    found.append((one, fit[0]))
                    left.remove(one)
                    right.remove(fit[0])
        if len(left) == len(right) == 1 and not any(one[3] == unit for one, _ in found):
            found.append((left[0], right[0]))
    if not found:
        machines = " and ".join(", ".join(sorted({place[0] for place in places})) for places in (ours, theirs))
        remedy = "Compare one machine with one other: frame[frame.machine == ...] selects it."
        raise UsageError(_TRIED, answered=f"they have no machine in common: {machines}", remedy=remedy)
    return found


def at(frame: pd.DataFrame, place: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows of a place."""
    rows = frame[(frame[PLACE] == list(place)).all(axis=1)]
    rows.attrs = {}  # or each step would copy them
    return rows


def cell_words(row: Any) -> str:
    """Name a cell in one line, without its default values."""
    usual = {"depth": 1, "connections": 1, "record_size": 16384, "request_bytes": 0, "link": "loopback"}
    extra = [f"{name.replace('_', ' ')} {row[name]}" for name, value in usual.items() if row[name] != value]
    arm = f"{row['record_layer']}+{row['io_engine']}"
    return ", ".join([arm, *filter(None, [row["suite"]]), f"{row['workload']} {row['payload_bytes']} B", *extra])


def percent(ratio: float) -> str:
    """Return a ratio as a change: +3.1 %."""
    return f"{100 * (ratio - 1):+.2f} %"


def _part(a: pd.DataFrame, b: pd.DataFrame, tolerance: float | None, quantities: Sequence[str]) -> pd.DataFrame:
    """Return the ratios of the cells that both places have, with intervals, chance and floor."""
    both_logs = [logarithms(frame, quantities) for frame in (a, b)]
    ours, theirs = (_samples(logs, quantities) for logs in both_logs)
    common = [key for key in ours if key in theirs]
    one, two = (typical([samples[key] for key in common]) for samples in (ours, theirs))
    logs = [np.log(np.array(part)) for part in (one, two)]
    ratio = logs[1][0] - logs[0][0]
    low = ratio - np.hypot(logs[1][0] - logs[1][1], logs[0][2] - logs[0][0])
    high = ratio + np.hypot(logs[1][2] - logs[1][0], logs[0][0] - logs[0][1])
    result = pd.DataFrame(common, columns=[*CELL, "quantity"]).assign(
        ratio=np.exp(ratio), low=np.exp(low), high=np.exp(high)
    )
    result["chance"] = [_chance(ours[key], theirs[key]) for key in common]
    result["blocks_a"], result["blocks_b"] = ([len(samples[key]) for key in common] for samples in (ours, theirs))
    keys = [*SETTING, "quantity"]
    floors = [floors_of(logs, quantities)[[*keys, "floor"]] for logs in both_logs]
    both = result[keys].merge(floors[0], on=keys, how="left").merge(floors[1], on=keys, how="left")
    squares = both[["floor_x", "floor_y"]].map(lambda floor: math.log(floor) ** 2)
    clock, cpu = str(a["clock"].iloc[0]), result["quantity"].str.endswith("_cpu")
    usual = np.where(cpu, _OF_CPU[clock], REPEATABILITY[clock])
    between = np.log1p(usual if tolerance is None else tolerance)
    result["without"] = squares.isna().all(axis=1).to_numpy()
    result["floor"] = np.exp(np.sqrt(squares.mean(axis=1).fillna(0.0).to_numpy() + between**2))
    return result


def _samples(logs: pd.DataFrame, quantities: Sequence[str]) -> dict[tuple[Any, ...], Any]:
    logs = logs[logs["replica"] == 0].melt([*CELL, *BLOCK], list(quantities), var_name="quantity", value_name="log")
    groups = logs.dropna(subset="log").groupby([*CELL, "quantity"], sort=False)["log"]
    return {key: group.to_numpy(dtype=float) for key, group in groups}


def _chance(a: Any, b: Any) -> float:
    """Return the probability of such a difference of means by the blocks' noise alone: Welch's test, two-sided."""
    if min(len(a), len(b)) < MIN_BLOCKS:
        return math.nan
    parts = [float(np.var(sample, ddof=1)) / len(sample) for sample in (a, b)]
    apart = abs(float(np.mean(b) - np.mean(a)))
    if not sum(parts):
        return float(apart == 0)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, (a, b), strict=True))
    return 2 * student_tail(apart / math.sqrt(sum(parts)), freedom)


def _judged(cells: pd.DataFrame) -> pd.DataFrame:
    """Add verdict and reason, and take back what chance explains among so many."""
    cells = decided(cells)
    chances = cells["chance"].dropna().sort_values()
    allowed = FALSE_DISCOVERIES * np.arange(1, len(chances) + 1) / max(1, len(chances))
    passed = chances[chances.to_numpy() <= allowed]
    limit = float(passed.max()) if len(passed) else -1.0
    taken = (cells["verdict"] != "none") & ~(cells["chance"] <= limit)
    cells.loc[taken, ["verdict", "reason"]] = ["none", "chance"]
    return cells


def _places(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    return list(frame[PLACE].drop_duplicates().itertuples(index=False, name=None))


def _cells(frame: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    rows = frame[CELL].drop_duplicates()
    return {tuple(row[name] for name in CELL): cell_words(row) for _, row in rows.iterrows()}


def _missing(frame: pd.DataFrame, places: set[tuple[str, ...]]) -> list[str]:
    """Return the cells of the places that have no counterpart."""
    return [
        f"{words} on {place[0]} ({place[2]} clock)"
        for place in _places(frame)
        if place not in places
        for words in _cells(frame[(frame[PLACE] == list(place)).all(axis=1)]).values()
    ]


def _differing(a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    """Say what differs in the provenance of the tables."""
    notes = []
    for words, fact in _NAMED.items():
        one, two = (_facts(frame, fact) for frame in (a, b))
        for name in sorted({*one, *two}):
            ours, theirs = (sorted(found.get(name, {"unknown"})) for found in (one, two))
            if ours != theirs:
                said = f"{words}, {name}" if name else words
                notes.append(f"{said}: {', '.join(ours)} in A, {', '.join(theirs)} in B")
    return notes


def _facts(frame: pd.DataFrame, fact: Callable[[dict[str, Any]], Any]) -> dict[str, set[str]]:
    """Return the values of a fact in the runs of a frame: by name where it is a mapping, else under ""."""
    known = frame.attrs.get("provenance", {})
    found: dict[str, set[str]] = {}
    for run in frame["run_id"].unique():
        told = fact(known.get(run, {}))
        for name, value in (told if isinstance(told, dict) else {"": told}).items():
            if value not in (None, "", {}):
                found.setdefault(name, set()).add(str(value))
    return found


def _without_floor(cells: pd.DataFrame) -> list[str]:
    many = int(cells["without"].sum())
    told = f"{_many(many, 'figure')} without an A/A arm in either table: judged only by the repeatability of two runs"
    return [told] if many else []


def _row(row: pd.Series) -> tuple[str, ...]:
    """Return a difference in words: ratio, interval, noise, quantity, cell, from where to where."""
    name = QUANTITIES.get(row["quantity"], (row["quantity"],))[0]
    span = f"{percent(row['low'])} to {percent(row['high'])}"
    where = row["machine"] if row["machine"] == row["from_machine"] else f"{row['from_machine']} -> {row['machine']}"
    return percent(row["ratio"]), span, f"{100 * (row['floor'] - 1):.2f} %", name, cell_words(row), where


def _line(row: pd.Series) -> str:
    ratio, span, noise, name, cell, where = _row(row)
    return f"{ratio:>9} {span:>20} {noise:>8}  {name}, {cell} ({where})"


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"
