"""Which sample is next, and when there are enough. Pure functions: the worker and the sweep both use them.

The settings take turns, one block each, so that slow drift affects all settings alike. Only those of `serve` with other
numbers of connections follow each other: a number's sessions are open alone. Where the plan has a precision, a setting
gets further blocks until the 95 % intervals of its arms' costs are narrow enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ktlslab.measure.plan import Cell, Plan, Setting, shuffled

# The figures whose intervals must be narrow: time and CPU per operation.
JUDGED = ("latency_p50", "client_cpu")
MIN_BLOCKS = 4  # with fewer, a standard deviation says little
# Student's t, two-sided 95 %, by degrees of freedom; beyond the table the last value, a little too wide.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
_T_BEYOND = 2.13

Sample = tuple[int, int, Cell]  # repeat, position in its block, cell


class Blocks:
    """The samples of a plan that are still to be taken.

    Iterating yields (repeat, position, cell). Pass each resulting row to `take` before asking for the next sample.
    `rows` are those of earlier, interrupted runs; an incomplete block among them is measured again as a whole, because
    the machine has changed since. `settings` limits it to some of the plan's settings; `left_out` names arms that the
    machine cannot run (`Cell.session_name`). `whole`: rows are of complete blocks only, whatever arms these lack.
    """

    def __init__(
        self,
        plan: Plan,
        rows: Iterable[Mapping[str, Any]] = (),
        settings: Sequence[Setting] | None = None,
        left_out: Iterable[str] = (),
        *,
        whole: bool = False,
    ) -> None:
        self._plan = plan
        every = plan.settings()
        self._settings = {name: every[name] for name in (every if settings is None else settings)}
        for arm in left_out:
            self.leave_out(arm)
        self._taken: dict[Setting, dict[int, dict[Cell, tuple[float, ...]]]] = {name: {} for name in self._settings}
        for row in unbroken(rows):
            self.take(row)
        for setting, cells in self._settings.items():
            taken = self._taken[setting]
            complete = {repeat: block for repeat, block in taken.items() if whole or block.keys() >= set(cells)}
            self._taken[setting] = complete

    def take(self, row: Mapping[str, Any]) -> None:
        """Record a sample. KeyError where its setting is not among those asked for."""
        cell = cell_of(row)
        figures = tuple(float(row[name]) for name in JUDGED)
        self._taken[cell.setting].setdefault(int(row["repeat"]), {})[cell] = figures

    def leave_out(self, arm: str) -> None:
        """Expect no sample of that arm."""
        for setting, cells in self._settings.items():
            self._settings[setting] = [cell for cell in cells if cell.session_name != arm]

    def done(self, row: Mapping[str, Any]) -> bool:
        """Whether a sample's block is kept, not measured again."""
        return int(row["repeat"]) in self._taken[cell_of(row).setting]

    def left(self) -> int:
        """How many samples are certain to follow: those of the plan's own repeats, and of further blocks once begun."""
        sure = 0
        for setting, cells in self._settings.items():
            blocks = set(range(self._plan.repeats)) | set(self._taken[setting])
            sure += sum(len(cells) - len(self._taken[setting].get(repeat, ())) for repeat in blocks)
        return sure

    def __iter__(self) -> Iterator[Sample]:
        for some in self._turns():
            repeat = 0
            while wanting := [setting for setting in some if self._wants(setting, repeat)]:
                for setting in wanting:
                    done = self._taken[setting].get(repeat, {})
                    order = shuffled(self._settings[setting], self._plan.seed, setting, repeat)
                    for position, cell in enumerate(order):
                        if cell not in done and cell in self._settings[setting]:
                            yield repeat, position, cell
                repeat += 1

    def _turns(self) -> list[list[Setting]]:
        """Return the settings in groups that take turns."""
        found: dict[Any, list[Setting]] = {}
        for setting, cells in self._settings.items():
            found.setdefault(cells[0].room if cells else None, []).append(setting)
        return list(found.values())

    def _wants(self, setting: Setting, repeat: int) -> bool:
        plan = self._plan
        if repeat < plan.repeats or repeat in self._taken[setting]:
            return True
        return bool(plan.precision) and repeat < plan.max_repeats and self.widest(setting) > plan.precision

    def widest(self, setting: Setting) -> float:
        """Return the widest half interval of an arm's cost over the setting's first arm, as a share; inf if unknown."""
        if not self._settings[setting]:
            return 0.0
        first, *others = self._settings[setting]
        blocks = [block for block in self._taken[setting].values() if len(block) == len(others) + 1]
        if len(blocks) < MIN_BLOCKS:
            return math.inf
        pairs = [
            [(block[cell][at], block[first][at]) for block in blocks] for cell in others for at in range(len(JUDGED))
        ]
        ratios = [[math.log(one / other) for one, other in pair if one > 0 and other > 0] for pair in pairs]
        # NaN, from a clock that is too coarse, does not count.
        return math.expm1(max((half_width(some) for some in ratios if len(some) >= MIN_BLOCKS), default=0.0))


def unbroken(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of each block's last run: no block is put together from two runs.

    The rows may be from several machines, the earliest run's first.
    """
    rows = list(rows)
    last = {_block_of(row): row["run_id"] for row in rows}
    return [row for row in rows if last[_block_of(row)] == row["run_id"]]


def _block_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["machine"], row["clock"], cell_of(row).setting, row["repeat"]


def half_width(values: Sequence[float]) -> float:
    """Half the 95 % interval of the mean by Student's t; infinite for fewer than two values."""
    count = len(values)
    if count < 2:
        return math.inf
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    t = _T[count - 2] if count - 2 < len(_T) else _T_BEYOND
    return t * math.sqrt(variance / count)


def cell_of(row: Mapping[str, Any]) -> Cell:
    """Return the cell that a row is a sample of."""
    return Cell(**{name: row[name] for name in Cell.__slots__})
