"""The job of a worker process, which travels as JSON. Only this module writes and reads it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ktlslab.linux import cpu

if TYPE_CHECKING:
    from ktlslab.runs.machines import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to do, and what the worker cannot find out itself.

    `plan`: a sweep's plan as JSON types, or the names of promises. For a sweep only: `settings`, the settings of the
    plan to measure (None: all); `rows`, what earlier runs measured of them; `stop`, a file whose existence means that
    no further block begins; `waited`, a message about the measurement that held the host's lock.
    """

    run_id: str
    machine: str
    plan: Any
    settings: Sequence[Sequence[Any]] | None = None
    rows: Sequence[Mapping[str, Any]] = ()
    stop: str = ""
    waited: str = ""
    parent: int | None = None  # the worker ends with this process; a guest ends with QEMU
    host: str = ""
    host_kernel: str = ""
    host_python: str = ""
    host_cpu: str = ""
    host_load: float | None = None
    emulator: str = ""
    commit: str = ""

    @classmethod
    def on(cls, where: Machine, **told: Any) -> Self:
        """Return a job for a machine, with the facts about this host."""
        return cls(
            machine=where.name,
            parent=os.getpid() if where.kernel is None else None,
            host=socket.gethostname(),
            host_kernel=os.uname().release,
            host_python=platform.python_version(),
            host_cpu=cpu.model(),
            host_load=os.getloadavg()[0],
            emulator=_emulator(where),
            commit=commit(),
            **told,
        )

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read what `write` wrote."""
        return cls(**json.loads(Path(path).read_text()))


def _emulator(where: Machine) -> str:
    """Return what runs a machine's kernel, "" for this machine's own."""
    from ktlslab import guests  # noqa: PLC0415 - slow to import, and the worker does not need it

    if where.kernel is None:
        return ""
    return "user-mode kernel" if where.kernel.user_mode else guests.emulator()


@functools.cache
def commit() -> str:
    """Return the commit of the code, "" outside a checkout."""
    argv = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError):
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    return ""
