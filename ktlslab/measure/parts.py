"""A part of a sweep: some settings of one machine, measured in one run.

A part is data, and the function that measures it depends on that data alone. So it can run in this process, in another
one, or on another host. A part holds whole settings: what is compared was measured in one run.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktlslab.errors import KtlsLabError, MachineError
from ktlslab.measure.fitting import guest_memory
from ktlslab.measure.plan import Plan, Setting
from ktlslab.runs.job import Job
from ktlslab.runs.journal import run_path
from ktlslab.runs.launching import worker
from ktlslab.runs.lock import measuring
from ktlslab.runs.machines import Machine, machine
from ktlslab.runs.storage import storing

_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What to measure in one run. `plan` and `rows` hold JSON types.

    `rows`: what earlier runs measured of these settings. `machine`: "here" is the host that runs the part. `until`: the
    time after which no block begins, in seconds since 1970.
    """

    run_id: str
    plan: Mapping[str, Any]
    settings: Sequence[Setting]
    rows: Sequence[Mapping[str, Any]]
    machine: str
    clock: str
    until: float | None = None


def run(part: Part) -> bytes:
    """Measure a part while holding the host's lock, and return the lines of its run. Executors call this.

    Raises what `measure` does; then nothing of the part is kept.
    """
    with tempfile.TemporaryDirectory(prefix="ktlslab-part-") as folder, measuring(str) as waited:
        measure(part, Path(folder), waited=waited)
        return run_path(Path(folder), part.run_id).read_bytes()


def measure(part: Part, journal: Path, *, ending: Callable[[], bool] = bool, waited: str = "") -> None:
    """Measure a part on this host into a journal. The caller must hold the host's lock.

    `ending` is called repeatedly; when it returns true, measuring stops at once. `waited`: what `measuring` returned.
    Raises MachineError with the worker's message, GuestError, StorageError; rows measured until then are kept.
    """
    where = machine(part.machine, part.clock if part.machine != "here" else None)
    job_file, stop = (journal / f"{part.run_id}.{name}" for name in ("job", "stop"))
    job = Job.on(
        where,
        run_id=part.run_id,
        plan=part.plan,
        settings=part.settings,
        rows=part.rows,
        stop=str(stop),
        waited=waited,
    )
    try:
        with storing(job_file, journal):
            job.write(job_file)
            run_path(journal, part.run_id).touch()
        memory, journal_file = guest_memory(Plan.from_json(part.plan)), run_path(journal, part.run_id)
        with worker(where, "ktlslab.measure.worker", job_file, journal_file, memory=memory) as running:
            while (status := running.poll()) is None and not ending():
                if part.until is not None and time.time() >= part.until:
                    stop.touch()
                time.sleep(_LOOK_S)
            if status:
                raise failure(where, running.error(), status)
    finally:
        for path in (job_file, stop):
            path.unlink(missing_ok=True)


def failure(
    where: Machine, said: str, status: int, remedy: str = "What was measured is kept: continue with --resume."
) -> KtlsLabError:
    """Return the worker's last message as an error."""
    for line in reversed(said.strip().splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return MachineError(f"measuring on {where.name}", answered=json.loads(line)["error"])
    return MachineError(f"measuring on {where.name}", answered=f"exit status {status}: {said[-1500:]}", remedy=remedy)
