"""The printed matrix: a row per stack, a column per feature, and in each place how many cells were right.

python -m tests.interop.table RESULTS    print what the tests recorded in RESULTS/here.xml
"""
# ruff: noqa: T201 - a command prints

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from ktlslab.show.interop import SHORT
from tests.interop.stacks import FEATURES

RIGHT, LEFT_OUT = "right", "left out"
ROLES = {"client": "ktlslab's client, and servers", "server": "ktlslab's server, and clients"}
Rows = list[dict[str, Any]]


def table(rows: Rows) -> str:
    """Return the matrix as text: for each role the stacks, then what was wrong, then what was left out and why."""
    return "\n\n".join(
        filter(None, [*(_block(rows, role) for role in ROLES), _wrong(rows), _left_out(rows), _sum(rows)])
    )


def _block(rows: Rows, role: str) -> str:
    ours = [row for row in rows if row["role"] == role and row["feature"]]
    columns = [name for name in FEATURES if any(row["feature"] == name for row in ours)]
    lines = [[ROLES[role], "TLS library", *(SHORT.get(name, name) for name in columns)]]
    for stack in dict.fromkeys(row["stack"] for row in ours):
        mine = [row for row in ours if row["stack"] == stack]
        cells = [_cell([row for row in mine if row["feature"] == name]) for name in columns]
        lines.append([stack, mine[0]["library"], *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(rows: Rows) -> str:
    if not rows:
        return "-"
    right = sum(row["outcome"] == RIGHT for row in rows)
    return str(right) if right == len(rows) else f"{right} of {len(rows)}"


def _wrong(rows: Rows) -> str:
    bad = [row for row in rows if not row["outcome"].startswith((RIGHT, LEFT_OUT))]
    names = ("kernel", "stack", "suite", "feature", "record_layer", "io_engine", "outcome")
    return "\n".join("WRONG: " + ", ".join(str(row[name]) for name in names if row.get(name)) for row in bad)


def _left_out(rows: Rows) -> str:
    out: dict[str, list[str]] = {}
    for row in rows:
        if row["outcome"].startswith(LEFT_OUT):
            where = f"{row['stack']}{', ' + row['feature'] if row['feature'] else ''}: {row['outcome']}"
            out.setdefault(where, []).append(row.get("kernel", ""))
    return "\n".join(f"{where} ({', '.join(filter(None, dict.fromkeys(kernels)))})" for where, kernels in out.items())


def _sum(rows: Rows) -> str:
    cells = [row for row in rows if row["suite"]]
    right = sum(row["outcome"] == RIGHT for row in cells)
    kernels = ", ".join(dict.fromkeys(row["kernel"] for row in rows if row.get("kernel")))
    said = (
        f"{right} of {len(cells)} cells right{f' on {kernels}' if kernels else ''}; -: the stack has no switch for it"
    )
    return f"{said}. Each place counts its cells: suites x record layers x I/O engines x kernels, each with every body."


def read(lines: Iterable[str]) -> Rows:
    """Return rows from JSON lines."""
    return [json.loads(line) for line in lines if line.startswith("{")]


def recorded(report: Path) -> Rows:
    """Return the rows that pytest's report holds."""
    try:
        properties = ET.parse(report).getroot().iter("property")  # noqa: S314 - written by our own run
    except (OSError, ET.ParseError):
        return []
    return read(item.get("value", "") for item in properties if item.get("name") == "interop")


if __name__ == "__main__":
    print(table(recorded(Path(sys.argv[1]) / "here.xml")))
