"""Run tests/kernel inside a guest of each kernel, and sum up the results.

    in_guests.py --fetch         fetch the kernels
    in_guests.py RESULTS [-- ARGUMENT...]
                                 run in each guest and write RESULTS/SERIES.xml; arguments go to pytest; prints what the
                                 tests recorded: each fault's error on each kernel, and what many sessions leave behind
    in_guests.py --here RESULTS  the same, and beside the guests all other tests on this machine: RESULTS/here.xml, and
                                 RESULTS/PART.xml for each part of them that takes long
    in_guests.py --lines RESULTS print how many lines of ktlslab ran, by all RESULTS/*.lines.json
    in_guests.py --sum RESULTS   print the totals of all RESULTS/*.xml

A guest whose tests were skipped, or that ran none, has failed: guests exist so that no test is skipped.

    kernel                              what it runs
    newest, emulated                    all of tests/kernel
    oldest and 6.12, emulated           what is marked as needing an emulated kernel (tracepoints, perf, pcrypt)
    uml-6.1, uml-6.12, uml (user mode)  all but that, several times faster
    a kernel that is asked for          all that it can

On this machine run all other tests, in four parts (PARTS). What they boot is a user-mode kernel, unless a test is about
counting, profiles, QEMU, KVM, several CPUs or an emulated guest's own start, network and end.
"""
# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

from ktlslab.errors import KtlsLabError
from ktlslab.guests import boot, fetch, kernelimage
from ktlslab.guests.kernels import Kernel

ROOT = Path(__file__).resolve().parents[1]
# Notes which lines of ktlslab ran; pytest would warn that it was imported before.
COVER = "slipcover --source ktlslab --json --out {report}"
HERE = "-m pytest --hypothesis-profile=ci -q -rs -W ignore::pytest.PytestAssertRewriteWarning"
# What takes long on this machine, since it boots guests or executes notebooks; and all other tests.
# What holds the host's lock for measuring is in one part, where it need not wait.
APART = {
    "measuring": (
        "tests/estimating",
        "tests/measure",
        "tests/profiling",
        "tests/test_data.py",
        "tests/test_trouble.py",
    ),
    "notebooks": ("tests/notebooks",),
    "booting": ("tests/guests", "tests/promises", "tests/test_cli.py"),
}
PARTS = APART | {
    "here": ("tests", "--ignore=tests/kernel", *(f"--ignore={path}" for paths in APART.values() for path in paths))
}
# Each with pytest's choice of marks.
KERNELS = {
    "newest": "",
    "uml-6.1": "not emulated",
    "uml-6.12": "not emulated",
    "uml": "not emulated",
    "oldest": "emulated",
    "6.12": "emulated",
}
# What begins first: what takes longest, and beside it what mostly waits, a user-mode kernel's tests.
ORDER = (
    *("newest", "measuring", "uml-6.1", "notebooks", "here"),
    *("uml-6.12", "booting", "uml", "oldest", "6.12"),
)
# What the tests import, in a disk image: an emulated guest reads the share far more slowly.
IMPORTED = (
    *(
        "pytest",
        "pytest-timeout",
        "trustme",
        "pyopenssl",
        "service-identity",
        "h11",
        "h2",
        "cffi",
        "hypothesis",
        "rtls",
    ),
    *("httpbin", "gunicorn"),
)
SECONDS = 1200.0  # a few minutes on an idle machine
# How much some tests do: see tests/kernel/test_leaks.py and test_model.py.
AMOUNTS = ("KTLSLAB_LEAK_SESSIONS", "KTLSLAB_MODEL_SECONDS")
GUEST_BYTES = 3 << 29  # of this machine's memory that a guest needs, roughly


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of one run."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    @classmethod
    def read(cls, path: Path) -> Outcome:
        """Read pytest's report; a missing or broken one is a failure."""
        try:
            suites = list(ET.parse(path).getroot().iter("testsuite"))  # noqa: S314 - written by our own run
        except (OSError, ET.ParseError):
            return cls(failed=1)
        total, failures, errors, skipped = (
            sum(int(suite.get(name, "0")) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
        )
        # pytest counts a test twice if both the test and its clean-up failed.
        return cls(passed=max(0, total - failures - errors - skipped), failed=failures + errors, skipped=skipped)

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            passed=self.passed + other.passed,
            failed=self.failed + other.failed,
            skipped=self.skipped + other.skipped,
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def kernels(names: Iterable[str], *, whole: bool) -> dict[str, tuple[Kernel, str]]:
    """Fetch kernels, and return each once with the marks of the tests that it runs: of all that it can if `whole`."""
    found: dict[str, tuple[Kernel, str]] = {}
    for name in names:
        kernel = fetch(name)
        marks = KERNELS[name] if not whole else "not emulated" if kernel.user_mode else ""
        if kernel not in (one for one, _ in found.values()):
            found[name] = (kernel, marks)
    return found


def at_once() -> int:
    """Return how many guests, and parts on this machine, run side by side. Limited by memory.

    Each uses a CPU, but waits now and then for a time-out or for a guest's start: one more than there are CPUs fills
    these gaps.
    """
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(ORDER), 1 + (os.cpu_count() or 1), memory // GUEST_BYTES))


def run_here(report: Path, chosen: Iterable[str]) -> bool:
    """Run tests on this machine, and return whether all passed. What pytest prints is seen at once."""
    cover = COVER.format(report=report.with_suffix(".lines.json")).split()
    argv = [sys.executable, "-m", *cover, *HERE.split(), f"--junitxml={report}", *chosen]
    return subprocess.run(argv, cwd=ROOT, check=False).returncode == 0


def lines_that_ran(reports: Iterable[Path]) -> str:
    """Return which share of ktlslab's lines ran in any part."""
    ran: set[tuple[str, int]] = set()
    known: set[tuple[str, int]] = set()
    for report in reports:
        for name, lines in json.loads(report.read_text(encoding="utf-8"))["files"].items():
            ran.update((name, line) for line in lines["executed_lines"])
            known.update((name, line) for line in lines["executed_lines"] + lines["missing_lines"])
    share = f"{len(ran) / len(known):.0%}" if known else "an unknown share"
    return f"These tests ran {share} of the lines of ktlslab in their own process, without guests and other processes."


def run_in(kernel: Kernel, marks: str, results: Path, arguments: list[str], seconds: float) -> bool:
    """Run the tests in a guest, print a summary, and return whether all passed."""
    started = time.monotonic()
    image = kernelimage.build(*IMPORTED)
    report = results / f"{kernel.series}.xml"
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "pytest_timeout", "-q", "--tb=short"]
    with tempfile.TemporaryDirectory(prefix="ktlslab-tests-") as folder:
        argv += [f"--junitxml={folder}/report.xml", "--durations=5", *(arguments or ["tests/kernel"])]
        argv += ["-m", marks] if marks else []
        env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {name: os.environ[name] for name in AMOUNTS if name in os.environ}
        if image:
            env["PYTHONPATH"] = str(kernelimage.PLACE)
        try:
            with boot(
                kernel,
                argv,
                clock="wall",
                rw=Path(folder),
                cwd=ROOT,
                env=env,
                image=(image, kernelimage.PLACE) if image else None,
            ) as guest:
                done = guest.wait(seconds)
            status, said = done.returncode, (done.stdout + done.stderr).decode(errors="replace")
        except KtlsLabError as error:
            status, said = -1, str(error)
        written = Path(folder) / "report.xml"
        report.write_bytes(written.read_bytes() if written.exists() else b"")
    outcome = Outcome.read(report)
    good = status == 0 and outcome.passed > 0 and not outcome.failed and not outcome.skipped
    if not good or os.environ.get("KTLSLAB_TESTS_VERBOSE"):
        print(said, flush=True)
    took = time.monotonic() - started
    word = "" if good else "FAILED: "
    print(f"{word}{kernel.release}: {outcome}, {took:.0f} s", flush=True)
    return good


def recorded(report: Path) -> list[dict[str, list[str]]]:
    """Return what each test recorded with pytest's record_property: name -> values."""
    try:
        cases = ET.parse(report).getroot().iter("testcase")  # noqa: S314 - written by our own run
    except (OSError, ET.ParseError):
        return []
    found = []
    for case in cases:
        values: dict[str, list[str]] = {}
        for item in case.iter("property"):
            values.setdefault(item.get("name", ""), []).append(item.get("value", ""))
        found.append(values)
    return found


def fault_table(tests: dict[str, list[dict[str, list[str]]]]) -> str:
    """Return a table of the error that each fault caused per kernel, with a row per TLS version where they differ."""
    seen: dict[str, dict[str, dict[str, set[str]]]] = {}  # fault -> version of TLS -> series -> errors
    for series, cases in tests.items():
        for case in cases:
            for fault, said in zip(case.get("fault", []), case.get("seen", []), strict=True):
                version, _, error = said.partition("|")
                seen.setdefault(fault, {}).setdefault(version, {}).setdefault(series, set()).add(error)
    rows = [["fault", *tests]]
    for fault, by_version in seen.items():
        cells = {
            version: [" or ".join(sorted(by_series.get(series, {"not run"}))) for series in tests]
            for version, by_series in by_version.items()
        }
        alike = len({tuple(row) for row in cells.values()}) == 1
        for version, row in list(cells.items())[: 1 if alike else None]:
            rows.append([fault if alike else f"{fault} ({version})", *row])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) if seen else ""


def show_recorded(reports: dict[str, Path]) -> None:
    tests = {series: cases for series, path in reports.items() if any(cases := recorded(path))}
    if table := fault_table(tests):
        print(f"\nThe errors that a kTLS client gets from faults on the way to its server:\n{table}")
    for name, title in (
        ("leaks", "What sessions leave behind"),
        ("model", "Random sequences of calls, without a fault"),
    ):
        lines = [
            f"{series}: {said}" for series, cases in tests.items() for case in cases for said in case.get(name, [])
        ]
        if lines:
            print(f"\n{title}:", *lines, sep="\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fetch", action="store_true", help="only fetch the kernels")
    parser.add_argument("--lines", action="store_true", help="only print how many lines ran, by the reports in RESULTS")
    parser.add_argument("--sum", action="store_true", help="only sum up the reports in RESULTS")
    parser.add_argument("--here", action="store_true", help="run the other tests on this machine as well")
    parser.add_argument("--kernel", action="append", help="run only on this kernel")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit per guest")
    parser.add_argument("results", nargs="?", type=Path, help="the folder for the reports")
    parser.add_argument("arguments", nargs="*", help="arguments for pytest (default: tests/kernel)")
    options = parser.parse_args()
    if options.lines:
        print(lines_that_ran(options.results.glob("*.lines.json")))
        return 0
    if options.sum:
        print(sum((Outcome.read(path) for path in sorted(options.results.glob("*.xml"))), Outcome()))
        return 0
    try:
        chosen = kernels(options.kernel or KERNELS, whole=bool(options.kernel or options.arguments))
    except KtlsLabError as error:
        print(error, file=sys.stderr)
        return 1
    if options.fetch:
        print(*(kernel for kernel, _ in chosen.values()), sep="\n")
        return 0
    results = options.results or Path(tempfile.mkdtemp(prefix="ktlslab-tests-"))
    results.mkdir(parents=True, exist_ok=True)
    jobs = {name: partial(run_in, *one, results, options.arguments, options.seconds) for name, one in chosen.items()}
    if options.here:
        jobs |= {name: partial(run_here, results / f"{name}.xml", paths) for name, paths in PARTS.items()}
    first = [name for name in ORDER if name in jobs]
    with ThreadPoolExecutor(at_once()) as pool:
        begun = [pool.submit(jobs[name]) for name in dict.fromkeys((*first, *jobs))]
        good = [job.result() for job in begun]
    show_recorded({kernel.series: results / f"{kernel.series}.xml" for kernel, _ in chosen.values()})
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
