"""Whole fetches, both ways, as a table: what the first architecture and the present one take, by body size and stage.

    python -m ktlslab.measure.fetches TABLE.parquet     # counts instructions on the newest kernel

A row per fetch. `latency` and `client_cpu` are in `unit`, and so are their parts `latency_STAGE` and `cpu_STAGE`, 0 for
a stage that a way has not; NaN where the CPU clock is too coarse for a fetch. One way runs twice in each block
(`replica`): the difference is the noise.
"""

from __future__ import annotations

import gc
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import TableError
from ktlslab.measure.fetcher import BODIES, REPEATS, measured
from ktlslab.measure.parts import failure
from ktlslab.measure.worker import Laboratory
from ktlslab.packages import extra, require
from ktlslab.runs import clocks
from ktlslab.runs.job import Job
from ktlslab.runs.journal import Journal, run_path
from ktlslab.runs.launching import worker
from ktlslab.runs.lock import measuring
from ktlslab.runs.machines import machine
from ktlslab.runs.storage import store, table_path, unreadable

if TYPE_CHECKING:
    import pandas as pd

LOOKED_AT = (BODIES[0], BODIES[2], BODIES[-2])
_TRIED = "measuring fetches"
_LOOK_S = 0.2


def measure(
    on: str = "newest",
    *,
    output: str | Path | None = None,
    bodies: Sequence[int] = BODIES,
    repeats: int = REPEATS,
    say: Callable[[str], object] = str,
) -> pd.DataFrame:
    """Measure on a machine, in a process of its own; on a guest that is emulated, count instructions.

    `output`: NAME.parquet. Raises UsageError, MachineError, GuestError, StorageError.
    """
    require("lab", "pandas", "pyarrow")
    require("rustls", "rtls")
    path = _checks.optional(table_path, _TRIED, "output", output)
    where = machine(on)
    run_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    plan = {"name": "fetches", "library": "rustls", "bodies": list(bodies), "repeats": repeats}
    with tempfile.TemporaryDirectory(prefix="ktlslab-fetches-") as name, measuring(say):
        folder = Path(name)
        job_file, journal = folder / f"{run_id}.job", run_path(folder, run_id)
        Job.on(where, run_id=run_id, plan=plan).write(job_file)
        journal.touch()
        with worker(where, "ktlslab.measure.fetcher", job_file, journal) as running:
            while (status := running.poll()) is None:
                time.sleep(_LOOK_S)
            if status:
                raise failure(where, running.error(), status, "Measure again.")
        found = Journal.read(folder)
    frame = _frame(found.rows, found.runs)
    if path:
        store(frame, path)
    return frame


def look(bodies: Sequence[int] = LOOKED_AT, repeats: int = 3) -> pd.DataFrame:
    """Time a few fetches in this process, whatever else this machine does: something to look at, not a measurement."""
    require("lab", "pandas")
    gc.freeze()  # so that collecting between fetches does not go through all that a notebook has imported
    try:
        with Laboratory() as laboratory:
            rows = list(measured(laboratory, list(bodies), repeats))
    finally:
        gc.unfreeze()
    unit = clocks.UNITS[clocks.current()]
    return _frame([{"clock": clocks.current(), "unit": unit, **row} for row in rows], {})


def read_fetches(path: str | Path) -> pd.DataFrame:
    """Read a table that `measure` wrote. TableError where it is none."""
    with extra("lab"):
        import pandas as pd  # noqa: PLC0415
    path = _checks.path("reading fetches", "path", path)
    try:
        frame = pd.read_parquet(path)
        frame.attrs["provenance"] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(
            f"reading {path}", answered=unreadable(path, error), remedy="Give a table of fetches."
        ) from error
    if missing := [name for name in ("way", "body_bytes", "latency", "client_cpu") if name not in frame]:
        raise TableError(f"reading {path}", answered=f"it lacks {missing[0]}", remedy="Give a table of fetches.")
    return frame


def _frame(rows: list[dict[str, Any]], runs: dict[str, Any]) -> pd.DataFrame:
    with extra("lab"):
        import pandas as pd  # noqa: PLC0415
    frame = pd.DataFrame(rows)
    frame.attrs["provenance"] = runs
    return frame


if __name__ == "__main__":
    measure(output=sys.argv[1], say=print)
