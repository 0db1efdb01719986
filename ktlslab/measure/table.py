"""The table: its columns, its journal, and its provenance beside it.

A sweep writes two files while it runs and one at its end. `NAME.parquet.rows.jsonl`, the journal, gets a line a sample
as it is measured. `NAME.parquet` is the table, written whole at the end under another name and then put in place;
`NAME.json` holds the provenance of each run in it, by `run_id`. The journal goes only when the table is safely there.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab.errors import StorageError, TableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

# Name, type and meaning. `unit` says what "units" are: ns or instructions.
COLUMNS: tuple[tuple[str, type, str], ...] = (
    ("run_id", str, "the run that measured it; its provenance is beside the table"),
    ("machine", str, "here, or the series of the guest's kernel"),
    ("kernel", str, "the kernel's release"),
    ("clock", str, "wall or instructions"),
    ("unit", str, "ns or instructions"),
    ("record_layer", str, "who was asked to make TLS records"),
    ("io_engine", str, "syscall or uring"),
    ("suite", str, "IANA name, empty for plain TCP"),
    ("tls_version", str, "TLS 1.2, TLS 1.3, or empty"),
    ("payload_bytes", int, "bytes an operation moves (an echo: each way)"),
    ("direction", str, "echo, upload or download"),
    ("depth", int, "operations in flight on a connection"),
    ("connections", int, "connections at once"),
    ("repeat", int, "which block it was measured in"),
    ("operations", int, "operations in this sample"),
    ("burst", int, "operations a timed step"),
    ("elapsed", int, "units, the whole sample"),
    ("latency_p50", float, "units an operation, median over the timed steps"),
    ("latency_p99", float, "units an operation, 99th percentile"),
    ("latency_min", float, "units an operation"),
    ("latency_max", float, "units an operation"),
    ("throughput_bytes_per_unit", float, "payload bytes a unit, acknowledgement included"),
    ("client_cpu", float, "units of CPU an operation, exact process clock"),
    ("client_user", float, "units an operation in user mode, sampled by the tick"),
    ("client_system", float, "units an operation in the kernel, sampled by the tick"),
    ("peer_cpu", float, "units of CPU an operation, the peer's process clock"),
    ("kernel_tx_records", int, "records by which the kernel's TX sequence number moved"),
    ("kernel_rx_records", int, "records by which the kernel's RX sequence number moved"),
    ("tls_stat_tx", int, "TlsTxSw in /proc/net/tls_stat: change when the session was opened"),
    ("tls_stat_rx", int, "TlsRxSw in /proc/net/tls_stat: change when the session was opened"),
    ("record_layer_observed", str, "who made the records, as the kernel shows it"),
    ("payload_ok", bool, "whether the checksums agreed at both ends"),
)
NAMES = tuple(name for name, _, _ in COLUMNS)


@dataclass(slots=True)
class Journal:
    """What a journal holds: rows, and provenance by run."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Read it; an unfinished last line, which a kill leaves, does not count."""
        journal = cls()
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        for number, line in enumerate(lines[:-1], 1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                if number == len(lines) - 1:
                    continue  # cut short by a full disk, then ended by the next run
                remedy = "Move it away and sweep anew."
                raise TableError(f"reading {path}", answered=f"line {number} is no JSON", remedy=remedy) from error
            if "provenance" in entry:
                journal.runs[entry["provenance"]["run_id"]] = entry["provenance"]
            else:
                journal.rows.append(entry)
        return journal


def journal_path(table: Path) -> Path:
    return table.with_name(table.name + ".rows.jsonl")


def mend_journal(path: Path) -> None:
    """Cut an unfinished last line off, so that the next line does not grow onto it."""
    if path.exists():
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)


def to_frame(rows: list[dict[str, Any]], runs: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a DataFrame with the schema's columns and types; `attrs["provenance"]` is a copy of `runs`."""
    import pandas as pd  # noqa: PLC0415 - half a second that the command line need not pay

    for row in rows:
        if missing := [name for name in NAMES if name not in row]:
            remedy = "The journal is of another version of ktlslab: move it away and sweep anew."
            raise TableError("making a table", answered=f"a row lacks {', '.join(missing)}", remedy=remedy)
    frame = pd.DataFrame(rows, columns=list(NAMES)).astype({name: kind for name, kind, _ in COLUMNS})
    frame.attrs["provenance"] = runs
    return frame


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write table and provenance, whole or not at all. StorageError where the disk says no."""
    provenance = frame.attrs.get("provenance", {})
    with storing(path):
        _put(path, lambda to: frame.to_parquet(to, index=False))
        _put(path.with_suffix(".json"), lambda to: to.write_text(json.dumps(provenance, indent=1) + "\n"))


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table back, schema checked. TableError says what is wrong with it."""
    import pandas as pd  # noqa: PLC0415

    path = Path(path)
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        remedy = "Give a table that `ktlslab sweep -o` wrote."
        raise TableError(f"reading {path}", answered=str(error), remedy=remedy) from error
    if missing := [name for name in NAMES if name not in frame.columns]:
        remedy = "Sweep anew with this version of ktlslab."
        raise TableError(f"reading {path}", answered=f"it lacks the columns {', '.join(missing)}", remedy=remedy)
    beside = path.with_suffix(".json")
    if beside.exists():
        frame.attrs["provenance"] = json.loads(beside.read_text())
    return frame


def _put(path: Path, write: Any) -> None:
    """Write beside, then rename: a reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what a disk may answer into a sentence that says where the rows are."""
    try:
        yield
    except OSError as error:
        answered = os.strerror(error.errno) if error.errno else str(error)
        remedy = f"Free space or choose another place, then go on with --resume: rows are safe in {journal_path(path)}."
        raise StorageError(f"writing {path}", answered=answered, remedy=remedy) from error
