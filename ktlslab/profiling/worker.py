"""The process in the guest: it measures each cell of a plan once, as a sweep does, inside a trace.

`python -m ktlslab.profiling.worker JOB JOURNAL`. The plugin writes the traces on the host; the N-th row belongs to the
N-th of them. Besides a sweep's figures a row has what the trace cannot say: `took`, what the clock counted in each
step, and `maps`, which file the addresses of each end's code belong to. The kernel's symbols are written beside the
journal. Nothing heavy is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ktlslab.errors import MachineError
from ktlslab.linux import capabilities
from ktlslab.measure.arms import LeftOut, check
from ktlslab.measure.plan import Plan
from ktlslab.measure.worker import Laboratory, main
from ktlslab.runs import clocks, provenance
from ktlslab.runs.job import Job

SYMBOLS = "kallsyms"
_BEGIN, _END = 1, 2
_NO_OP, _RETURN = b"\x0f\x1f\x80KTL", b"\xc3"  # trace.c knows it
_FIELDS = 6  # of a line of /proc/PID/maps that has a path


def profile(job: Job, journal: Path) -> None:
    """Trace a sample of each cell that the job's plan has."""
    plan = Plan.from_json(job.plan)
    capabilities.probe()  # first, as in a sweep: it loads the ciphers
    labels = {"run_id": job.run_id, "host": job.host, "machine": job.machine, "kernel": os.uname().release}
    labels |= {"clock": clocks.current(), "unit": clocks.UNITS[clocks.current()]}
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # as in a sweep
    traced = Traced()
    with journal.open("a", encoding="utf-8") as out, Laboratory() as laboratory:
        about = provenance.collect(job, labels)
        left_out: dict[str, str] = {}
        modules = ""
        _write(out, {"provenance": about})
        for cell in plan.cells():
            if cell.replica:  # an equal arm, for the noise of a sweep
                continue
            try:
                arm = laboratory.arm(cell)
            except LeftOut as refusal:
                left_out[cell.session_name] = str(refusal)
                continue
            if (loaded := Path("/proc/modules").read_text()) != modules:
                modules = loaded
                _write_symbols(journal.with_name(SYMBOLS))
            row = arm.sample(cell, plan.steps_of(cell), around=traced)
            row = labels | {name: getattr(cell, name) for name in cell.__slots__} | row
            check(row)
            row["took"] = arm.took
            row["maps"] = {"client": _code(arm.pid), "peer": _codes(_descendants(os.getpid()))}
            _write(out, row)
        _write(out, {"provenance": about | {"left_out": left_out}})


class Traced:
    """Runs the timed part of a sample inside a trace. What is sent to another process is made anew there."""

    def __init__(self) -> None:
        self._begin, self._end = _mark(_BEGIN), _mark(_END)

    def __reduce__(self) -> tuple[type[Traced], tuple[()]]:
        return Traced, ()

    def __call__(self, run: Callable[[], list[int]]) -> list[int]:
        self._begin()
        took = run()
        self._end()
        return took


def _mark(number: int) -> Callable[[], None]:
    """Return a function that executes a mark."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_NO_OP + bytes([number]) + _RETURN)
    function = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    function.page = page  # type: ignore[attr-defined]  # for as long as the function
    return function


def _write_symbols(path: Path) -> None:
    """Copy the kernel's symbols."""
    source = Path("/proc/kallsyms")
    beside = path.with_suffix(".part")
    beside.write_text(checked(source.read_text() if source.exists() else ""))
    beside.replace(path)  # the host may be reading


def checked(text: str) -> str:
    """Return the text of /proc/kallsyms. MachineError where the kernel has none, or hides the addresses."""
    tried = "profiling: reading the kernel's symbols from /proc/kallsyms"
    if not text:
        remedy = "Profile another kernel: Debian's have them (`ktlslab guest list`)."
        raise MachineError(tried, answered="the kernel is built without CONFIG_KALLSYMS", remedy=remedy)
    if not any(int(line.partition(" ")[0], 16) for line in text.splitlines()):
        remedy = "Set the sysctl kernel.kptr_restrict to 0 or 1, and profile as root."
        raise MachineError(tried, answered="all addresses are 0 (kernel.kptr_restrict)", remedy=remedy)
    return text


def _code(process: int | None) -> list[list[Any]]:
    """Return the mappings of a process that hold code: [first address, address after the last, offset, path]."""
    found = []
    for line in Path(f"/proc/{process}/maps").read_text().splitlines():
        span, access, offset, *rest = line.split(maxsplit=_FIELDS - 1)
        if "x" in access:
            first, last = (int(part, 16) for part in span.split("-"))
            found.append([first, last, int(offset, 16), rest[2] if len(rest) > 2 else ""])
    return found


def _codes(processes: list[int]) -> list[list[Any]]:
    """Return the mappings of several processes, forks of one program, each once."""
    found = []
    for process in processes:
        with contextlib.suppress(OSError):  # it has ended
            found += [one for one in _code(process) if one not in found]
    return found


def _descendants(process: int) -> list[int]:
    """Return the processes that this one started, and those that they started."""
    found: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _write(out: Any, line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], profile))
