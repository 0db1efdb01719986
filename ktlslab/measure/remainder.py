"""What is left of a plan on a machine, how long it takes, and how to cut it into parts. Pure functions."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ktlslab.errors import UsageError
from ktlslab.measure.blocks import JUDGED, Blocks, cell_of, unbroken
from ktlslab.measure.estimate import opening_seconds, rate, sample_seconds
from ktlslab.measure.parts import Part
from ktlslab.measure.plan import Cell, Plan, Setting
from ktlslab.runs.journal import Journal

# A part for an executor: long compared with a guest's start, short enough that losing one costs little.
PART_S = 60.0
_NEEDED = (
    *Cell.__slots__,
    "run_id",
    "machine",
    "clock",
    "repeat",
    *JUDGED,
)  # columns of a row that the worker needs to continue its setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """What is left of a plan on a machine. `seconds`: about how long each unfinished setting takes at least.

    `done`: finished samples. `at_least`, `at_most`: samples to come; how many depends on the plan's `precision`.
    `torn`: samples of incomplete blocks, which are measured again as a whole.
    """

    plan: Plan
    machine: str
    clock: str
    rows: Sequence[Mapping[str, Any]]
    seconds: Mapping[Setting, float]
    most_seconds: float
    done: int
    torn: int
    at_least: int
    at_most: int

    def parts(self, pieces: int) -> list[Part]:
        """Cut it into that many parts of about equal duration; at most one per setting."""
        pieces = min(pieces, len(self.seconds))
        shares: list[tuple[float, list[Setting]]] = [(0.0, []) for _ in range(pieces)]
        for setting in sorted(self.seconds, key=lambda setting: -self.seconds[setting]):
            lightest = min(range(pieces), key=lambda number: shares[number][0])
            taken, settings = shares[lightest]
            shares[lightest] = taken + self.seconds[setting], [*settings, setting]
        return [self._part({*settings}) for _, settings in shares]

    def small_parts(self) -> list[Part]:
        """Cut it into parts of about `PART_S`."""
        return self.parts(math.ceil(sum(self.seconds.values()) / PART_S))

    def _part(self, settings: set[Setting]) -> Part:
        now = time.time()
        stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}{int(now * 1000) % 1000:03}Z"
        return Part(
            run_id=f"{stamp}-{self.machine}-{uuid.uuid4().hex[:6]}",
            plan=self.plan.to_json(),
            settings=[setting for setting in self.seconds if setting in settings],
            rows=[row for row in self.rows if cell_of(row).setting in settings],
            machine=self.machine,
            clock=self.clock,
        )


def remaining(plan: Plan, machine: str, clock: str, journal: Journal) -> Remaining:
    """Return what a journal lacks of a plan. UsageError where the journal belongs to another plan."""
    mine = [row for row in journal.rows if (row["machine"], row["clock"]) == (machine, clock)]
    runs = [run for run in journal.runs.values() if (run.get("machine"), run.get("clock")) == (machine, clock)]
    left_out = {arm for run in runs for arm in run.get("left_out", {})}
    _refuse_another_plan(plan, runs)
    most = max(plan.repeats, plan.max_repeats if plan.precision else 0)
    rows: list[dict[str, Any]] = []
    seconds: dict[Setting, float] = {}
    at_least = at_most = done = 0
    longest = 0.0
    rooms: set[Any] = set()
    of_setting: dict[Setting, list[dict[str, Any]]] = {}
    for row in mine:
        of_setting.setdefault(cell_of(row).setting, []).append(row)
    for setting, cells in plan.settings().items():
        blocks = Blocks(plan, of_setting.get(setting, []), [setting], left_out)
        taken = [row for row in unbroken(of_setting.get(setting, [])) if blocks.done(row)]
        done += len(taken)
        if next(iter(blocks), None) is None:
            continue
        block = sum(
            sample_seconds(plan, cell, rate(machine, clock)) for cell in cells if cell.session_name not in left_out
        )
        count = sum(cell.session_name not in left_out for cell in cells)
        rows += [{name: row[name] for name in _NEEDED} for row in taken]
        at_least += blocks.left()
        at_most += count * most - len(taken)
        opening = 0.0 if cells[0].room in rooms else opening_seconds(cells, rate(machine, clock))
        rooms.add(cells[0].room)
        seconds[setting] = opening + block * max(1, blocks.left()) / count
        longest += opening + block * (most - len(taken) / count)
    return Remaining(
        plan=plan,
        machine=machine,
        clock=clock,
        rows=rows,
        seconds=seconds,
        most_seconds=longest,
        done=done,
        torn=len(mine) - done,
        at_least=at_least,
        at_most=at_most,
    )


def _refuse_another_plan(plan: Plan, runs: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to resume with another plan; only `minutes` may differ."""
    for run in runs:
        begun = Plan.from_json({**run["plan"], "minutes": plan.minutes})
        if begun != plan:
            theirs, ours = begun.to_json(), plan.to_json()
            name = next(name for name in ours if ours[name] != theirs[name])
            answered = f"the plan has {name} {ours[name]!r}, but the sweep began with {theirs[name]!r}"
            remedy = "Resume with the same plan, or choose another output."
            raise UsageError(f"resuming plan {plan.name!r} on {run['machine']}", answered=answered, remedy=remedy)
