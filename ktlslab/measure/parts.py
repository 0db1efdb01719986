"""A part of a sweep: some settings of one machine, measured in one run.

A part is data, and what measures it is a function of that data alone, so it may run in this process, in another one, or
on another host. Settings go into it whole: what is compared was measured in one run.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ktlslab import guests
from ktlslab.errors import KtlsLabError, MachineError
from ktlslab.measure import provenance
from ktlslab.measure.journal import run_path
from ktlslab.measure.lock import measuring
from ktlslab.measure.machine import Machine, machine
from ktlslab.measure.plan import Setting
from ktlslab.measure.storage import storing

_LOOK_S = 0.2
_GOODBYE_S = 10.0  # for a worker that is asked to end
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # the order of sets and dicts of strings has its cost, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is to be measured in one run. `plan` and `rows` are as JSON holds them.

    `rows`: what of these settings an earlier run has measured. `machine`: "here" is the host that the part comes to.
    `until`: seconds since 1970 after which no block is begun.
    """

    run_id: str
    plan: Mapping[str, Any]
    settings: Sequence[Setting]
    rows: Sequence[Mapping[str, Any]]
    machine: str
    clock: str
    until: float | None = None


class _Running(Protocol):
    """A worker process, here or in a guest."""

    def poll(self) -> int | None: ...
    def error(self) -> str: ...


def run(part: Part) -> bytes:
    """Measure a part on this host, alone on it, and return its run's lines: what an executor is given.

    Raises what `measure` does; then nothing of the part is kept.
    """
    with tempfile.TemporaryDirectory(prefix="ktlslab-part-") as folder, measuring(str) as waited:
        measure(part, Path(folder), waited=waited)
        return run_path(Path(folder), part.run_id).read_bytes()


def measure(part: Part, journal: Path, *, ending: Callable[[], bool] = bool, waited: str = "") -> None:
    """Measure a part on this host into a journal. It is for the caller to hold the host's lock.

    `ending` is asked now and then whether to give up at once. `waited` says for whom the lock was waited for.
    Raises MachineError with what the worker said, GuestError, StorageError; rows measured until then are kept.
    """
    where = machine(part.machine, part.clock if part.machine != "here" else None)
    job_file, stop = (journal / f"{part.run_id}.{name}" for name in ("job", "stop"))
    job = {
        "plan": part.plan,
        "settings": part.settings,
        "rows": part.rows,
        "run_id": part.run_id,
        "machine": where.name,
        "host": socket.gethostname(),
        "host_kernel": os.uname().release,
        "host_python": platform.python_version(),
        "host_cpu": provenance.cpu(),
        "host_load": os.getloadavg()[0],
        "emulator": guests.emulator() if where.kernel else "",
        "parent": os.getpid() if where.kernel is None else None,  # a guest ends with QEMU
        "commit": commit(),
        "stop": str(stop),
        "waited": waited,
    }
    try:
        with storing(job_file, journal):
            job_file.write_text(json.dumps(job))
            run_path(journal, part.run_id).touch()
        argv = [sys.executable, "-m", "ktlslab.measure.worker", str(job_file), str(run_path(journal, part.run_id))]
        with _here(argv) if where.kernel is None else _in_guest(where, argv, journal) as worker:
            while (status := worker.poll()) is None and not ending():
                if part.until is not None and time.time() >= part.until:
                    stop.touch()
                time.sleep(_LOOK_S)
            if status:
                raise _failure(where, worker.error(), status)
    finally:
        for path in (job_file, stop):
            path.unlink(missing_ok=True)


@functools.cache
def commit() -> str:
    """Return the commit of the code that measures, empty where it is not in a checkout."""
    argv = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError):
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    return ""


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
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_GOODBYE_S)


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
