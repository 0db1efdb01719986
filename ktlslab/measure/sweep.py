"""A sweep: a plan measured on one or more machines, into one table.

On each machine a worker process measures and writes the journal; this side boots what there is to boot, shows how far
it is, and makes the table at the end. Whatever ends a sweep early, the journal has every finished sample, and `resume`
goes on from there.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ktlslab import guests
from ktlslab.errors import KtlsLabError, MachineError, UsageError
from ktlslab.linux import probe
from ktlslab.measure import clocks
from ktlslab.measure.lock import measuring
from ktlslab.measure.plan import Cell, Plan, named
from ktlslab.measure.table import Journal, journal_path, mend_journal, storing, to_frame, write_table
from ktlslab.measure.worker import key_of

if TYPE_CHECKING:
    import pandas as pd

_LOOK_S = 0.2
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # the order of sets and dicts of strings has its cost, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where to measure: `name` is "here" or a kernel's series."""

    name: str
    kernel: guests.Kernel | None
    clock: str


class _Running(Protocol):
    """A worker process, here or in a guest."""

    def poll(self) -> int | None: ...
    def error(self) -> str: ...


def sweep(
    plan: str | Path | Plan = "quick",
    on: str | Sequence[str] = "auto",
    *,
    clock: str | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure a plan and return its table, one row a sample (`ktlslab.measure.table.COLUMNS`).

    `plan`: quick, standard, full, a file, or a Plan. `on`: machines (auto, here, a guest's series, oldest, newest).
    `clock`: wall or instructions; by default wall where the CPU is real, else instructions. `output`: NAME.parquet,
    kept; without it the table is only returned. `resume` goes on with what an interrupted sweep left.

    Raises UsageError, MachineError, GuestError, StorageError, TableError; rows measured before are kept.
    """
    plan = named(plan)
    machines = [machine(name, clock) for name in ([on] if isinstance(on, str) else on)]
    with contextlib.ExitStack() as stack:
        if output is None:
            output = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ktlslab-sweep-"))) / "table.parquet"
        table = Path(output).absolute()
        if table.suffix != ".parquet":
            raise UsageError(f"sweeping into {output}", answered="not NAME.parquet", remedy="Name it so.")
        journal = _prepare(table, resume=resume)
        say = _Progress(len(machines) * len(plan.cells()) * plan.repeats, shown=progress)
        stack.callback(say.close)
        stack.enter_context(measuring(say.note))
        for where in machines:
            _measure(where, plan, journal, say)
        collected = Journal.read(journal)
        wanted = [row for row in collected.rows if any(_is_of(row, where) for where in machines)]
        frame = to_frame(wanted, collected.runs)
        write_table(frame, table)
        journal.unlink()
    return frame


def machine(name: str, clock: str | None = None) -> Machine:
    """Resolve a machine's name; kernels are fetched where they are not yet here."""
    if clock not in (None, *clocks.UNITS):
        raise UsageError("choosing a clock", answered=f"no clock {clock!r}", remedy="Choose wall or instructions.")
    if name == "auto":
        name = "here" if probe.probe().ktls else "newest"
    if name == "here":
        if clock == "instructions":
            remedy = "Leave out the clock, or measure in a guest: `--on newest`."
            raise UsageError("measuring here", answered="this machine counts no instructions", remedy=remedy)
        return Machine(name="here", kernel=None, clock=clocks.current())
    kernel = guests.find(name)
    if clock is None:
        clock = "wall" if guests.accelerator() == "kvm" else "instructions"
    return Machine(name=kernel.series, kernel=kernel, clock=clock)


def _prepare(table: Path, *, resume: bool) -> Path:
    """Return the journal's path, empty unless resumed; a journal is never thrown away unasked."""
    journal = journal_path(table)
    with storing(table):
        table.parent.mkdir(parents=True, exist_ok=True)
        if resume:
            mend_journal(journal)
            journal.touch()
        elif journal.exists() and Journal.read(journal).rows:
            remedy = f"Go on with --resume, or remove {journal}."
            raise UsageError(f"sweeping into {table}", answered="an interrupted sweep left rows there", remedy=remedy)
        else:
            journal.write_text("")
    return journal


def _is_of(row: dict[str, Any], where: Machine) -> bool:
    return bool(row["machine"] == where.name and row["clock"] == where.clock)


def _measure(where: Machine, plan: Plan, journal: Path, say: _Progress) -> None:
    cells = {key_of(cell, repeat) for repeat, cell in plan.schedule()}
    rows = [row for row in Journal.read(journal).rows if _is_of(row, where)] if journal.exists() else []
    keys = {key_of(_cell(row), row["repeat"]) for row in rows}
    if strange := keys - cells:
        remedy = "Resume with the plan that was begun, or choose another output."
        answered = f"{len(strange)} rows there are not of plan {plan.name!r}"
        raise UsageError(f"resuming {journal}", answered=answered, remedy=remedy)
    say.done(len(keys))
    if keys == cells:
        return
    job = {
        "plan": plan.to_json(),
        "done": sorted(keys),
        "run_id": f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{where.name}-{uuid.uuid4().hex[:6]}",
        "machine": where.name,
        "parent": os.getpid() if where.kernel is None else None,  # a guest ends with QEMU
        "commit": _commit(),
        "host": {"kernel": os.uname().release, "python": platform.python_version()},
    }
    job_file = journal.with_name(f".{journal.name}.job")
    try:
        with storing(journal):
            job_file.write_text(json.dumps(job))
        argv = [sys.executable, "-m", "ktlslab.measure.worker", str(job_file), str(journal)]
        say.note(f"measuring on {where.name}, {where.clock} clock")
        with _here(argv) if where.kernel is None else _in_guest(where, argv, journal.parent) as worker:
            with journal.open("rb") as lines:
                lines.seek(0, os.SEEK_END)
                while (status := worker.poll()) is None:
                    say.done(_count(lines))
                    time.sleep(_LOOK_S)
                say.done(_count(lines))
            if status:
                raise _failure(where, worker.error(), status)
    finally:
        job_file.unlink(missing_ok=True)


def _failure(where: Machine, said: str, status: int) -> KtlsLabError:
    """Return what the worker said of its end, as an error of ours."""
    for line in reversed(said.strip().splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return MachineError(f"measuring on {where.name}", answered=json.loads(line)["error"])
    remedy = "What was measured is kept: go on with --resume."
    return MachineError(f"measuring on {where.name}", answered=f"exit status {status}: {said[-1500:]}", remedy=remedy)


@contextlib.contextmanager
def _here(argv: list[str]) -> Iterator[_Running]:
    """Run a worker on this machine, ended when the context is left."""
    with tempfile.TemporaryFile() as stderr:

        class Here:
            def poll(self) -> int | None:
                return process.poll()

            def error(self) -> str:
                stderr.seek(0)
                return stderr.read().decode(errors="replace")

        # A session of its own: Ctrl-C reaches this process alone, which then ends the worker and the worker's peer.
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
            env={**os.environ, **_ENVIRONMENT},
        )
        try:
            yield Here()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


@contextlib.contextmanager
def _in_guest(where: Machine, argv: list[str], folder: Path) -> Iterator[_Running]:
    """Run a worker in a guest; the folder is the one thing that it shares with the host."""
    assert where.kernel is not None  # noqa: S101 - for the type checker
    with guests.boot(where.kernel, argv, clock=where.clock, rw=folder, env=_ENVIRONMENT) as guest:  # type: ignore[arg-type]

        class InGuest:
            def poll(self) -> int | None:
                return guest.poll()

            def error(self) -> str:
                return guest.wait(5).stderr.decode(errors="replace")

        yield InGuest()


def _count(lines: Any) -> int:
    """Count the rows that were begun since the last look."""
    return sum(line.startswith(b'{"run_id"') for line in lines.read().split(b"\n"))


def _cell(row: dict[str, Any]) -> Cell:
    return Cell(**{name: row[name] for name in Cell.__slots__})


def _commit() -> str:
    """Return the commit of the code that measures, empty where it is not in a checkout."""
    argv = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError):
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    return ""


class _Progress:
    """A bar on standard error, or in the notebook."""

    def __init__(self, total: int, *, shown: bool) -> None:
        from tqdm.auto import tqdm  # noqa: PLC0415 - only where something is measured

        self._bar = tqdm(total=total, unit="sample", disable=not shown, smoothing=0.05)

    def done(self, count: int) -> None:
        if count:
            self._bar.update(count)

    def note(self, text: str) -> None:
        if not self._bar.disable:
            self._bar.set_description(text)

    def close(self) -> None:
        self._bar.close()
