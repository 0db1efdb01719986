"""Writes the matrix as a table of data/, with the provenance of its runs beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ktlslab.runs.storage import store, table_path
from ktlslab.show.interop import INTEROP_COLUMNS


def record(rows: list[dict[str, Any]], runs: dict[str, dict[str, Any]], path: Path) -> None:
    """Write rows, and `runs` by their run_id, to NAME.parquet and NAME.json."""
    frame = pd.DataFrame(rows, columns=list(INTEROP_COLUMNS))
    frame.attrs["provenance"] = runs
    store(frame, table_path("recording the interoperation matrix", "path", path))
