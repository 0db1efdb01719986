"""What a sweep has measured so far: a folder beside the table, with one file per run.

The worker of a run writes its file, a line per sample as it is measured, so a kill costs at most the sample in flight.
The file begins with the run's provenance and ends with it again, completed. No two processes write to the same file,
and a resumed sweep is a new run with a new file. The folder is removed once the table is written, and restored when a
finished table is extended.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ktlslab.errors import TableError

_LINES = ".jsonl"


@dataclass(slots=True)
class Journal:
    """What a journal holds: rows, and provenance by run."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Journal:
        """Read it, the earliest run first; an unfinished last line, which a kill leaves, does not count.

        TableError where a line is not a JSON object.
        """
        journal = cls()
        for path in run_files(folder):
            for entry in _entries(path):
                if "provenance" in entry:
                    journal.runs[entry["provenance"]["run_id"]] = entry["provenance"]
                else:
                    journal.rows.append(entry)
        return journal

    def write(self, folder: Path) -> None:
        """Write it as its workers would have, completely or not at all. `folder` must be missing or empty."""
        beside = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            beside.mkdir(parents=True)
            for run_id, provenance in self.runs.items():
                entries = [{"provenance": provenance}, *(row for row in self.rows if row["run_id"] == run_id)]
                run_path(beside, run_id).write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
            beside.replace(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def journal_path(table: Path) -> Path:
    """Return the folder for the rows of a table that is being measured."""
    return table.with_name(f"{table.name}.rows")


def interrupted(table: Path) -> bool:
    """Whether a sweep into this table ended early and left rows."""
    return bool(Journal.read(journal_path(table)).rows)


def run_path(journal: Path, run_id: str) -> Path:
    """Return the file of one run."""
    return journal / f"{run_id}{_LINES}"


def run_files(journal: Path) -> list[Path]:
    """Return the files of its runs, the earliest first: a run's id begins with its date."""
    return sorted(journal.glob(f"*{_LINES}"))


def whole_lines(path: Path, offset: int = 0) -> bytes:
    """Return the lines of a file from an offset on, without an unfinished last one; another process may be adding more.

    It reads to the size that the file has now, and not to its end: in the folder that a guest shares, where files are
    not cached (9p, cache=none), Linux answers a read at the end of a growing file with ENODATA.
    """
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        size = os.fstat(file.fileno()).st_size
        parts = []
        while offset < size and (part := file.read(size - offset)):
            parts.append(part)
            offset += len(part)
    lines, end, _unfinished = b"".join(parts).rpartition(b"\n")
    return lines + end


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(whole_lines(path).splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            remedy = "Move it away and measure again."
            raise TableError(f"reading {path}", answered=f"line {number} is not a JSON object", remedy=remedy)
        yield entry
