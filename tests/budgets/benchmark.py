"""Measure every budget of the project and print each figure beside its limit.

Instructions are counted in a guest and compared with a C program on liburing that does the same with the same peer. A
profile shows what each arm spends on Python and its binding. Seconds are measured on this machine, which should be
idle. `--only serve` and `--only estimate` take many minutes, and are measured only if they are named. So
is `--only client`, which fetches and sends large bodies in a guest (`--kernel uml-7.2` will do), beside curl.

Exit status: 0 all budgets are met, 1 one is exceeded or could not be measured, 2 usage.
"""
# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import bindings
import clients
import scale
import walls
from budgets import Run, Verdict, price_table, profile_table, ratios, record_table, verdict_table

from ktlslab import guests
from ktlslab.errors import KtlsLabError
from ktlslab.guests.qemu import CLOCKS
from ktlslab.runs.lock import measuring

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GUEST_SECONDS = 600.0
COLUMNS = {
    "send": "step",
    "receive, reply to come": "step",
    "receive, all there": "step",
    "upload, CPU": "cpu",
}


def compile_reference(folder: Path) -> Path:
    """Compile the C program, statically with liburing and the C library if possible."""
    program = folder / "reference"
    argv = [os.environ.get("CC", "cc"), "-O2", "-Wall", str(HERE / "reference.c"), "-o", str(program), "-luring"]
    for command in ([*argv, "-static"], argv):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.returncode:
            return program
    raise RuntimeError(f"compiling reference.c: {done.stderr}")


def in_guest(kernel: str, runs: list[Run], *, profile: bool) -> None:
    """Run all contestants in a guest that counts instructions; keep what was measured before a failure."""
    with tempfile.TemporaryDirectory(prefix="ktlslab-benchmark-") as name:
        folder = Path(name)
        program, results = compile_reference(folder), folder / "runs.jsonl"
        results.touch()
        argv = [sys.executable, str(HERE / "guest.py"), str(program), str(results)]
        try:
            done = guests.run(
                guests.find(kernel),
                [*argv, "--profile"] if profile else argv,
                clock="instructions",
                rw=folder,
                cwd=ROOT,
                env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
                timeout=GUEST_SECONDS,
            )
        finally:
            runs.extend(json.loads(line) for line in results.read_text().splitlines())
        if done.returncode:
            raise RuntimeError(f"in the guest: {done.stderr.decode(errors='replace')}")


def instructions(kernel: str, runs: list[Run], *, profile: bool) -> list[Verdict]:
    """Measure the budgets that are ratios, even if the profile fails."""
    failed = []
    try:
        in_guest(kernel, runs, profile=profile)
    except (KtlsLabError, RuntimeError) as error:
        if not runs:
            raise
        say(f"instructions: {error}")
        failed = [Verdict(budget="instructions, to the end", unit="", ours=None, limit=None)]
    return [*ratios(runs), *failed]


def measured(name: str, measure: Callable[[], list[Verdict]]) -> list[Verdict]:
    """Measure while nothing else is measured; print a failure, which counts as a budget not met."""
    say(f"measuring: {name}")
    try:
        return measure()
    except (KtlsLabError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        say(f"{name}: {error}")
        return [Verdict(budget=name, unit="", ours=None, limit=None, notes=["failed, see above"])]


def alone(measure: Callable[[], list[Verdict]]) -> Callable[[], list[Verdict]]:
    """Hold the host's lock; a sweep takes it itself."""

    def locked() -> list[Verdict]:
        with measuring(say):
            return measure()

    return locked


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tests/benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("instructions", "binding", "import", "guest", "sweep")
    every = (*parts, "serve", "estimate", "client")
    parser.add_argument("--only", action="append", choices=every, help="measure this part alone (may be repeated)")
    parser.add_argument("--profile", action="store_true", help="also show, layer by layer, where the instructions go")
    parser.add_argument(
        "--kernel", default="newest", help="the guest's kernel (default: newest, which budgets are for)"
    )
    parser.add_argument("--mib", type=int, default=1024, help="how large the bodies of --only client are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    options = parser.parse_args(arguments)
    wanted = options.only or parts
    runs: list[Run] = []
    verdicts: list[Verdict] = []
    tables: list[str] = []

    measures = {
        "instructions": alone(lambda: instructions(options.kernel, runs, profile=options.profile)),
        "binding": lambda: bindings.profiled(options.kernel, verdicts),
        "import": alone(walls.importing),
        "guest": alone(lambda: [line for clock in CLOCKS for line in walls.guest_start(options.kernel, clock)]),
        "sweep": walls.sweeping,
        "serve": lambda: scale.serving(options.kernel),
        "estimate": scale.estimating,
        "client": alone(lambda: clients.fetching(options.kernel, options.mib, tables)),
    }
    load = os.getloadavg()[0]  # before we make our own
    for name in every:
        if name in wanted:
            verdicts += measured(name, measures[name])
    for table in tables:
        print(f"{table}\n")
    print(verdict_table(verdicts))
    for verdict in verdicts:
        for note in verdict.notes:
            print(f"  {verdict.budget}: {note}")
    if load > 1:
        print(f"  This machine was not idle (load {load:.1f}): figures in seconds may be too high.")
    if runs and options.profile:
        print(f"\n{record_table(runs)}")
        for engine in ("uring", "syscall"):
            print(f"\n{profile_table(runs, engine, list(COLUMNS.items()))}")
        print(f"\n{price_table(runs)}")
    if options.json:
        lines = [asdict(verdict) | {"value": verdict.value, "met": verdict.met} for verdict in verdicts]
        about = {"host": os.uname().release, "python": platform.python_version(), "load": load, "time": time.time()}
        options.json.write_text(json.dumps({"about": about, "budgets": lines, "runs": runs}, indent=1) + "\n")
    return 0 if all(verdict.met for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
