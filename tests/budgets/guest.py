"""The program inside the guest: rounds of all contestants with one peer, one line of JSON per run.

    guest.py PROGRAM RESULTS [--profile]

PROGRAM is reference.c, compiled; runs are appended to RESULTS. In a round each contestant runs once, so that drift
affects all alike. The conditions are those of `ktlslab.measure.worker`: SCHED_BATCH for both ends, so that scheduling
depends only on the work.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contestants import Contestant, Figures, Ours, Reference, Work
from layers import LAYERS
from prices import prices

ROUNDS = 9
DEPTH = 16
WORKS = {
    "echo 64 B": Work(workload="echo", size=64, batch=1, steps=100),
    "echo 16 KiB": Work(workload="echo", size=16384, batch=1, steps=30),
    "upload 64 B": Work(workload="upload", size=64, batch=64, steps=8),
}
DEEP = {
    f"upload 64 B, depth {DEPTH}": Work(workload="upload", size=64, batch=DEPTH, steps=24),
    f"echo 64 B, depth {DEPTH}": Work(workload="echo", size=64, batch=DEPTH, steps=24),
}
PROFILED = {
    "send": Work(workload="sends", size=64, batch=1, steps=100),
    "receive, reply to come": Work(workload="replies", size=64, batch=1, steps=100),
    "receive, all there": Work(workload="receives", size=64, batch=16, steps=8),
    "upload, CPU": Work(workload="upload", size=64, batch=64, steps=8),
}


def contestants(program: Path) -> Iterator[tuple[str, Work, str, Contestant]]:
    """Yield (work's name, work, contestant's name, contestant) in the order of a round."""
    for name, work in WORKS.items():
        yield name, work, "C uring", Reference(program=program, engine="uring")
        yield name, work, "ktlslab uring", Ours(engine="uring")
        yield name, work, "C blocking", Reference(program=program, engine="blocking")
        yield name, work, "ktlslab syscall", Ours(engine="syscall")
    for name, work in DEEP.items():
        yield name, work, "C uring, a batch", Reference(program=program, engine="uring-batch")
        yield name, work, "C blocking", Reference(program=program, engine="blocking")
        yield name, work, "ktlslab uring", Ours(engine="uring", batched=True)
        yield name, work, "ktlslab syscall", Ours(engine="syscall")


def layers(program: Path) -> Iterator[tuple[str, Work, str, Contestant]]:
    for name, work in PROFILED.items():
        for engine in ("blocking", "uring", "uring-timed"):
            yield name, work, f"C {engine}", Reference(program=program, engine=engine)
        for engine, parts in LAYERS.items():
            for part, layer in parts.items():
                yield name, work, f"{engine}: {part}", Ours(engine=engine, layer=layer)


@contextlib.contextmanager
def peer(program: Path) -> Iterator[int]:
    """Run the peer, and yield its port."""
    with subprocess.Popen([program, "peer", "kernel"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline() if process.stdout else 0)
        finally:
            process.kill()


def proven(contestant: Contestant, work: Work, port: int) -> Figures:
    """Run and return the figures, which count only if the kernel made and received enough records."""
    figures, operations = contestant.run(work, port), work.batch * work.steps
    sent, received = work.workload != "receives", work.workload != "upload"
    if (sent and figures.sent < operations) or (received and figures.received < operations):
        raise RuntimeError(f"{contestant}, {work}: the kernel did not do the work: {figures}")
    return figures


def main(program: Path, results: Path, *, profile: bool) -> None:
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with results.open("a", encoding="utf-8") as out, peer(program) as port:

        def write(**line: Any) -> None:
            out.write(json.dumps(line) + "\n")
            out.flush()

        for number in range(ROUNDS):
            for name, work, who, contestant in contestants(program):
                write(work=name, who=who, round=number, **asdict(proven(contestant, work, port)))
        if profile:
            for bought, price in prices().items():
                write(work="prices", who=bought, round=0, step=price)
            for name, work, who, contestant in layers(program):
                write(work=name, who=who, round=0, **asdict(proven(contestant, work, port)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), profile="--profile" in sys.argv[3:])
