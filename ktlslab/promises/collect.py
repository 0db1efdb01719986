"""The scoreboard: the promises checked on several kernels, as one table with a row for each kernel and promise.

A guest runs the checks and writes a journal. This module boots the guest, follows the journal, and makes the table. A
check that crashes the kernel is a verdict as well: the last console message is what was seen, and a new guest checks
the remaining promises.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import GuestError, MachineError, TableError, UsageError
from ktlslab.guests import kernelimage
from ktlslab.linux import capabilities
from ktlslab.packages import extra, require
from ktlslab.promises.catalogue import all_promises
from ktlslab.promises.check import BROKEN, VERDICTS, Promise
from ktlslab.runs.job import Job
from ktlslab.runs.launching import worker
from ktlslab.runs.machines import Machine, machines_of
from ktlslab.runs.storage import store, storing, table_path, unreadable

if TYPE_CHECKING:
    import pandas as pd

PROMISE_COLUMNS = (
    "machine",  # here, or the series of the guest's kernel
    "kernel",  # the release of the kernel
    "group",  # subject of the promise
    "promise",  # its name: the check's function
    "says",  # the promise in a sentence
    "source",  # where it comes from
    "verdict",  # kept, broken, not in this kernel
    "seen",  # what the kernel did
    "seconds",  # how long the check took
    "file",  # where the check is defined
    "line",
    "run_id",
)
IMPORTED = ("pyopenssl", "cryptography", "cffi")  # what a guest imports, in a disk image
_STALLED_S = 90.0  # longer than boot and imports, or any check: a guest that is silent for so long hangs
_STARTS = 2  # attempts with a guest that gives no verdict at all
_LOOK_S = 0.25
_GUEST_BYTES = 3 << 29  # of this machine's memory that a guest needs, roughly

Say = Callable[[str], None]


@dataclass(slots=True)
class _Journal:
    """What a journal holds: verdicts by name, the check that began and did not end, the provenance."""

    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    began: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> _Journal:
        journal = cls()
        for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
            with contextlib.suppress(ValueError):  # an incomplete last line
                entry = json.loads(line)
                if "provenance" in entry:
                    journal.provenance = entry["provenance"]
                elif "began" in entry:
                    journal.began = entry["began"]
                else:
                    journal.verdicts[entry["promise"]] = entry
                    journal.began = None
        return journal


def scoreboard(
    on: str | Sequence[str] = "auto",
    *,
    output: str | Path | None = None,
    names: str | Sequence[str] | None = None,
    say: Say | None = None,
) -> pd.DataFrame:
    """Check promises on machines and return the table (`PROMISE_COLUMNS`), a row per machine and promise.

    `on`: machines (auto, here, a guest's series, oldest, newest). `names`: only these promises. `output`: write the
    table to NAME.parquet, and the provenance beside it. `say`: a function that is called with lines on the progress.
    A broken promise is a row, not an error.

    Raises UsageError, MachineError (no kTLS here, no guest), StorageError.
    """
    require("lab", "pandas", "pyarrow")
    wanted = _chosen(names)
    table = _checks.optional(table_path, "recording promises", "output", output)
    _checks.optional(_checks.instance, "checking promises", "say", say, Callable, "a function of a line, such as print")
    machines = machines_of(on, "wall")
    image = kernelimage.build(*IMPORTED) if any(where.kernel for where in machines) else None
    with ThreadPoolExecutor(_at_once()) as pool:
        runs = list(pool.map(lambda where: _check_on(where, wanted, image, say or (lambda _: None)), machines))
    frame = to_frame(
        [row for rows, _ in runs for row in rows],
        {known["run_id"]: known for _, known in runs},
    )
    if table:
        with storing(table):
            table.parent.mkdir(parents=True, exist_ok=True)
        store(frame, table)
    return frame


def to_frame(rows: list[dict[str, Any]], runs: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return rows as the table; `attrs["provenance"]` is a copy of `runs`."""
    with extra("lab"):
        import pandas as pd  # noqa: PLC0415 - the import takes half a second, and the command line may not need it

    frame = pd.DataFrame(rows, columns=list(PROMISE_COLUMNS))
    frame.attrs["provenance"] = runs
    return frame


def read_scoreboard(path: str | Path) -> pd.DataFrame:
    """Read a table of promises and its provenance. TableError says what is wrong with it."""
    require("lab", "pandas", "pyarrow")
    import pandas as pd  # noqa: PLC0415

    path = _checks.path("reading a table of promises", "path", path)
    remedy = "Give a table that `ktlslab promises -o` wrote."
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise TableError(f"reading {path}", answered=unreadable(path, error), remedy=remedy) from error
    if missing := [name for name in PROMISE_COLUMNS if name not in frame.columns]:
        raise TableError(f"reading {path}", answered=f"it lacks the columns {', '.join(missing)}", remedy=remedy)
    if (beside := path.with_suffix(".json")).exists():
        frame.attrs["provenance"] = json.loads(beside.read_text())
    return frame


def summary(frame: pd.DataFrame) -> str:
    """Say in lines of text how each kernel does: groups by verdicts, and each broken promise with what was seen."""
    _checks.frame("summing up promises", "frame", frame, PROMISE_COLUMNS)
    lines = []
    for (name, kernel), rows in frame.groupby(["machine", "kernel"], sort=False):
        lines.append(f"{name} (Linux {kernel}): {_counted(rows)}")
        lines += [f"  {group:<24} {_counted(part)}" for group, part in rows.groupby("group", sort=False)]
        broken = rows[rows["verdict"] == BROKEN]
        names = broken["promise"].str.replace("_", " ")
        lines += [f"  broken: {title}\n          {seen}" for title, seen in zip(names, broken["seen"], strict=True)]
    return "\n".join(lines)


def _counted(rows: pd.DataFrame) -> str:
    counts = rows["verdict"].value_counts()
    return ", ".join(f"{counts[verdict]:>3} {verdict}" for verdict in VERDICTS if verdict in counts)


def _chosen(names: str | Sequence[str] | None) -> tuple[Promise, ...]:
    known = {promise.name: promise for promise in all_promises()}
    if names is None:
        return tuple(known.values())
    asked = _checks.words("choosing promises", "names", names, "names of promises")
    if unknown := [name for name in asked if name not in known]:
        remedy = f"{_checks.nearest(unknown[0], known)}`ktlslab.promises.all_promises()` has all."
        raise UsageError("choosing promises", answered=f"there is none called {', '.join(unknown)}", remedy=remedy)
    return tuple(known[name] for name in asked)


def _check_on(
    where: Machine, wanted: Sequence[Promise], image: Path | None, say: Say
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a machine's rows and its provenance."""
    if where.kernel is None and not capabilities.ulp():
        remedy = "Check a guest's kernel: `--on newest`."
        raise MachineError("checking promises here", answered="this kernel has no kTLS", remedy=remedy)
    run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{where.name}-{uuid.uuid4().hex[:6]}"
    verdicts: dict[str, dict[str, Any]] = {}
    known: dict[str, Any] = {}
    starts = 0
    with tempfile.TemporaryDirectory(prefix="ktlslab-promises-") as scratch:
        while left := [promise.name for promise in wanted if promise.name not in verdicts]:
            job = Job.on(where, run_id=run_id, plan=left)
            say(f"{where.name}: {len(left)} promises to check")
            journal, why = _once(where, job, Path(scratch), image)
            verdicts |= journal.verdicts
            known = known or journal.provenance
            if journal.began:
                say(f"{where.name}: {journal.began.replace('_', ' ')}: {why}")
                verdicts[journal.began] = {"verdict": BROKEN, "seen": why, "seconds": float("nan")}
            elif not journal.verdicts and (starts := starts + 1) == _STARTS:
                raise MachineError(f"checking promises on {where.name}", answered=why or "nothing was checked")
    release = where.kernel.release if where.kernel else os.uname().release
    rows = [_row(promise, verdicts[promise.name], where.name, release, run_id) for promise in wanted]
    return rows, {**known, "run_id": run_id, "plan": len(wanted)}


def _row(promise: Promise, found: dict[str, Any], name: str, release: str, run_id: str) -> dict[str, Any]:
    return {
        "machine": name,
        "kernel": release,
        "group": promise.group,
        "promise": promise.name,
        "says": promise.says,
        "source": promise.source,
        "verdict": found["verdict"],
        "seen": found["seen"],
        "seconds": found["seconds"],
        "file": promise.file,
        "line": promise.line,
        "run_id": run_id,
    }


def _once(where: Machine, job: Job, scratch: Path, image: Path | None) -> tuple[_Journal, str]:
    """Run the checks once; return the journal, and why the run failed, or ""."""
    folder, began = Path(tempfile.mkdtemp(dir=scratch)), time.time()
    journal = folder / "journal"
    job.write(folder / "job")
    mounted = (image, kernelimage.PLACE) if image else None
    why = ""
    try:
        with worker(where, "ktlslab.promises.checker", folder / "job", journal, image=mounted) as running:
            while (status := running.poll()) is None:
                time.sleep(_LOOK_S)
                if time.time() - max(began, _written(journal)) > _STALLED_S:
                    why = f"the kernel was silent for {_STALLED_S:g} s"
                    break
            if status:
                why = f"exit status {status}: {running.error().strip()[-500:]}"
    except GuestError as error:
        why = last_words(str(error))
    return _Journal.read(journal), why


def last_words(text: str) -> str:
    """Return the reason for a kernel's crash from a guest's error, in one line."""
    panic = re.search(r"Kernel panic - not syncing: (.*)", text)
    place = re.search(r"RIP: \w+:(\w+)", text)
    if not panic:
        return text[-500:]
    return f"the kernel went down: panic, {panic[1].strip()}{f', in {place[1]}' if place else ''}"


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _at_once() -> int:
    """Return how many guests run side by side: one per CPU, limited by memory, at most two."""
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(2, os.cpu_count() or 1, memory // _GUEST_BYTES))
