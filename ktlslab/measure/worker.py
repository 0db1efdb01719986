"""The process that measures. `sweep` starts it on this machine or in a guest; it never imports pandas.

It reads a job from a JSON file and appends to a journal, one line of JSON per sample. Each line is flushed before the
next sample begins, so a kill costs at most the sample in flight. The first line of each run is its provenance; the last
is the provenance again, with what is known only at the end.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, cast

from ktlslab.certificates import Certificates, make_certificates
from ktlslab.errors import KtlsLabError, MachineError
from ktlslab.linux import capabilities
from ktlslab.linux.process import end_with_parent
from ktlslab.measure.arms import LeftOut, OpenArm, Ports, check
from ktlslab.measure.blocks import Blocks, cell_of
from ktlslab.measure.link import Ends, Link, lay
from ktlslab.measure.plan import Cell, Plan, Setting
from ktlslab.measure.serving import ServerSet
from ktlslab.runs import clocks, provenance
from ktlslab.runs.job import Job
from ktlslab.runs.unusual import Unusual

MIN_SAMPLE_NS = 40_000_000  # of timed steps in a sample, under the wall clock


def measure(job: Job, journal: Path) -> None:
    """Measure what the job asks for, except the rows that it has already."""
    if job.parent:
        end_with_parent(job.parent)
    plan = Plan.from_json(job.plan)
    settings = None if job.settings is None else [cast("Setting", tuple(setting)) for setting in job.settings]
    blocks = Blocks(plan, job.rows, settings, whole=True)
    kept = {(cell_of(row).setting, row["repeat"]) for row in job.rows}
    capabilities.probe()  # first: it loads the ciphers, whose drivers the provenance names, and changes the counters
    labels = {"run_id": job.run_id, "host": job.host, "machine": job.machine, "kernel": os.uname().release}
    labels |= {"clock": clocks.current(), "unit": clocks.UNITS[clocks.current()]}
    # SCHED_BATCH: a process that wakes up waits until the other one blocks. So the work decides which of them runs,
    # above all on one CPU, where a wake-up at another moment changes all counts after it. The peer inherits it.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(journal.open("a", encoding="utf-8"))
        about = provenance.collect(job, labels)
        unusual = Unusual(waited=job.waited, links=plan.links)
        _write(out, {"provenance": about})
        laboratory = stack.enter_context(Laboratory())
        stop = Path(job.stop)
        begun: tuple[Any, ...] = ()
        left_out: dict[str, str] = {}
        for repeat, position, cell in blocks:
            if (cell.setting, repeat) in kept:  # an arm that was left out then
                continue
            if begun != (repeat, cell.setting) and stop.exists():
                break
            begun = (repeat, cell.setting)
            try:
                row = _sample(laboratory.arm(cell), cell, plan)
            except LeftOut as refusal:
                left_out[cell.session_name] = str(refusal)
                blocks.leave_out(cell.session_name)
                _write(out, {"provenance": about | {"left_out": left_out}})  # now, so that a resumed sweep knows
                continue
            row = labels | {name: getattr(cell, name) for name in cell.__slots__} | row
            row |= {"repeat": repeat, "position": position}
            check(row)
            blocks.take(row)
            unusual.take(row)
            _write(out, row)
        _write(out, {"provenance": about | {"left_out": left_out, "unusual": unusual.notes()}})


def _sample(arm: OpenArm | ServerSet, cell: Cell, plan: Plan) -> dict[str, Any]:
    slowed, share = plan.slowed()
    # Counts of instructions repeat, times do not: a timed sample must last long enough for overhead to matter little.
    least = MIN_SAMPLE_NS if clocks.current() == "wall" else 0
    # It slows both of two equal arms; otherwise it would count as noise.
    handicap = share if slowed == f"{cell.record_layer}+{cell.io_engine}" else 0.0
    return arm.sample(cell, plan.steps_of(cell), least, handicap)


class Laboratory:
    """What stays open while a plan is measured: the links with their peers, and the sessions of each arm."""

    def __init__(self) -> None:
        self._arms: dict[tuple[Any, ...], OpenArm] = {}
        self._links: dict[str, Ends] = {}
        self._peers: dict[str, Ports] = {}
        self._room: Any = None
        self._serving: dict[tuple[str, str], ServerSet] = {}  # by record layer and suite
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def arm(self, cell: Cell) -> OpenArm | ServerSet:
        """Return the cell's arm, opened on first use. LeftOut: it is not available on this machine."""
        if cell.workload == "serve":
            return self._server(cell)
        key = (*cell.session, cell.connections)
        if key not in self._arms:
            with self._link(cell.link).near():
                self._arms[key] = OpenArm(cell, self._ports(cell.link))
            self._stack.callback(self._arms[key].close)
        return self._arms[key]

    def _server(self, cell: Cell) -> ServerSet:
        """Return the open sessions that serve this cell, after closing those of another number of connections."""
        if self._room != cell.room:
            while self._serving:
                self._serving.popitem()[1].close()
            self._room = cell.room
        key = cell.record_layer, cell.suite
        if key not in self._serving:
            ends = self._link(cell.link)
            with ends.near():
                self._serving[key] = ServerSet(cell, ends.near_address, ends.prefix)
            self._stack.callback(self._serving[key].close)
        return self._serving[key]

    def _link(self, text: str) -> Ends:
        if text not in self._links:
            try:
                self._links[text] = self._stack.enter_context(lay(Link.parse(text)))
            except MachineError as error:
                raise LeftOut(error.tried, answered=error.answered, remedy=error.remedy) from error
        return self._links[text]

    def ports(self, link: str = "loopback") -> Ports:
        """Return where the peer of a link listens; it is started on first use."""
        self._link(link)
        return self._ports(link)

    def _ports(self, text: str) -> Ports:
        if text not in self._peers:
            ends = self._links[text]
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ktlslab-peer-")))
            self._peers[text] = self._stack.enter_context(_peer(make_certificates(folder, ends.address), ends))
        return self._peers[text]


def _write(out: Any, line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


@contextlib.contextmanager
def _peer(certificates: Certificates, ends: Ends) -> Iterator[Ports]:
    argv = [*ends.prefix, sys.executable, "-m", "ktlslab.measure.peer", str(certificates.chain), str(certificates.key)]
    argv += [ends.address, str(os.getpid())]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise MachineError("starting the peer", answered="it exited at once", remedy="Its message is above.")
            certificates.key.unlink()  # the peer has read it: however this run ends, no key stays on disk
            plain, secure = map(int, line.split())
            yield Ports(plain=plain, secure=secure, ca=certificates.ca, address=ends.address)
        finally:
            process.kill()


def main(argv: list[str], task: Callable[[Job, Path], None] = measure) -> int:
    """Run as `python -m ktlslab.measure.worker JOB JOURNAL`; on failure write `{"error": ...}` to standard error."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that clean-up runs
    try:
        task(Job.read(argv[0]), Path(argv[1]))
    except KtlsLabError as error:
        failure = {"error": str(error)}
    except (TimeoutError, ConnectionError) as error:
        remedy = "Continue with --resume: what was measured is kept"
        failure = {"error": f"measuring: the peer did not answer: {error}. {remedy}"}
    except OSError as error:
        remedy = "Free space or check permissions, then continue with --resume: what was measured is kept"
        failure = {"error": f"measuring: {error}. {remedy}"}
    except Exception:  # noqa: BLE001 - the parent is another process, perhaps on another kernel
        failure = {"error": traceback.format_exc()}
    else:
        return 0
    sys.stderr.write(json.dumps(failure) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
