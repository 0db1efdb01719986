"""The interoperation matrix: ktlslab with other people's TLS, a row per stack and a column per feature.

The table is recorded by `python -m tests.interop`: a row per cell, which is a stack, a suite, a feature and an arm.
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.errors import TableError
from ktlslab.packages import require
from ktlslab.runs.storage import unreadable
from ktlslab.show.html import LINE, SMALL, Html, Picture, picture, plural, prose, table

if TYPE_CHECKING:
    import pandas as pd

INTEROP_COLUMNS = (
    "machine",  # the series of the guest's kernel
    "kernel",  # its release
    "role",  # client or server: what ktlslab is
    "stack",  # the other end
    "library",  # its TLS library
    "package",  # what brings it
    "stack_version",  # as it says itself
    "suite",  # IANA name; "" where the stack was left out
    "tls",  # version
    "feature",  # what was varied
    "record_layer",
    "io_engine",
    "outcome",  # right; left out: why; or what was wrong
    "ended",  # how the connections ended: close_notify, no close_notify, or an error's name
    "tickets",  # most NewSessionTicket messages on a connection that the kernel opened
    "records",  # most records on a connection that the kernel opened (client) or made (server)
    "end_s",  # the longest end of a connection
    "seconds",  # how long the cell took
    "run_id",
)
SHORT = {  # what a column is called
    "default": "all suites",
    "resumption": "resumed",
    "early data offered": "early data",
    "KeyUpdate by the peer": "KeyUpdate",
    "KeyUpdate by us, peer's asked for": "both update",
    "client certificate": "client cert.",
    "no client certificate": "cert. missing",
    "HelloRetryRequest": "retry",
    "small records": "small",
    "no close_notify": "no notify",
}
RIGHT, LEFT_OUT = "right", "left out"
ROLES = {"client": "ktlslab's client with servers", "server": "ktlslab's server with clients"}
_TINT = {"all": "rgba(86,180,233,0.22)", "some": "rgba(213,94,0,0.42)", "none": "transparent"}
_CELL = f"border:1px solid {LINE};padding:0.15em 0.4em;text-align:center"


def read_interop(path: str | Path = "../data/interop.parquet") -> pd.DataFrame:
    """Read the recorded matrix (`INTEROP_COLUMNS`) and its provenance. TableError says what is wrong with it."""
    require("lab", "pandas", "pyarrow")
    import pandas as pd  # noqa: PLC0415 - half a second, and the grid's text does not need it

    path = _checks.path("reading the interoperation matrix", "path", path)
    remedy = "Record it: python -m tests.interop -o data/interop.parquet"
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise TableError(f"reading {path}", answered=unreadable(path, error), remedy=remedy) from error
    if missing := [name for name in INTEROP_COLUMNS if name not in frame.columns]:
        raise TableError(f"reading {path}", answered=f"it lacks the columns {', '.join(missing)}", remedy=remedy)
    frame = frame[list(INTEROP_COLUMNS)]
    if (beside := path.with_suffix(".json")).exists():
        frame.attrs["provenance"] = json.loads(beside.read_text())
    return frame


def summed(frame: pd.DataFrame, role: str) -> pd.DataFrame:
    """Return how many cells were right of how many: a row per stack, a column per feature, values "right/all" or ""."""
    cells = frame[(frame["role"] == role) & (frame["suite"] != "")]
    right = (cells["outcome"] == RIGHT).groupby([cells["stack"], cells["feature"]], sort=False)
    counts = right.agg(["sum", "count"])
    said = counts["sum"].astype(str) + "/" + counts["count"].astype(str)
    wide = said.unstack(fill_value="")  # noqa: PD010 - a Series has no pivot_table
    return wide.reindex(index=cells["stack"].unique(), columns=cells["feature"].unique(), fill_value="")


def matrix(frame: pd.DataFrame) -> Picture:
    """Show the matrix: for each role the stacks and what each was right in, then what was wrong or left out, and why.

    A cell says how many of its combinations of suite, record layer, I/O engine and kernel were right; empty: the stack
    has no switch for that feature.
    """
    _checks.frame("showing the interoperation matrix", "frame", frame, INTEROP_COLUMNS)
    cells = frame[frame["suite"] != ""]
    right = int((cells["outcome"] == RIGHT).sum())
    kernels = ", ".join(sorted(frame["kernel"].unique(), key=_numbers))
    said = f"{right:,} of {len(cells):,} cells right, with {cells['stack'].nunique()} stacks on Linux {kernels}"
    parts: list[str] = [prose(f"{said}. Each cell moved bodies of several sizes, in connections of their own.")]
    for role, title in ROLES.items():
        if (frame["role"] == role).any():
            parts.append(prose(Html(f"<b>{title}</b>")) + _grid(frame, role))
    bad = cells[cells["outcome"] != RIGHT]
    out = frame[frame["outcome"].str.startswith(LEFT_OUT)]
    if len(bad):
        rows = bad[["kernel", "stack", "suite", "feature", "record_layer", "outcome"]].itertuples(index=False)
        parts.append(table(("kernel", "stack", "suite", "feature", "record layer", "what was wrong"), _text(rows)))
    if len(out):
        rows = out[["stack", "feature", "kernel", "outcome"]].drop_duplicates().itertuples(index=False)
        parts.append(table(("left out", "feature", "kernel", "why"), _text(rows)))
    return picture("Interoperation", *parts, text=f"{said}; {plural(len(bad), 'cell')} wrong, {len(out)} left out")


def versions(frame: pd.DataFrame) -> Picture:
    """Show which stack was tried in which version, from which package."""
    columns = ["role", "stack", "library", "stack_version", "package"]
    rows = _text(frame[columns].drop_duplicates().itertuples(index=False))
    head = ("ktlslab is", "stack", "TLS library", "says of itself", "package")
    whole = [(*row[:-1], Html(f'<span style="white-space:nowrap">{escape(row[-1])}</span>')) for row in rows]
    return picture("The stacks", table(head, whole), text=plural(frame["stack"].nunique(), "stack"))


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def _text(rows: object) -> list[tuple[str, ...]]:
    return [tuple(map(str, row)) for row in rows]  # type: ignore[attr-defined]


def _grid(frame: pd.DataFrame, role: str) -> str:
    wide = summed(frame, role)
    head = "".join(
        f'<th style="{_CELL};{SMALL}">{escape(SHORT.get(name, name))}</th>' for name in ("", *map(str, wide.columns))
    )
    lines = []
    for stack, row in wide.iterrows():
        named = f'<th style="{_CELL};text-align:left">{escape(str(stack))}</th>'
        lines.append(f"<tr>{named}{''.join(_place(value) for value in row)}</tr>")
    return f'<table style="border-collapse:collapse;font-size:0.9em"><tr>{head}</tr>{"".join(lines)}</table>'


def _place(said: str) -> str:
    right, _, count = said.partition("/")
    kind = "none" if not said else "all" if right == count else "some"
    words = {"none": "", "all": f"✓ {right}", "some": f"{right} of {count}"}
    whole = f'<span style="white-space:nowrap">{words[kind]}</span>'
    return f'<td style="{_CELL};background-color:{_TINT[kind]}">{whole}</td>'
