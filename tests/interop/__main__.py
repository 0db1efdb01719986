"""Run the interoperation matrix, print it, and end with 1 if a cell is not right or a stack is left out.

    python -m tests.interop [--on KERNEL]... [--only STACK] [--feature NAME] [--thin] [-o data/interop.parquet]

boots a guest of each kernel (default: uml-6.1, uml-6.12, uml), one after the other, runs all cells in it, prints the
table, and says which are wrong. -o records them, kernel by kernel, and keeps the rows of other kernels and of cells
that were not chosen. --here runs them on this kernel, and writes a line of JSON for each.
"""
# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from ktlslab.runs import provenance
from ktlslab.runs.job import Job
from tests.interop.guests import KERNELS, collect
from tests.interop.running import Chosen, Row, run
from tests.interop.table import LEFT_OUT, RIGHT, table


def say(row: Row) -> None:
    print(json.dumps(asdict(row)), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--on", action="append", metavar="KERNEL", help="a kernel; several times for several")
    parser.add_argument("--here", action="store_true", help="on this kernel, and print rows as JSON")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="only stacks whose role and name hold this: 'client nginx'")
    parser.add_argument("--feature", default="", help="only features whose name holds this")
    parser.add_argument("--thin", action="store_true", help="the part that tests/run runs")
    parser.add_argument("-o", "--output", type=Path, help="record the rows in TABLE.parquet")
    options = parser.parse_args()
    chosen = Chosen(thin=options.thin, stack=options.only, feature=options.feature)
    if options.here:
        if options.job:
            job = Job.read(options.job)
            labels = {"run_id": job.run_id, "machine": job.machine, "kernel": os.uname().release}
            print(json.dumps({"provenance": provenance.collect(job, labels)}), flush=True)
        run(chosen, say)
        return 0
    rows = []
    for name in options.on or KERNELS:
        began = time.monotonic()
        found, run_of = collect(name, chosen, progress=True)
        rows += found
        if options.output:
            from tests.interop.recording import record

            record(found, run_of, options.output, whole=chosen == Chosen())
        print(f"{name}: {len(found)} cells in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(table(rows))
    return 0 if rows and all(row["outcome"] == RIGHT for row in rows if LEFT_OUT not in row["outcome"]) else 1


if __name__ == "__main__":
    sys.exit(main())
