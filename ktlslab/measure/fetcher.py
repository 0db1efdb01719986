"""The process that measures whole fetches, both ways (`measure.ways`): `python -m ktlslab.measure.fetcher JOB JOURNAL`.

A fetch is a new connection, its handshake, a request, the body, and the close. Every one of a block has the same peer
(`measure.peer`) and the same ring. Nothing heavy is imported.
"""

from __future__ import annotations

import gc
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ktlslab.errors import MachineError
from ktlslab.linux import capabilities
from ktlslab.linux.counters import Counters
from ktlslab.linux.ring import Ring
from ktlslab.measure import peer
from ktlslab.measure.payloads import payload
from ktlslab.measure.ways import NOW, WAYS, Asked
from ktlslab.measure.worker import Laboratory, main
from ktlslab.runs import clocks, provenance
from ktlslab.runs.job import Job

KIB = 1 << 10
BODIES = (64, KIB, 16 * KIB, 256 * KIB, KIB * KIB, 4 * KIB * KIB)
STAGES = ("connect", "handshake", "export", "install", "transfer", "close")
REPEATS = 5
_WARM_UP = 2


def fetches(job: Job, journal: Path) -> None:
    """Measure what the job's plan says: `bodies` and `repeats`."""
    capabilities.probe()
    labels = {"run_id": job.run_id, "host": job.host, "machine": job.machine, "kernel": os.uname().release}
    labels |= {"clock": clocks.current(), "unit": clocks.UNITS[clocks.current()]}
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # as in a sweep
    with journal.open("a", encoding="utf-8") as out, Laboratory() as laboratory:
        out.write(json.dumps({"provenance": provenance.collect(job, labels)}) + "\n")
        for row in measured(laboratory, job.plan["bodies"], job.plan["repeats"]):
            out.write(json.dumps(labels | row) + "\n")
            out.flush()


def measured(laboratory: Laboratory, bodies: list[int], repeats: int) -> Iterator[dict[str, Any]]:
    """Yield a row per fetch, block by block. A block has each body by each way once, and by one of them twice."""
    ports = laboratory.ports()
    with Ring() as ring:
        for repeat in range(-_WARM_UP, repeats):
            for body in bodies:
                asked = Asked(
                    host=ports.address,
                    port=ports.secure,
                    ca=ports.ca,
                    request=peer.REQUEST.pack(peer.DOWNLOAD, body, 1, 0, 1) + peer.MARK,
                    size=len(peer.MARK) + body,
                )
                arms = [(name, 0) for name in WAYS] + [(NOW, 1)]
                for name, replica in random.Random(f"{body} {repeat}").sample(arms, len(arms)):  # noqa: S311
                    row = _row(name, asked, ring, body)
                    if repeat >= 0:
                        yield {"way": name, "replica": replica, "body_bytes": body, "repeat": repeat, **row}


def _row(name: str, asked: Asked, ring: Ring, body: int) -> dict[str, Any]:
    """Fetch once, and return what each stage took. MachineError where the body is not the peer's."""
    begun: list[str] = []
    times: list[tuple[int, int]] = []
    clock, cpu = time.monotonic_ns, clocks.CPU_CLOCK

    def stage(name: str) -> None:
        begun.append(name)
        times.append((clock(), time.clock_gettime_ns(cpu)))

    gc.collect()
    before = Counters.read()
    fetched = WAYS[name](asked, ring, stage)
    stage("")
    counted = Counters.read() - before
    if fetched.answer[len(peer.MARK) :] != payload(body):
        raise MachineError(f"fetching {body} bytes, {name}", answered="other bytes came")
    if (fetched.record_layer == "kernel") != (counted["TlsTxSw"] > 0 and counted["TlsRxSw"] > 0):
        raise MachineError(f"fetching {name}", answered=f"said {fetched.record_layer}, and the kernel counts otherwise")
    row: dict[str, Any] = {
        "record_layer": fetched.record_layer,
        "io_engine": fetched.io_engine,
        "suite": fetched.suite,
    }
    for whole, part, what in (("latency", "latency", 0), ("client_cpu", "cpu", 1)):
        took = {name: after[what] - at[what] for name, at, after in zip(begun, times, times[1:], strict=False)}
        total = sum(took.values())
        known = not what or not math.isnan(clocks.cpu_figure(total, 1))
        row[whole] = float(total) if known else math.nan
        row |= {f"{part}_{name}": float(took.get(name, 0)) if known else math.nan for name in STAGES}
    return row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], fetches))
