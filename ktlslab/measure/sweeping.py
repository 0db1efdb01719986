"""A sweep: a plan measured on one or more machines, into one table.

A sweep is cut into parts (`measure.parts`), and a worker measures each part in one run. By default they run on this
host. Under the wall clock they run one by one, because they would disturb each other. In guests that count instructions
nothing else affects the figures, so they run side by side, one per CPU. An executor distributes them over its hosts.

However a sweep ends early, its journal has every finished sample, and `resume` continues from there. An incomplete
block is measured again as a whole, and the table holds only the complete one.

A fleet with Dask distributed (`pip install 'ktlslab[fleet]'`), one worker per host:

    dask scheduler
    dask worker SCHEDULER:8786 --nworkers 1 --nthreads 1 --resources measure=1     # on every host

    client = distributed.Client("SCHEDULER:8786")
    executor = client.get_executor(pure=False, resources={"measure": 1})
    ktlslab.sweep("standard", "newest", output="fleet.parquet", executor=executor)

The resource prevents two parts at once on a worker; the host's lock prevents it for two workers on a host. The parts of
a lost worker run again on another one. Nothing of the lost ones is kept, so no sample appears twice.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ktlslab import _checks
from ktlslab.errors import KtlsLabError, MachineError, StoppedError, UsageError
from ktlslab.guests import qemu
from ktlslab.measure import fitting, parts
from ktlslab.measure.blocks import unbroken
from ktlslab.measure.parts import Part
from ktlslab.measure.plan import Plan, named
from ktlslab.measure.progress import Progress, announcement
from ktlslab.measure.remainder import Remaining, remaining
from ktlslab.measure.table import read_table, to_frame, write_table
from ktlslab.packages import require
from ktlslab.runs import counting
from ktlslab.runs.journal import Journal, journal_path, run_files, run_path
from ktlslab.runs.lock import measuring
from ktlslab.runs.machines import Machine, machines_of
from ktlslab.runs.storage import storing, table_path

if TYPE_CHECKING:
    import pandas as pd

_LOOK_S = 0.2
_QEMU_BYTES = 1 << 29  # of this machine's memory that a guest needs besides its own


def sweep(
    plan: str | Path | Plan = "quick",
    on: str | Sequence[str] = "auto",
    *,
    clock: str | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    progress: bool | Progress = True,
    executor: Executor | None = None,
    stop: threading.Event | None = None,
) -> pd.DataFrame:
    """Measure a plan and return its table, one row per sample (`ktlslab.measure.table.SCHEMA`).

    `plan`: quick, standard, full, serve, a file, or a Plan. `on`: machines (auto, here, a guest's series, oldest,
    newest, or newest+erms, whose CPU has erms, for a table of its own). A guest gets the memory that the plan needs.
    `clock`: wall or instructions; the default is wall where
    the CPU is real, else instructions. `output`: NAME.parquet; without it the table is returned but not written.
    `resume`: continue an interrupted sweep, or extend the table of a finished one, with the same plan on the same
    machines or on more. `progress`: report on standard error what the sweep will do and how far it is, or to this
    `measure.progress.Progress`. `stop`: set from another thread, it ends the sweep as an interrupt (Ctrl-C) does.

    `executor`: a `concurrent.futures.Executor`. It runs picklable parts of about a minute each, and each result is kept
    as it arrives. `here` then means the host that runs a part; every host needs this version of ktlslab. No part begins
    a block after the plan's `minutes` are over by its host's clock.

    Raises UsageError, MachineError, GuestError, StorageError, TableError; rows measured until then are kept.
    StoppedError if it is interrupted: it says where they are, also without an `output`, and how to continue.
    """
    require("lab", "pandas", "pyarrow", "tqdm")
    plan = named(plan)
    machines = machines_of(on, clock)
    fitting.refuse_what_does_not_fit(plan, machines)
    cpu = _counting_cpu(machines)
    source = "one of `concurrent.futures`, or of Dask distributed: client.get_executor()"
    _checks.optional(_checks.instance, "sweeping", "executor", executor, Executor, source)
    _checks.optional(_checks.instance, "sweeping", "stop", stop, threading.Event)
    with contextlib.ExitStack() as stack:
        if scratch := output is None:
            output = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ktlslab-sweep-"))) / "table.parquet"
        table = table_path("sweeping", "output", output)
        say = progress if isinstance(progress, Progress) else Progress(shown=bool(progress))
        stack.callback(say.close)
        _refuse_rows(table, resume=resume)
        stack.enter_context(_keeping(plan, machines, table, scratch=scratch))
        obey = _interrupted_by(stop)
        waited = ""
        if executor is None:
            waited = stack.enter_context(measuring(say.line, look=obey))
            _refuse_rows(table, resume=resume)  # again: the previous holder of the lock may have left some
        journal = journal_path(table)
        so_far = Journal.read(journal)
        reopened = resume and not so_far.rows and table.exists()
        if reopened:
            so_far = _journal_of(table)
        _refuse_machines(so_far, machines)
        _refuse_another_cpu(so_far, cpu)
        wanted = [remaining(plan, where.name, where.clock, so_far) for where in machines]
        if table.exists() and not resume:
            say.line(f"{table.name} exists: it will be replaced at the end (--resume would extend it)")
        with storing(table):
            if reopened:
                _remove(journal)
                so_far.write(journal)
            journal.mkdir(parents=True, exist_ok=True)

        def look() -> None:
            say.look(journal)
            obey()

        if executor is None:
            _measure_here(wanted, journal, say, waited, look)
        else:
            _measure_by(executor, wanted, journal, say, look)
        frame = _finish(plan, journal, say)
        write_table(frame, table)
        _remove(journal)
    return frame


def forecast(plan: Plan, on: str, *, clock: str | None = None, output: Path | None = None) -> list[str]:
    """Return what a sweep on this host would do and about how long it would take, in lines.

    `output`: a table of which it measures what is missing. Raises what `sweep` raises for these arguments.
    """
    machines = machines_of(on, clock)
    fitting.refuse_what_does_not_fit(plan, machines)
    so_far = Journal.read(journal_path(output)) if output else Journal()
    wanted = [remaining(plan, where.name, where.clock, so_far) for where in machines]
    in_turn, side_by_side, lanes = _cut(wanted)
    return announcement(wanted, parts=len(in_turn) + len(side_by_side), at_once=lanes)


def _interrupted_by(stop: threading.Event | None) -> Callable[[], None]:
    """Return a function that does as Ctrl-C does once `stop` is set."""

    def obey() -> None:
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt

    return obey


@contextlib.contextmanager
def _keeping(plan: Plan, machines: Sequence[Machine], table: Path, *, scratch: bool) -> Iterator[None]:
    """Say in a StoppedError what an interrupted sweep leaves. What lies in a `scratch` folder is moved out of it."""
    try:
        yield
    except KeyboardInterrupt:
        tried, journal = f"sweeping plan {plan.name!r}", journal_path(table)
        so_far = Journal.read(journal)
        samples = sum(remaining(plan, where.name, where.clock, so_far).done for where in machines)
        if scratch and samples:
            table = Path(tempfile.mkdtemp(prefix="ktlslab-stopped-")) / table.name
            shutil.move(journal, journal_path(table))
        if table.is_relative_to(Path.cwd()):
            table = table.relative_to(Path.cwd())
        journal = journal_path(table)
        answered = f"interrupted: {samples} sample{'s' * (samples != 1)} in whole blocks are safe in {journal}"
        remedy = f"The same sweep with output={str(table)!r} and resume=True (--resume) goes on from there."
        if not samples:
            answered, remedy = "interrupted before a block was whole", "Nothing is lost."
        raise StoppedError(tried, output=str(table), samples=samples, answered=answered, remedy=remedy) from None


def _refuse_rows(table: Path, *, resume: bool) -> None:
    """Refuse to overwrite the rows of an interrupted sweep."""
    journal = journal_path(table)
    if not resume and Journal.read(journal).rows:
        remedy = f"Continue with --resume, or remove {journal}."
        raise UsageError(f"sweeping into {table}", answered="an interrupted sweep left rows there", remedy=remedy)


def _journal_of(table: Path) -> Journal:
    """Return the journal of a finished table."""
    frame = read_table(table)
    return Journal(rows=cast("list[dict[str, Any]]", frame.to_dict("records")), runs=frame.attrs["provenance"])


def _refuse_machines(journal: Journal, machines: Sequence[Machine]) -> None:
    """Refuse to resume without a machine that has rows: they would be lost."""
    asked = {(where.name, where.clock) for where in machines}
    if others := {(row["machine"], row["clock"]) for row in journal.rows} - asked:
        names = ", ".join(f"{name} under the {clock} clock" for name, clock in sorted(others))
        remedy = "Resume on the same machines, or these and more, or choose another output."
        raise UsageError(
            "resuming a sweep", answered=f"it has rows of {names}, which is not among the machines", remedy=remedy
        )


def _counting_cpu(machines: Sequence[Machine]) -> str:
    """Return the name of the emulated CPU that is to count. UsageError where it is not one for all machines."""
    counting_cpus = dict.fromkeys(where.cpu for where in machines if where.clock == "instructions")
    cpu, *others = counting_cpus or [qemu.CPU_NAME]
    if others:
        answered = f"the instructions of one machine would be counted by {cpu}, of another by {others[0]}"
        raise UsageError("sweeping", answered=answered, remedy="Sweep each into a table of its own.")
    return cpu


def _refuse_another_cpu(journal: Journal, cpu: str) -> None:
    """Refuse to resume what an emulated CPU counted that is not the one that would count now."""
    now = {"cpu": cpu, "emulated_cpu": qemu.CPUS[cpu]}
    for name in sorted({row["run_id"] for row in journal.rows if row["clock"] == "instructions"}):
        if names := counting.names(journal.runs.get(name, {}), now):
            answered = f"run {name} was counted by {names[0]}, and the rest would be by {names[1]}"
            raise UsageError("resuming a sweep", answered=answered, remedy=f"Choose another output. {counting.REMEDY}")


def _cut(wanted: Sequence[Remaining]) -> tuple[list[Part], list[Part], int]:
    """Return the parts that run one after the other, those that run side by side, and how many of these at once."""
    counted = [one for one in wanted if one.clock == "instructions" and one.seconds]
    lanes = _lanes(wanted[0].plan) if counted else 1
    # As many parts per machine as make the lanes finish at about the same time.
    pieces = lanes // math.gcd(len(counted), lanes) if counted else 1
    in_turn = [part for one in wanted if one.clock != "instructions" for part in one.parts(1)]
    side_by_side = [part for one in counted for part in one.parts(pieces)]
    return in_turn, side_by_side, max(1, min(lanes, len(side_by_side)))


def _measure_here(
    wanted: Sequence[Remaining], journal: Path, say: Progress, waited: str, look: Callable[[], None]
) -> None:
    """Measure on this host: one part after the other under the wall clock, one per CPU where instructions count."""
    in_turn, side_by_side, lanes = _cut(wanted)
    say.begin(wanted, journal, parts=len(in_turn) + len(side_by_side), at_once=lanes)
    share = _Shares(wanted[0].plan.minutes, len(in_turn), len(side_by_side), lanes)
    ending = threading.Event()

    def measure(part: Part) -> None:
        parts.measure(replace(part, until=share.until(part)), journal, ending=ending.is_set, waited=waited)

    for width, some in ((1, in_turn), (lanes, side_by_side)):
        with ThreadPoolExecutor(width) as pool:
            _collect(pool, measure, some, look=look, ending=ending)


def _measure_by(
    executor: Executor, wanted: Sequence[Remaining], journal: Path, say: Progress, look: Callable[[], None]
) -> None:
    """Measure on an executor, and keep what each part returns as it arrives."""
    minutes = wanted[0].plan.minutes
    until = time.time() + minutes * 60 if minutes else None
    todo = [replace(part, until=until) for one in wanted for part in one.small_parts()]
    say.begin(wanted, journal, parts=len(todo), at_once=0)

    def keep(part: Part, lines: bytes) -> None:
        path = run_path(journal, part.run_id)
        beside = path.with_suffix(".part")
        with storing(path, journal):
            beside.write_bytes(lines)
            beside.replace(path)

    _collect(executor, parts.run, todo, look=look, keep=keep)


class _Shares:
    """How long each part may take, where a plan has `minutes`: an equal share of the time that is left."""

    def __init__(self, minutes: float, in_turn: int, side_by_side: int, lanes: int) -> None:
        self._ends = time.time() + minutes * 60 if minutes else None
        self._in_turn, self._side_by_side, self._lanes = in_turn, side_by_side, lanes
        self._lock = threading.Lock()

    def until(self, part: Part) -> float | None:
        """Return the time after which a part that starts now begins no block, in seconds since 1970."""
        with self._lock:
            turns = self._in_turn + math.ceil(self._side_by_side / self._lanes)
            if part.clock == "instructions":
                self._side_by_side -= 1
            else:
                self._in_turn -= 1
        now = time.time()
        return None if self._ends is None else now + (self._ends - now) / max(1, turns)


def _collect(
    executor: Executor,
    call: Callable[[Part], Any],
    todo: Sequence[Part],
    *,
    look: Callable[[], None],
    keep: Callable[[Part, Any], None] = lambda _part, _result: None,
    ending: threading.Event | None = None,
) -> None:
    """Measure parts and keep their results. A failure cancels the others; results that still arrive are kept."""
    of: dict[Future[Any], Part] = {}
    failure: BaseException | None = None
    try:
        of |= {executor.submit(call, part): part for part in todo}
        left = set(of)
        while left:
            done, left = wait(left, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    keep(of[future], future.result())
                except (Exception, CancelledError) as error:  # noqa: BLE001 - an executor's own included
                    failure = failure or _lost(of[future], error)
            if failure:
                _call_off(left, ending)
            look()
    except BaseException:
        _call_off(of, ending)
        raise
    if failure:
        raise failure


def _call_off(futures: Iterable[Future[Any]], ending: threading.Event | None) -> None:
    for future in futures:
        future.cancel()
    if ending:
        ending.set()


def _lost(part: Part, error: BaseException) -> KtlsLabError:
    """Return a KtlsLabError: executors have their own exceptions for a lost worker."""
    if isinstance(error, KtlsLabError):
        return error
    remedy = "Results of other workers are kept: check the workers, then continue with --resume."
    lost = MachineError(f"measuring on {part.machine}", answered=f"{type(error).__name__}: {error}", remedy=remedy)
    lost.__cause__ = error
    return lost


def _finish(plan: Plan, journal: Path, say: Progress) -> pd.DataFrame:
    """Return the table that a journal makes."""
    collected = Journal.read(journal)
    say.look(journal)
    rows = [dict(row) for row in unbroken(collected.rows)]
    runs = {row["run_id"]: collected.runs[row["run_id"]] for row in rows}
    say.left_out(collected.runs)
    if not runs:
        left_out = {arm for run in collected.runs.values() for arm in run.get("left_out", ())}
        answered = f"every arm was left out: {', '.join(sorted(left_out))}" if left_out else "time ran out"
        remedy = "Give the plan more `minutes`, or measure on another machine."
        raise MachineError(f"measuring plan {plan.name!r}", answered=f"there is no sample: {answered}", remedy=remedy)
    return to_frame(rows, runs)


def _remove(journal: Path) -> None:
    """Remove a journal whose rows are in the table; leave other files there alone."""
    for path in run_files(journal):
        path.unlink()
    for path in (*journal.glob("*.job"), *journal.glob("*.stop"), *journal.glob("*.part")):
        path.unlink()  # what a killed sweep left
    with contextlib.suppress(OSError):
        journal.rmdir()


def _lanes(plan: Plan) -> int:
    """Return how many guests run side by side: one per CPU, limited by memory."""
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory // (fitting.guest_bytes(plan) + _QEMU_BYTES)))
