"""The scoreboard as a table: a row per kernel and promise, in a Parquet file with the provenance beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import TableError
from ktlslab.packages import extra, require
from ktlslab.promises.check import BROKEN, UNTRIED, VERDICTS, Promise
from ktlslab.runs.storage import unreadable

if TYPE_CHECKING:
    import pandas as pd

PROMISE_COLUMNS = (
    "machine",  # here, the series of the guest's kernel, or the release of a build that was asked for as such
    "kernel",  # the release of the kernel
    "group",  # subject of the promise
    "promise",  # its name: the check's function
    "says",  # the promise in a sentence
    "source",  # where it comes from
    "cve",  # the fault by which the check can take a kernel down, or ""
    "verdict",  # kept, broken, not in this kernel, not tried
    "seen",  # what the kernel did, or why it was not tried
    "seconds",  # how long the check took
    "file",  # where the check is defined
    "line",
    "run_id",
)
_LATER = {"cve": ""}  # columns that tables of earlier versions lack, and what is true of their rows


def row(promise: Promise, found: dict[str, Any], name: str, release: str, run_id: str) -> dict[str, Any]:
    """Return the row of a promise on a machine; `found` has verdict, seen and seconds."""
    return {
        "machine": name,
        "kernel": release,
        "group": promise.group,
        "promise": promise.name,
        "says": promise.says,
        "source": promise.source,
        "cve": promise.cve,
        "verdict": found["verdict"],
        "seen": found["seen"],
        "seconds": float("nan") if found["seconds"] is None else found["seconds"],
        "file": promise.file,
        "line": promise.line,
        "run_id": run_id,
    }


def to_frame(rows: list[dict[str, Any]], runs: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return rows as the table; `attrs["provenance"]` is a copy of `runs`."""
    with extra("lab"):
        import pandas as pd  # noqa: PLC0415 - the import takes half a second, and the command line may not need it

    frame = pd.DataFrame(rows, columns=list(PROMISE_COLUMNS))
    frame.attrs["provenance"] = runs
    return frame


def read_scoreboard(path: str | Path) -> pd.DataFrame:
    """Read a table of promises and its provenance. TableError says what is wrong with it."""
    require("lab", "pandas", "pyarrow")
    import pandas as pd  # noqa: PLC0415

    path = _checks.path("reading a table of promises", "path", path)
    remedy = "Give a table that `ktlslab promises -o` wrote."
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise TableError(f"reading {path}", answered=unreadable(path, error), remedy=remedy) from error
    if missing := [name for name in PROMISE_COLUMNS if name not in frame.columns and name not in _LATER]:
        raise TableError(f"reading {path}", answered=f"it lacks the columns {', '.join(missing)}", remedy=remedy)
    frame = frame.assign(**{name: value for name, value in _LATER.items() if name not in frame.columns})
    frame = frame[list(PROMISE_COLUMNS)]
    if (beside := path.with_suffix(".json")).exists():
        frame.attrs["provenance"] = json.loads(beside.read_text())
    return frame


def summary(frame: pd.DataFrame) -> str:
    """Say in lines of text how each kernel does: groups by verdicts, and what is broken or was not tried."""
    _checks.frame("summing up promises", "frame", frame, PROMISE_COLUMNS)
    lines = []
    for (name, kernel), rows in frame.groupby(["machine", "kernel"], sort=False):
        lines.append(f"{name} (Linux {kernel}): {_counted(rows)}")
        lines += [f"  {group:<24} {_counted(part)}" for group, part in rows.groupby("group", sort=False)]
        for verdict in (BROKEN, UNTRIED):
            some = rows[rows["verdict"] == verdict]
            names = some["promise"].str.replace("_", " ")
            lines += [
                f"  {verdict}: {title}\n          {seen}" for title, seen in zip(names, some["seen"], strict=True)
            ]
    return "\n".join(lines)


def _counted(rows: pd.DataFrame) -> str:
    counts = rows["verdict"].value_counts()
    return ", ".join(f"{counts[verdict]:>3} {verdict}" for verdict in VERDICTS if verdict in counts)
