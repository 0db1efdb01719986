"""A profile of a plan on machines: guests run it, and each trace is counted as soon as it is written."""

from __future__ import annotations

import math
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ktlslab import _checks
from ktlslab.errors import GuestError, MachineError, UsageError
from ktlslab.measure import fitting
from ktlslab.measure.parts import failure
from ktlslab.measure.plan import Plan, named
from ktlslab.packages import require
from ktlslab.profiling import plugin
from ktlslab.profiling.classes import INTERRUPTS, OTHER
from ktlslab.profiling.counting import MACHINE, Program, count
from ktlslab.profiling.frames import CELL, WHERE, Profile, cell_name, nodes_of, rows_of, to_profile
from ktlslab.profiling.symbols import KernelSymbols
from ktlslab.profiling.traces import Blocks, Trace, steps_of
from ktlslab.profiling.trees import Node, tree
from ktlslab.profiling.typical import typical_steps
from ktlslab.profiling.worker import SYMBOLS
from ktlslab.runs.job import Job
from ktlslab.runs.journal import Journal, run_path
from ktlslab.runs.launching import worker
from ktlslab.runs.lock import measuring
from ktlslab.runs.machines import Machine, machines_of
from ktlslab.runs.storage import table_path

_LOOK_S = 0.2
_TRIED = "profiling"
TOLERANCE = 0.005  # of the clock's count, by which the sum over all functions may differ
_CLOCK = "instructions"


def profile(
    plan: str | Path | Plan = "quick",
    on: str | Sequence[str] = "newest",
    *,
    output: str | Path | None = None,
    progress: bool = True,
) -> Profile:
    """Count the instructions of every cell of a plan, by function and class, in guests (see `ktlslab.profiling`).

    `plan`: quick, standard, full, serve, a file, or a Plan; each cell is profiled once. `on`: guests (a series, oldest,
    newest); auto is newest. `output`: NAME.parquet. `progress`: say on standard error what each cell came to.

    Raises UsageError (a machine whose instructions cannot be counted), MachineError (a kernel without symbols),
    GuestError (a QEMU without plugins; a sum that differs from the clock's), StorageError. If it fails on the way, what
    was counted is written first.
    """
    require("lab", "pandas", "pyarrow", "numpy")
    plan = named(plan)
    path = table_path(_TRIED, "output", output) if output is not None else None
    machines = machines_of([_guest(name) for name in _checks.words(_TRIED, "on", on, "a list of guests")], _CLOCK)
    fitting.refuse_what_does_not_fit(plan, machines)
    say: Callable[[str], Any] = (lambda text: print(text, file=sys.stderr)) if progress else str  # noqa: T201
    counted = Counted(say)
    try:
        with measuring(say):
            for where in machines:
                _run(plan, where, counted)
    except BaseException:
        if path and counted.rows:
            counted.profile().write(path)
        raise
    found = counted.profile()
    if path:
        found.write(path)
    return found


def _guest(name: str) -> str:
    """Return the guest that a name means: instructions can be counted nowhere else."""
    if name == "here":
        answered = "the instructions of this machine cannot be counted: its CPU, or the one that KVM lends, is real"
        raise UsageError("profiling on here", answered=answered, remedy="Profile in a guest: `--on newest`.")
    return "newest" if name == "auto" else name


class Counted:
    """What has been counted: rows, and the provenance of their runs."""

    def __init__(self, say: Callable[[str], Any]) -> None:
        self.rows: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []  # of call trees
        self.runs: dict[str, Any] = {}
        self.say = say

    def profile(self) -> Profile:
        """Return the profile of it. MachineError where there is none."""
        if not self.rows:
            left_out = {arm: why for run in self.runs.values() for arm, why in run.get("left_out", {}).items()}
            answered = "; ".join(left_out.values()) or "the plan has no cell that can run there"
            raise MachineError(_TRIED, answered=answered, remedy="Profile another plan, or on another kernel.")
        return to_profile(self.rows, self.nodes, self.runs)


def _run(plan: Plan, where: Machine, counted: Counted) -> None:
    """Run a plan in a guest, and count each trace as soon as the guest has written its row."""
    run_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    with tempfile.TemporaryDirectory(prefix="ktlslab-profile-") as name:
        folder = Path(name)
        job = Job.on(where, run_id=run_id, plan=plan.to_json())
        job_file, journal = folder / f"{run_id}.job", run_path(folder, run_id)
        job.write(job_file)
        journal.touch()
        traces = _Traces(folder, run_id, counted)
        memory, option = fitting.guest_memory(plan), plugin.option(folder)
        with worker(where, "ktlslab.profiling.worker", job_file, journal, memory=memory, plugin=option) as running:
            while (status := running.poll()) is None:
                traces.look()
                time.sleep(_LOOK_S)
            traces.look()
            if status:
                raise failure(where, running.error(), status, "Nothing else is known: profile again.")


class _Traces:
    """The traces of a run, in the order of the journal's rows. Each is removed when it is counted."""

    def __init__(self, folder: Path, run_id: str, counted: Counted) -> None:
        self._folder, self._run_id, self._counted = folder, run_id, counted
        self._done = self._size = 0
        self._symbols_of = 0.0
        self._symbols = KernelSymbols("")

    def look(self) -> None:
        """Count what is new."""
        size = run_path(self._folder, self._run_id).stat().st_size
        if size == self._size:
            return
        self._size = size
        journal = Journal.read(self._folder)
        run = self._counted.runs.setdefault(self._run_id, {"cells": []})
        run |= journal.runs.get(self._run_id, {})
        for row in journal.rows[self._done :]:
            trace = self._folder / f"trace.{self._done}"
            self._done += 1
            found = self._count(row, trace)
            run["cells"].append(found)
            trace.unlink()

    def _count(self, row: dict[str, Any], path: Path) -> dict[str, Any]:
        """Add a cell's rows; return its check against the clock."""
        blocks = Blocks.read(self._folder / "blocks")
        trace = Trace.read(path, blocks)
        program = Program(blocks, self._kernel(), row["maps"])
        steps = steps_of(trace, blocks, row["took"])
        about = {name: row[name] for name in WHERE}
        rows = rows_of(about, count(trace, program, steps), row["operations"])
        check = check_of(row, rows)
        self._counted.rows += rows
        typical = typical_steps(trace, program, steps)
        check |= {"steps": len(steps), "alike": {end: one.alike for end, one in typical.items()}}
        roots: dict[str, Node] = {}
        for end, one in typical.items():
            found = tree(trace, program, steps[one.step], steps[max(0, one.step - 1)][0])
            roots[end] = found[end]
            roots.setdefault(MACHINE, found[MACHINE])
        self._counted.nodes += nodes_of(about, roots, row["operations_per_step"])
        self._counted.say(said(check))
        return check

    def _kernel(self) -> KernelSymbols:
        path = self._folder / SYMBOLS
        if (changed := path.stat().st_mtime) != self._symbols_of:
            self._symbols, self._symbols_of = KernelSymbols(path.read_text()), changed
        return self._symbols


def check_of(row: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare a cell's sum with the clock. GuestError where they differ by more than TOLERANCE.

    Figures are instructions per operation: `counted` by the profile, and `clock`. `interrupts` and `other` (functions
    without a class) are shares.
    """
    sums: Counter[str] = Counter()
    for one in rows:
        sums[one["class"]] += one["instructions"]
    counted, clock = math.fsum(sums.values()), sum(row["took"]) / row["operations"]
    difference = counted / clock - 1
    if abs(difference) > TOLERANCE:
        answered = f"it counts {counted:,.0f} instructions per operation, and the clock {clock:,.0f}"
        raise GuestError("checking a profile", answered=answered, remedy="Profile again, with fewer connections.")
    found = {name: row[name] for name in CELL}
    found |= {"operations": row["operations"], "counted": counted, "clock": clock, "difference": difference}
    return found | {name: sums[name] / counted for name in (INTERRUPTS, OTHER)}


def said(check: Mapping[str, Any]) -> str:
    """Return a check as a line."""
    alike = " and ".join(f"{alike} of the {end}'s" for end, alike in check["alike"].items())
    return (
        f"{cell_name({name: check[name] for name in CELL})}: {check['counted']:,.0f} instructions per operation "
        f"({check['difference']:+.3%} of the clock's), {check[INTERRUPTS]:.1%} in interrupts, {check[OTHER]:.1%} other"
        f"; of {check['steps']} steps {alike} alike"
    )
