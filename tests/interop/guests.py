"""Runs cells in a guest, which sees the packages that are installed here."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from ktlslab.guests import boot, fetch
from ktlslab.runs.job import Job
from ktlslab.runs.machines import machine
from tests.interop.running import Chosen

ROOT = Path(__file__).parents[2]
KERNELS = ("uml-6.1", "uml-6.12", "uml")
LIMIT_S = 7200.0
MEMORY = "2G"  # for a Java machine beside the others


class _Lines:
    """A binary stream that keeps rows, and shows those that are wrong."""

    def __init__(self, *, progress: bool) -> None:
        self.rows: list[dict[str, Any]] = []
        self.run: dict[str, Any] = {}
        self._rest, self._progress = b"", progress

    def write(self, data: bytes) -> int:
        *lines, self._rest = (self._rest + bytes(data)).split(b"\n")
        for line in lines:
            if not line.startswith(b"{"):
                sys.stderr.write(line.decode(errors="replace") + "\n")
                continue
            row = json.loads(line)
            if "provenance" in row:
                self.run = row["provenance"]
                continue
            self.rows.append(row)
            if self._progress:
                words = [row[name] for name in ("stack", "feature", "suite", "record_layer", "io_engine")]
                seconds = f"{row['seconds']:.1f} s, {row['ended']}, tickets {row['tickets']}, records {row['records']}"
                sys.stderr.write(f"{' '.join(words)}: {row['outcome']} ({seconds})\n")
        return len(data)

    def flush(self) -> None:
        sys.stderr.flush()


def collect(name: str, chosen: Chosen, *, progress: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run cells in a guest of that kernel. Return the rows, with the kernel's release, and the run's provenance."""
    kernel = fetch(name)
    where = machine(kernel.series, "wall")
    run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{kernel.series}-{uuid.uuid4().hex[:6]}"
    argv = [sys.executable, "-m", "tests.interop", "--here", "--only", chosen.stack, "--feature", chosen.feature]
    argv += ["--thin"] if chosen.thin else []
    lines = _Lines(progress=progress)
    env = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    with (
        tempfile.TemporaryDirectory(prefix="ktlslab-interop-") as folder,
        contextlib.ExitStack() as undo,
    ):
        job = Path(folder) / "job"
        Job.on(where, run_id=run_id, plan=[chosen.stack, chosen.feature, "thin" if chosen.thin else "all"]).write(job)
        argv += ["--job", str(job)]
        guest = undo.enter_context(boot(kernel, argv, rw=Path(folder), cwd=ROOT, env=env, memory=MEMORY, stdout=lines))
        done = guest.wait(LIMIT_S)
    if done.returncode:
        raise RuntimeError(f"{name}: status {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}")
    for row in lines.rows:
        row |= {"machine": kernel.series, "kernel": kernel.release, "run_id": run_id}
    return lines.rows, {run_id: lines.run}
