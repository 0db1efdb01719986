"""A worker's process, on this machine or in a guest: `python -m MODULE JOB JOURNAL`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ktlslab import guests
from ktlslab.runs.machines import Machine

_GOODBYE_S = 10.0  # for a worker to exit after a signal
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # the order of a set of strings affects cost
_PACKAGES = Path(__file__).parents[2]  # so that `python -m` finds ktlslab from any folder


class Worker(Protocol):
    """A worker process, here or in a guest."""

    def poll(self) -> int | None:
        """Return its exit status, None while it runs. GuestError: its guest is gone."""

    def error(self) -> str:
        """Return its standard error; call this after it has ended."""


@contextlib.contextmanager
def worker(
    where: Machine,
    module: str,
    job: Path,
    journal: Path,
    *,
    image: tuple[Path, Path] | None = None,
    memory: str = "1G",
    plugin: str = "",
) -> Iterator[Worker]:
    """Run a worker, and end it on leaving the context. A guest shares the job's folder with the host.

    `memory`: a guest's. `image`: a disk image with packages, and the folder of the guest where it is mounted.
    `plugin`: QEMU's option of that name, for a guest.
    """
    argv = [sys.executable, "-m", module, str(job), str(journal)]
    if where.kernel is None:
        started = _here(argv)
    else:
        started = _in_guest(where, argv, job.parent, image=image, memory=memory, plugin=plugin)
    with started as running:
        yield running


@contextlib.contextmanager
def _here(argv: list[str]) -> Iterator[Worker]:
    with tempfile.TemporaryFile() as stderr:

        class Here:
            def poll(self) -> int | None:
                return process.poll()

            def error(self) -> str:
                stderr.seek(0)
                return stderr.read().decode(errors="replace")

        # A new session: Ctrl-C reaches only this process, which then ends the worker and the worker's peer.
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
def _in_guest(
    where: Machine, argv: list[str], folder: Path, *, image: tuple[Path, Path] | None, memory: str, plugin: str
) -> Iterator[Worker]:
    assert where.kernel is not None  # noqa: S101 - for the type checker
    env = _ENVIRONMENT | ({"PYTHONPATH": str(image[1]), "PYTHONDONTWRITEBYTECODE": "1"} if image else {})
    with guests.boot(
        where.kernel,
        argv,
        clock=where.clock,  # type: ignore[arg-type]
        rw=folder,
        cwd=_PACKAGES,
        env=env,
        image=image,
        memory=memory,
        plugin=plugin,
        cpu=where.cpu,
    ) as guest:

        class InGuest:
            def poll(self) -> int | None:
                return guest.poll()

            def error(self) -> str:
                return guest.wait(5).stderr.decode(errors="replace")

        yield InGuest()
