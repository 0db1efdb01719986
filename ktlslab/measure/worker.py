"""The process that measures: started by `sweep` on this machine or in a guest, it never imports pandas.

It gets a job as a JSON file and appends to a journal, one line of JSON a sample, each written out before the next
begins, so that a kill costs at most the sample in flight. The first line of each run is its provenance.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from ktlslab.errors import KtlsLabError, MachineError
from ktlslab.linux import probe
from ktlslab.linux.process import end_with_parent
from ktlslab.measure import clocks, provenance
from ktlslab.measure.arms import Arm, Ports, check
from ktlslab.measure.certificates import make_certificates
from ktlslab.measure.plan import Cell, Plan


def measure(job: dict[str, Any], journal: Path) -> None:
    """Measure what the job asks for and the journal has not."""
    if parent := job.get("parent"):
        end_with_parent(parent)
    plan = Plan.from_json(job["plan"])
    done = {tuple(key) for key in job["done"]}
    probe.probe()  # now: it loads the kernel's ciphers, whose drivers the provenance names, and moves its counters
    labels = {"run_id": job["run_id"], "machine": job["machine"], "kernel": os.uname().release}
    labels |= {"clock": clocks.current(), "unit": clocks.UNITS[clocks.current()]}
    # Batch: a process that is woken waits until the other one blocks. So it is the work that decides who runs when, on
    # one CPU above all, where a wake-up at another moment changes the count of everything that follows. The peer
    # inherits it.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(journal.open("a", encoding="utf-8"))
        _write(out, {"provenance": provenance.collect(job, labels)})
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ktlslab-peer-")))
        ports = stack.enter_context(_peer(folder))
        arms: dict[tuple[str, str, str], Arm] = {}
        for repeat, cell in plan.schedule():
            if key_of(cell, repeat) in done:
                continue
            if cell.session not in arms:
                arms[cell.session] = Arm(cell, ports)
                stack.callback(arms[cell.session].close)
            _write(out, _sample(arms[cell.session], cell, repeat, plan, labels))


def key_of(cell: Cell, repeat: int) -> tuple[Any, ...]:
    """Return what makes a sample the same sample in a resumed sweep."""
    return (*cell.session, cell.payload_bytes, cell.direction, cell.depth, cell.connections, repeat)


def _sample(arm: Arm, cell: Cell, repeat: int, plan: Plan, labels: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = dict(labels)
    row |= {name: getattr(cell, name) for name in cell.__slots__}
    row["repeat"] = repeat
    row |= arm.sample(cell, plan.bursts(cell))
    check(row)
    return row


def _write(out: Any, line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


@contextlib.contextmanager
def _peer(folder: Path) -> Any:
    certificates = make_certificates(folder)
    argv = [sys.executable, "-m", "ktlslab.measure.peer", str(certificates.chain), str(certificates.key)]
    argv.append(str(os.getpid()))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise MachineError("starting the peer", answered="it ended at once", remedy="See its message above.")
            plain, secure = map(int, line.split())
            yield Ports(plain=plain, secure=secure, ca=certificates.ca)
        finally:
            process.kill()


def main(argv: list[str]) -> int:
    """Run as `python -m ktlslab.measure.worker JOB JOURNAL`; on failure a line `{"error": ...}` on standard error."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through the clean-ups: the peer's key does not stay on disk
    try:
        measure(json.loads(Path(argv[0]).read_text()), Path(argv[1]))
    except KtlsLabError as error:
        failure = {"error": str(error)}
    except OSError as error:
        remedy = "Free space or check permissions, then go on with --resume: what was measured is kept"
        failure = {"error": f"measuring: {error}. {remedy}"}
    except Exception:  # noqa: BLE001 - the parent is another process, maybe on another kernel
        failure = {"error": traceback.format_exc()}
    else:
        return 0
    sys.stderr.write(json.dumps(failure) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
