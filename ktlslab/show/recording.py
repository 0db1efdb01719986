"""What several kernels showed of the two ways and of falling back, for machines that cannot show it themselves.

    python -m ktlslab.show.recording RUNS.json     # here, on the oldest user-mode kernel and on the newest

Each run has what `ways.traces` and `fallbacks.made` found there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ktlslab import _checks, guests
from ktlslab.errors import GuestError, TableError
from ktlslab.runs.storage import unreadable
from ktlslab.show import fallbacks, ways
from ktlslab.show.fallbacks import Fallback
from ktlslab.show.server import demo_server
from ktlslab.show.ways import Trace

MACHINES = ("here", "uml-6.1", "uml")
_MODULE = "ktlslab.show.recording"  # also where it is run as a program
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one kernel showed."""

    machine: str
    kernel: str
    traces: tuple[Trace, ...]
    fallbacks: tuple[Fallback, ...]

    @classmethod
    def here(cls, machine: str = "here") -> Self:
        """Look at this machine."""
        with demo_server() as server:
            found = tuple(ways.traces(server)), tuple(fallbacks.made(server))
        return cls(machine=machine, kernel=os.uname().release, traces=found[0], fallbacks=found[1])

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        return cls(
            machine=found["machine"],
            kernel=found["kernel"],
            traces=tuple(map(Trace.from_json, found["traces"])),
            fallbacks=tuple(Fallback(**one) for one in found["fallbacks"]),
        )


def recorded(path: str | Path) -> list[Run]:
    """Return the runs in a file that `record` wrote. TableError where it holds none."""
    path = _checks.path("reading recorded runs", "path", path)
    try:
        return [Run.from_json(one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "Give a file that `python -m ktlslab.show.recording` wrote."
        raise TableError(f"reading {path}", answered=unreadable(path, error), remedy=remedy) from error


def with_kernel_records(runs: Sequence[Run]) -> Run:
    """Return the last of the runs whose kernel made records: that of the newest kernel."""
    return next(run for run in reversed(runs) if any(trace.record_layer == "kernel" for trace in run.traces))


def beside(runs: Sequence[Run], found: Sequence[Trace]) -> list[Trace]:
    """Return the recorded trace whose records a kernel made; none where one that was just found has such records."""
    if any(trace.record_layer == "kernel" for trace in found):
        return []
    return [trace for trace in with_kernel_records(runs).traces if trace.record_layer == "kernel"]


def record(path: str | Path, on: tuple[str, ...] = MACHINES) -> list[Run]:
    """Look at machines, and write what was found. GuestError where one cannot tell."""
    path = _checks.path("recording runs", "path", path)
    found = []
    for name in on:
        if name == "here":
            found.append(Run.here())
            continue
        argv = [sys.executable, "-m", _MODULE, "--print", name]
        done = guests.run(guests.find(name), argv, cwd=Path(__file__).parents[2], timeout=_PATIENCE_S)
        if done.returncode:
            answered = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise GuestError(f"looking at {name}", answered=answered)
        found.append(Run.from_json(json.loads(done.stdout)))
    path.write_text(json.dumps([asdict(run) for run in found], indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    if sys.argv[1] == "--print":
        print(json.dumps(asdict(Run.here(sys.argv[2]))))  # noqa: T201 - for the process that booted this kernel
    else:
        record(sys.argv[1])
