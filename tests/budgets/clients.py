"""`ktlslab get` beside curl: bodies of a gibibyte, from one server in one run, in a guest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from budgets import Verdict

from ktlslab import guests
from ktlslab.errors import KtlsLabError

HERE = Path(__file__).resolve().parent
SMALL_BYTES = 1 << 20
MAX_GROWTH_KIB = 1024  # of a body of any size over one of a mebibyte
GUEST_SECONDS = 3600.0
Line = dict[str, Any]


def fetching(kernel: str, mib: int, tables: list[str]) -> list[Verdict]:
    """Fetch and send a body by every client. What came must be equal, by the record layer that was demanded."""
    with tempfile.TemporaryDirectory(prefix="ktlslab-fetching-") as name:
        folder = Path(name)
        (folder / "small").write_bytes(os.urandom(SMALL_BYTES))
        with (folder / "file").open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))
        results = folder / "results.jsonl"
        argv = [sys.executable, str(HERE / "fetching.py"), str(folder), str(results)]
        env = {"PYTHONDONTWRITEBYTECODE": "1"}
        failed = ""
        try:
            done = guests.run(
                guests.find(kernel),
                argv,
                clock="wall",
                rw=folder,
                cwd=HERE.parents[1],
                env=env,
                memory=f"{1024 + 3 * mib}M",  # what arrives is there, and half of it is for files
                timeout=GUEST_SECONDS,
            )
            failed = done.stderr.decode(errors="replace") if done.returncode else ""
        except (KtlsLabError, subprocess.SubprocessError) as error:
            failed = str(error)
        lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    tables.append(table(lines, kernel))
    broken = [Verdict(budget="fetching, to the end", unit="", ours=None, limit=None, notes=[failed])] if failed else []
    return [*judged(lines), *broken]


def judged(lines: list[Line]) -> list[Verdict]:
    """Compare the memory that a large body takes with that of a small one, in each way that is ktlslab's own."""
    found = []
    cells = {(line["layer"], line["http"], line["way"]) for line in lines if line["client"] == "ktlslab"}
    for layer, http, way in sorted(cells):
        both = [line for line in lines if (line["layer"], line["http"], line["way"]) == (layer, http, way)]
        both = sorted((line for line in both if line["client"] == "ktlslab"), key=lambda line: line["size"])
        wrong = [line for line in both if not line["equal"] or not line["path"].startswith(f"{layer} ")]
        growth = None if wrong or len(both) < 2 else both[-1]["peak_kib"] - both[0]["peak_kib"]
        budget = f"{way} of {both[-1]['size'] >> 20} MiB, {layer}, HTTP/{http}: memory over 1 MiB"
        notes = [f"not equal, or by {line['path']!r}" for line in wrong]
        found.append(Verdict(budget=budget, unit="KiB", ours=growth, limit=MAX_GROWTH_KIB, notes=notes))
    return found


def table(lines: list[Line], kernel: str) -> str:
    """Return all large transfers, each beside the others of its direction.

    CPU per GiB is what the large body took over the small one, which leaves out the start of the program.
    """
    columns = f"{'seconds':>9}{'MiB/s':>8}{'CPU s':>8}{'CPU s/GiB':>11}{'peak MiB':>10}  bytes"
    rows = [
        f"Large bodies on kernel {kernel}, one nginx, one run (CPU: the client's process)",
        f"{'':10}{'client':9}{'HTTP':6}{'records':11}{columns}",
    ]
    largest = max((line["size"] for line in lines), default=0)
    small = {_cell(line): line for line in lines if line["size"] != largest}
    for line in sorted(lines, key=lambda line: (line["way"], line["http"])):
        if line["size"] == largest:
            of = small.get(_cell(line), {"cpu": 0.0, "size": 0})
            each = (line["cpu"] - of["cpu"]) / (line["size"] - of["size"]) * (1 << 30)
            rate = line["size"] / line["seconds"] / (1 << 20)
            rows.append(
                f"{line['way']:10}{line['client']:9}{line['http']:6}{line['layer']:11}{line['seconds']:9.2f}{rate:8.0f}"
                f"{line['cpu']:8.2f}{each:11.2f}{line['peak_kib'] / 1024:10.1f}"
                f"  {'equal' if line['equal'] else 'DIFFERENT'}"
            )
    return "\n".join(rows)


def _cell(line: Line) -> tuple[str, ...]:
    return line["client"], line["http"], line["layer"], line["way"]
