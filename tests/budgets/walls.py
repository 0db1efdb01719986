"""The budgets that are seconds: importing, a guest's start, a sweep's own overhead."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from budgets import Verdict

from ktlslab.measure.plan import PLANS
from ktlslab.measure.table import read_table
from ktlslab.runs.lock import measuring

IMPORTS = 11
BOOTS = 3
BOUND_S = 300
_STAT = """
from pathlib import Path
up = Path("/proc/uptime").read_text().split()[0]
user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
print(up, (user + nice + system + irq + softirq) / 100, flush=True)
"""  # since the kernel started, in seconds: by its clock, and without those in which it waited
_IMPORT = "import time; start = time.perf_counter_ns(); import ktlslab; print(time.perf_counter_ns() - start)"


def importing() -> list[Verdict]:
    """`import ktlslab` in a new process; the first one, which reads the files into memory, does not count."""
    argv = [sys.executable, "-c", _IMPORT]
    times = [
        int(subprocess.run(argv, capture_output=True, check=True, timeout=BOUND_S).stdout) / 1e6
        for _ in range(IMPORTS + 1)
    ]
    return [Verdict(budget="import ktlslab, wall", unit="ms", ours=statistics.median(times[1:]), limit=60)]


def guest_start(kernel: str, clock: str) -> list[Verdict]:
    """From the command to the first line of a Python in the guest."""
    argv = [sys.executable, "-m", "ktlslab", "guest", "run", kernel, "--clock", clock]
    argv += ["--", sys.executable, "-c", _STAT]
    times, booted, busy = [], [], []
    before = _children_cpu()
    for _ in range(BOOTS):
        start = time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                line = process.stdout.readline() if process.stdout else b""
                times.append(time.perf_counter() - start)
                _, said = process.communicate(timeout=BOUND_S)
            finally:
                process.kill()
        try:
            booted.append(float(line.split()[0]))
            busy.append(float(line.split()[1]))
        except (IndexError, ValueError):
            raise RuntimeError(f"a guest said {line!r}: {said.decode(errors='replace')}") from None
    cpu = (_children_cpu() - before) / BOOTS
    note = f"best of {', '.join(f'{seconds:.2f}' for seconds in times)}; CPU, its end included: {cpu:.1f} s each; "
    if (
        clock == "instructions"
    ):  # a second is a thousand million instructions, and time in which it waits passes at once
        rate = 1e3 * min(busy) / min(times)
        note += f"{min(busy):.2f} thousand million instructions up to Python, emulated at {rate:.0f} million a second"
    else:
        note += f"by the guest's own clock Python spoke after {min(booted):.2f} s, the rest is QEMU and its firmware"
    budget = f"guest, {clock} clock: command to Python, wall"
    return [Verdict(budget=budget, unit="s", ours=min(times), limit=4, notes=[note])]


def _children_cpu() -> float:
    """Return the CPU seconds of all ended children: a busy machine affects them less than wall time."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def sweeping() -> list[Verdict]:
    """Return the share of wall time of `ktlslab sweep` outside timed regions: the quick plan, without kernel TLS."""
    plan = replace(PLANS["quick"], name="benchmark", record_layers=("plain", "userspace"))
    with measuring(lambda _: None):
        pass  # waiting for another measurement is not this sweep's overhead
    with tempfile.TemporaryDirectory(prefix="ktlslab-benchmark-") as name:
        file, output = Path(name) / "plan.json", Path(name) / "table.parquet"
        file.write_text(json.dumps(plan.to_json()))
        argv = [sys.executable, "-m", "ktlslab", "sweep", "--plan", str(file), "--on", "here", "-o", str(output)]
        start = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=BOUND_S)
        wall = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(done.stderr)
        frame = read_table(output)
    timed = float(frame["elapsed"].sum()) / 1e9
    note = f"{len(frame)} samples, {timed:.1f} s timed of {wall:.1f} s"
    overhead = 100 * (1 - timed / wall)
    return [Verdict(budget="sweep: overhead, wall", unit="%", ours=overhead, limit=25, notes=[note])]
