"""Writes the matrix as a table of data/, with the provenance of its runs beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ktlslab.runs.storage import store, table_path
from ktlslab.show.interop import INTEROP_COLUMNS, read_interop

_CELL = ["machine", "role", "stack", "suite", "feature", "record_layer", "io_engine"]


def record(rows: list[dict[str, Any]], runs: dict[str, dict[str, Any]], path: Path, *, whole: bool = True) -> None:
    """Write rows, and `runs` by their run_id, to NAME.parquet and NAME.json. Other kernels' rows there are kept.

    If the rows are not `whole`, neither are this kernel's other cells lost: each takes its former row's place.
    """
    path = table_path("recording the interoperation matrix", "path", path)
    before, known = [], {}
    if path.exists():
        frame = read_interop(path)
        known = frame.attrs.get("provenance", {})
        again = {row["machine"] for row in rows} if whole else set()
        before = [row for row in frame.to_dict("records") if row["machine"] not in again]
    cells = {tuple(row[name] for name in _CELL): row for row in (*before, *rows)}
    frame = pd.DataFrame(list(cells.values()), columns=list(INTEROP_COLUMNS))
    frame.attrs["provenance"] = {name: run for name, run in {**known, **runs}.items() if name in set(frame["run_id"])}
    store(frame, path)
