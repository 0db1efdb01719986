"""Check promises on the kernel that this runs on: `python -m ktlslab.promises.checker JOB JOURNAL`, in a guest or here.

Every check runs in its own process with a time limit: a check that hangs or crashes is a verdict, not the end of the
run. Each verdict is written as a line of JSON before the next check begins. So is the name of the check that begins, in
case it crashes the kernel. Nothing heavy is imported.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

from ktlslab.linux import capabilities
from ktlslab.promises.catalogue import named
from ktlslab.promises.check import ABSENT, BROKEN, KEPT, Absent, Broken, Promise, errno_of
from ktlslab.promises.journal import note, note_verdict
from ktlslab.promises.pair import Pair, readable_fd
from ktlslab.runs import provenance
from ktlslab.runs.job import Job
from ktlslab.tls.suites import Suite

BOUND_S = 20.0
_LONGEST = 240  # characters of what was seen

Outcome = tuple[str, str]  # verdict, what was seen


def judge(promise: Promise, within: float = BOUND_S) -> Outcome:
    """Check a promise with each of its suites, and sum up: a promise broken with one suite is broken."""
    outcomes = bounded(promise, within)
    for verdict in (BROKEN, KEPT, ABSENT):
        having = [
            (suite, seen) for suite, (found, seen) in zip(promise.suites, outcomes, strict=False) if found == verdict
        ]
        if having:
            break
    everywhere = len(having) == len(promise.suites)
    if everywhere and len({seen for _, seen in having}) == 1:
        return verdict, having[0][1]
    told = having[:1] if everywhere and verdict == KEPT else having[:2]
    return verdict, " | ".join(f"{_label(suite, promise)}: {seen}" for suite, seen in told)


def bounded(promise: Promise, within: float = BOUND_S) -> list[Outcome]:
    """Check a promise in its own process group, and kill that if one suite takes longer than `within` seconds.

    Return the outcome with each suite, up to one with which the check hung or died.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            os.setsid()
            for suite in promise.suites:
                os.write(writing, json.dumps(outcome(promise, suite)).encode() + b"\n")
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    try:
        return _answers(reading, len(promise.suites), within)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # with whatever it started
        _reap(child)


def outcome(promise: Promise, suite: Suite) -> Outcome:
    """Run the check in this process."""
    seen: list[str] = []
    try:
        with Pair(suite, promise.installed) as pair:
            seen = pair.seen
            if promise.within:
                pair.keep(promise.within(pair))
            promise.check(pair)
    except Broken as broken:
        return BROKEN, _short(str(broken))
    except Absent as absent:
        return ABSENT, _short(str(absent))
    except OSError as error:
        return BROKEN, _short(f"{_after(seen)}{errno_of(error)} at {_where(error)}")
    except Exception as error:  # noqa: BLE001 - a check that fails otherwise has seen something unforeseen
        return BROKEN, _short(f"{_after(seen)}{type(error).__name__}: {error} at {_where(error)}")
    return KEPT, _short("; ".join(seen))


def check_all(wanted: Iterable[Promise], journal: Path) -> None:
    """Judge promises one after the other; write a line before and a line after each."""
    for promise in wanted:
        note(journal, {"began": promise.name})
        started = time.monotonic()
        verdict, seen = judge(promise)
        note_verdict(journal, promise.name, verdict, seen, round(time.monotonic() - started, 2))


def _answers(reading: int, count: int, within: float) -> list[Outcome]:
    """Read `count` lines, waiting up to `within` seconds for each."""
    said = b""
    while (done := said.count(b"\n")) < count:
        if not readable_fd(reading, within):
            end = [(BROKEN, f"hung: no answer within {within:g} s")]
            break
        if not (part := os.read(reading, 1 << 16)):
            end = [(BROKEN, "the process that checked was ended")]
            break
        said += part
    else:
        end = []
    return [(verdict, seen) for verdict, seen in map(json.loads, said.split(b"\n")[:done])] + end


def _reap(child: int) -> None:
    """Reap a killed process; give up on one that the kernel does not release."""
    deadline = time.monotonic() + 5
    while os.waitpid(child, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.001)


def _label(suite: Suite, promise: Promise) -> str:
    same = len({other.cipher.name for other in promise.suites}) == 1
    return suite.version.label if same else f"{suite.version.label} {suite.cipher.name}"


def _after(seen: list[str]) -> str:
    return f"after {seen[-1]}: " if seen else ""


def _where(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "promises" in frame.filename]
    return f"`{frames[-1].line}`" if frames else "an unknown place"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]} …"


def main(argv: list[str]) -> int:
    """Run as `python -m ktlslab.promises.checker JOB JOURNAL`; the job's plan names what to check."""
    job, journal = Job.read(argv[0]), Path(argv[1])
    capabilities.probe()  # loads the kernel's ciphers, so that no check's time limit includes it
    labels = {"run_id": job.run_id, "machine": job.machine, "kernel": os.uname().release}
    note(journal, {"provenance": provenance.collect(job, labels)})
    gc.freeze()  # so that forked checks do not traverse, and so copy, existing objects
    check_all(filter(None, map(named, job.plan)), journal)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
