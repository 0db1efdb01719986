"""The scoreboard: the promises checked on several kernels, as one table with a row for each kernel and promise.

A guest runs the checks and writes a journal. This module boots the guest, follows the journal, and makes the table. A
check that takes the kernel down is a verdict as well: the panic is what was seen, and a new guest checks the remaining
promises. Checks that are known to endanger this kernel (`Promise.cve`) come last, each in a guest of its own, so that
what one leaves behind in a kernel that survives it is not blamed on another. On this machine's own kernel they run in
such guests, too, or, if it cannot be booted in one, only if `dangerous` says so.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab import _checks, guests
from ktlslab.errors import GuestError, MachineError, StorageError, UsageError
from ktlslab.guests import kernelimage
from ktlslab.linux import capabilities
from ktlslab.packages import require
from ktlslab.promises.catalogue import select
from ktlslab.promises.check import BROKEN, UNTRIED, Promise
from ktlslab.promises.journal import Journal, boot_id, note, note_verdict
from ktlslab.promises.table import row, to_frame
from ktlslab.runs.job import Job
from ktlslab.runs.journal import journal_path
from ktlslab.runs.launching import worker
from ktlslab.runs.machines import Machine, machines_of
from ktlslab.runs.storage import store, storing, table_path

if TYPE_CHECKING:
    import pandas as pd

IMPORTED = ("pyopenssl", "cryptography", "cffi")  # what a guest imports, in a disk image
_CHECKER = "ktlslab.promises.checker"
_TRIED = "checking promises"
_DOWN = "took the kernel down"
_STALLED_S = 90.0  # longer than boot and imports, or any check: a guest that is silent for so long hangs
_STARTS = 2  # attempts with a guest that gives no verdict at all
_LOOK_S = 0.25
_GUEST_BYTES = 3 << 29  # of this machine's memory that a guest needs, roughly

Say = Callable[[str], None]


def scoreboard(
    on: str | Sequence[str] = "auto",
    *,
    output: str | Path | None = None,
    names: str | Sequence[str] | None = None,
    dangerous: bool = False,
    resume: bool = False,
    say: Say | None = None,
) -> pd.DataFrame:
    """Check promises on machines and return the table (`PROMISE_COLUMNS`), a row per machine and promise.

    `on`: machines (auto, here, a guest's series or build, oldest, newest, uml). `names`: only these promises, given as
    `select` takes them. `output`: write the table to NAME.parquet, and the provenance beside it; until it is complete,
    each verdict is kept in NAME.parquet.rows as it comes, and `resume` goes on from there, even after this machine went
    down: the check that did it is then broken. `say`: a function that is called with lines on the progress.
    A broken promise is a row, not an error.

    Some checks can take down a kernel whose fault is not mended. Of this machine's own kernel they are tried in a guest
    of the same kernel, and are "not tried" if there is none. With `dangerous` they are tried on this machine itself,
    after all others.

    Raises UsageError, MachineError (no kTLS here, no guest), StorageError.
    """
    require("lab", "pandas", "pyarrow")
    wanted = select(names)
    table = _checks.optional(table_path, "recording promises", "output", output)
    for name, value in (("dangerous", dangerous), ("resume", resume)):
        _checks.instance(_TRIED, name, value, bool)
    _checks.optional(_checks.instance, _TRIED, "say", say, Callable, "a function of a line, such as print")
    machines = machines_of(on, "wall", looking=True)
    with _kept(table, machines, resume=resume) as folder:
        check = functools.partial(
            _check_on, wanted=wanted, folder=folder, say=say or (lambda _: None), dangerous=dangerous
        )
        with ThreadPoolExecutor(_at_once()) as pool:
            runs = list(pool.map(check, machines))
        frame = to_frame([one for rows, _ in runs for one in rows], {known["run_id"]: known for _, known in runs})
        if table:
            store(frame, table)
    return frame


@contextlib.contextmanager
def _kept(table: Path | None, machines: Sequence[Machine], *, resume: bool) -> Iterator[Path]:
    """Yield the folder for the journals. It stays beside the table if the table is not written in the end."""
    if table is None:
        if resume:
            raise UsageError(_TRIED, answered="`resume` without `output`", remedy="Name the table to be continued.")
        with tempfile.TemporaryDirectory(prefix="ktlslab-promises-") as scratch:
            yield Path(scratch)
        return
    folder = journal_path(table)
    if left := {path.name for path in folder.glob("*.jsonl")}:
        if not resume:
            remedy = f"Continue with --resume, or remove {folder}."
            raise UsageError(f"checking promises into {table}", answered="an earlier run left verdicts", remedy=remedy)
        if others := left - {_journal(where) for where in machines}:
            remedy = "Resume on the same machines, or these and more, or choose another output."
            answered = f"there are verdicts of others in {folder}: {', '.join(sorted(others))}"
            raise UsageError(f"resuming {table}", answered=answered, remedy=remedy)
    with storing(table):
        folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _check_on(
    where: Machine, *, wanted: Sequence[Promise], folder: Path, say: Say, dangerous: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a machine's rows and its provenance."""
    if where.kernel is None and not capabilities.ulp():
        remedy = "Check a guest's kernel: `--on newest`."
        raise MachineError("checking promises here", answered="this kernel has no kTLS", remedy=remedy)
    journal = folder / _journal(where)
    earlier = Journal.read(journal)
    if earlier.began and earlier.boot not in ("", boot_id()):
        note_verdict(journal, earlier.began, BROKEN, f"{_DOWN}: this machine started anew before the check ended")
    new_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{where.name}-{uuid.uuid4().hex[:6]}"
    run_id = str(earlier.provenance.get("run_id", new_id))
    version = where.kernel.upstream if where.kernel else _own_version()
    risky = [promise for promise in wanted if promise.endangers(version)]
    check = functools.partial(_check_all, journal=journal, run_id=run_id, say=say)
    check([promise for promise in wanted if promise not in risky], where)
    apart = risky if where.kernel is None and not dangerous else []
    why = _check_apart(apart, where, check, say) if apart else ""
    if where.kernel is None and risky and dangerous:
        say(f"{where.name}: WARNING: this may take the machine down: {_named(risky)}")
    for promise in risky if not apart else ():
        check([promise], where)
    found = Journal.read(journal)
    untried = {"verdict": UNTRIED, "seen": why, "seconds": None}
    rows = [
        row(promise, found.verdicts.get(promise.name, untried), where.name, _release(where), run_id)
        for promise in wanted
    ]
    in_guest = [promise.name for promise in apart if promise.name in found.verdicts]
    return rows, {**found.provenance, "run_id": run_id, "plan": len(wanted), "in_a_guest": in_guest}


def _check_apart(risky: Sequence[Promise], where: Machine, check: Callable[..., None], say: Say) -> str:
    """Check in guests what can take this machine's own kernel down; return why that cannot be, or ""."""
    kernel = os.uname().release
    try:
        guest = replace(where, kernel=guests.own())
        say(f"{where.name}: {_named(risky)} may take a kernel down: tried in a guest of {kernel}")
        for promise in risky:
            check([promise], guest)
    except StorageError:
        raise
    except MachineError as error:
        reason = f"{error.tried}: {error.answered}".partition("\n")[0]
        say(f"{where.name}: {_named(risky)} may take this machine down: not tried (--dangerous would)")
        return f"it may take this machine down, and a guest of {kernel} is not available ({reason}): see --dangerous"
    return ""


def _check_all(wanted: Sequence[Promise], where: Machine, *, journal: Path, run_id: str, say: Say) -> None:
    """Check what the journal has no verdict of yet, with a new guest after each check that takes the kernel down."""
    starts = 0
    while left := [promise.name for promise in wanted if promise.name not in Journal.read(journal).verdicts]:
        say(f"{where.name}: {len(left)} to check")
        note(journal, {"boot": "" if where.kernel else boot_id()})
        why = _once(where, Job.on(where, run_id=run_id, plan=left), journal)
        now = Journal.read(journal)
        if now.began:
            say(f"{where.name}: {now.began.replace('_', ' ')}: {why}")
            note_verdict(journal, now.began, BROKEN, why)
        elif not now.verdicts.keys() & set(left) and (starts := starts + 1) == _STARTS:
            raise MachineError(f"checking promises on {where.name}", answered=why or "nothing was checked")


def _once(where: Machine, job: Job, journal: Path) -> str:
    """Run the checks once; return why the run failed, or ""."""
    at = journal.with_suffix(".job")
    job.write(at)
    image = kernelimage.build(*IMPORTED) if where.kernel else None
    began, why = time.time(), ""
    try:
        with worker(where, _CHECKER, at, journal, image=(image, kernelimage.PLACE) if image else None) as running:
            while (status := running.poll()) is None:
                time.sleep(_LOOK_S)
                if time.time() - max(began, _written(journal)) > _STALLED_S:
                    why = f"{_DOWN}: it was silent for {_STALLED_S:g} s"
                    break
            if status:
                why = f"exit status {status}: {running.error().strip()[-500:]}"
    except GuestError as error:
        why = last_words(str(error))
    return why


def last_words(text: str) -> str:
    """Return the reason for a kernel's crash from a guest's error, in one line."""
    panic = re.search(r"Kernel panic - not syncing: .*", text)
    place = re.search(r"RIP: \w+:(\w+)", text)
    if not panic:
        return text[-500:]
    return f"{_DOWN}: {panic[0].strip()}{f', in {place[1]}' if place else ''}"


def _journal(where: Machine) -> str:
    return f"{where.name}-{_release(where)}.jsonl"


def _release(where: Machine) -> str:
    return where.kernel.release if where.kernel else os.uname().release


def _own_version() -> str:
    """Return the upstream version of this kernel; the release of one of Debian's (6.1.0-50-amd64) does not say it."""
    uname = os.uname()
    built = re.search(r" Debian (\d\S*)", uname.version)
    return built[1] if built else uname.release


def _named(promises: Sequence[Promise]) -> str:
    return ", ".join(f"{promise.title} ({promise.cve})" for promise in promises)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _at_once() -> int:
    """Return how many guests run side by side: one per CPU, limited by memory, at most two."""
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(2, os.cpu_count() or 1, memory // _GUEST_BYTES))
