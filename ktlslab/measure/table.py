"""The table: its columns, their values, and the provenance of its runs.

`NAME.parquet` has a row per sample; `NAME.json` holds the provenance of each run in it, by `run_id`. Writing and
reading both check the table; the error names the first value that breaks a rule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import TableError
from ktlslab.measure.dimensions import IO_ENGINES, RECORD_LAYERS, WORKLOADS
from ktlslab.measure.plan import renamed
from ktlslab.packages import extra, require
from ktlslab.runs import counting
from ktlslab.runs.clocks import UNITS
from ktlslab.runs.storage import store, unreadable
from ktlslab.tls.suites import Suite, Version

if TYPE_CHECKING:
    import pandas as pd

# Name, type and meaning. "Units" are those of the column `unit`: ns or instructions.
SCHEMA: tuple[tuple[str, type, str], ...] = (
    ("run_id", str, "the run that measured it, a key of the provenance"),
    ("host", str, "name of the machine that measured, or of the guest's host"),
    ("machine", str, "here, or the series of the guest's kernel"),
    ("kernel", str, "release of the kernel"),
    ("clock", str, "wall or instructions"),
    ("unit", str, "ns or instructions"),
    ("record_layer", str, "the record layer that the plan asked for"),
    ("io_engine", str, "syscall or uring"),
    ("suite", str, "IANA name; empty for plain TCP"),
    ("tls_version", str, "TLS 1.2 or TLS 1.3; empty for plain TCP"),
    ("payload_bytes", int, "bytes per operation (echo: in each direction; serve: of a response)"),
    ("workload", str, "echo, upload, download, sendfile (an upload from a file) or serve"),
    ("depth", int, "operations in flight per connection (serve: on all connections)"),
    ("connections", int, "connections in use at the same time (serve: open)"),
    ("record_size", int, "most payload bytes in a record"),
    ("link", str, "loopback, or a veth pair with its delay and loss"),
    ("request_bytes", int, "bytes of a request in serve; 0 in other workloads"),
    ("replica", int, "number of an equal arm in its block, from 0; 1 and above are for the noise floor"),
    ("repeat", int, "number of the block in its setting, from 0"),
    ("position", int, "position in the block's order, from 0"),
    ("warm_up", int, "steps of the warm-up, which do not count"),
    ("steady", bool, "whether the warm-up ended at a steady speed"),
    ("operations", int, "operations in the sample"),
    ("operations_per_step", int, "operations per timed step"),
    ("elapsed", int, "units for the whole sample"),
    ("latency_p50", float, "units per operation, median over the timed steps"),
    ("latency_p99", float, "units per operation, 99th percentile: the slowest step where there are fewer than 100"),
    ("latency_min", float, "units per operation, the fastest timed step"),
    ("latency_max", float, "units per operation, the slowest timed step"),
    ("latency_histogram", object, "[[units per operation, timed steps], ...]; see statistics.histogram"),
    ("throughput_bytes_per_unit", float, "payload bytes per unit, including the wait for acknowledgements"),
    ("client_cpu", float, "units of CPU per operation, from the process's CPU clock; NaN: too coarse"),
    ("client_user", float, "units per operation in user mode, sampled by the tick"),
    ("client_system", float, "units per operation in the kernel, sampled by the tick"),
    ("peer_cpu", float, "units of CPU per operation, from the peer's CPU clock; NaN: too coarse"),
    ("peer_user", float, "units per operation in user mode, sampled by the tick"),
    ("peer_system", float, "units per operation in the kernel, sampled by the tick"),
    ("machine_softirq", float, "units per operation in all interrupts and softirqs of the machine; NaN: not available"),
    ("client_syscalls", float, "system calls per operation, counted in the warm-up; NaN: not available"),
    ("client_cycles", float, "CPU cycles per operation, from a hardware counter; NaN: not available"),
    ("client_instructions", float, "instructions per operation, from a hardware counter; NaN: not available"),
    ("client_cache_misses", float, "cache misses per operation, from a hardware counter; NaN: not available"),
    ("wire_tx_bytes", float, "bytes of TCP payload that the client sent, per operation"),
    ("wire_rx_bytes", float, "bytes of TCP payload that the client received, per operation"),
    ("crypto_driver", str, "the kernel's driver for the cipher; empty where the kernel made no records"),
    ("kernel_tx_records", int, "increase of the kernel's TX sequence number"),
    ("kernel_rx_records", int, "increase of the kernel's RX sequence number"),
    ("tls_stat_tx", int, "increase of TlsTxSw in /proc/net/tls_stat when the session opened"),
    ("tls_stat_rx", int, "increase of TlsRxSw in /proc/net/tls_stat when the session opened"),
    ("record_layer_observed", str, "the record layer that made the records, as the kernel shows it"),
    ("session_bytes", float, "serve: memory of the server's process per open session; NaN: not measured"),
    (
        "kernel_session_bytes",
        float,
        "serve: memory of the kernel's objects per open session, both ends; NaN: not measured",
    ),
    ("payload_ok", bool, "whether the payload's checksums agreed at both ends"),
)
__all__ = [
    "NAMES",
    "SCHEMA",
    "check",
    "comparable",
    "merge",
    "read_table",
    "to_frame",
    "write_table",
]
# Columns that tables of earlier versions lack, and what they hold there.
ADDED_COLUMNS: dict[str, float] = {
    "request_bytes": 0,
    "session_bytes": math.nan,
    "kernel_session_bytes": math.nan,
}
FORMER_COLUMNS = {"direction": "workload", "burst": "operations_per_step"}  # in tables from before version 0.2
NAMES = tuple(name for name, _, _ in SCHEMA)
_KEY = [
    "run_id",
    *NAMES[NAMES.index("record_layer") : NAMES.index("repeat") + 1],
]  # these identify a sample
_ALLOWED: dict[str, tuple[str, ...]] = {
    "clock": tuple(UNITS),
    "unit": tuple(UNITS.values()),
    "record_layer": RECORD_LAYERS,
    "io_engine": IO_ENGINES,
    "workload": WORKLOADS,
    "suite": ("", *(suite.name for suite in Suite)),
    "tls_version": ("", *(version.label for version in Version)),
    "record_layer_observed": RECORD_LAYERS,
}
# What must be equal in all runs of a table, and what else under the wall clock: name, and how to find it.
_Fact = Callable[[dict[str, Any]], Any]
_ALIKE: dict[str, _Fact] = {
    "ktlslab's version": lambda run: run.get("packages", {}).get("ktlslab"),
    "the code's commit": lambda run: run.get("commit"),
    "the plan's steps": lambda run: run.get("plan", {}).get("steps"),
    "the arm slowed on purpose": lambda run: run.get("plan", {}).get("handicap"),
    "Python": lambda run: run.get("python"),
    "the client's OpenSSL": lambda run: run.get("client_openssl"),
    "the peer's OpenSSL": lambda run: run.get("peer_openssl"),
    "what the CPU can do for a cipher": lambda run: run.get("cpu_flags"),
}
_ALIKE_IN_TIME: dict[str, _Fact] = {
    "the CPU": lambda run: run.get("cpu"),
    "the host's CPU": lambda run: run.get("host_cpu"),
    "the CPU's governor": lambda run: run.get("governor"),
    "whether the CPU is emulated": lambda run: run.get("emulated"),
}
# Other numbers may be 0: those sampled by the tick, and those that some arms lack.
_POSITIVE = (
    *("payload_bytes", "depth", "connections", "record_size", "operations", "operations_per_step", "elapsed"),
    *("latency_p50", "latency_p99", "latency_min", "latency_max"),
    *("throughput_bytes_per_unit", "client_cpu", "peer_cpu"),
)
_NAN_TELLS = frozenset(name for name, _, meaning in SCHEMA if "NaN:" in meaning)
_ANEW = "Measure it again, or fix the program that made it."
_OLDER = "It is from another version of ktlslab: read it with that version, or measure it again."
_SWEPT = "Give a table that `ktlslab sweep -o` wrote."
_OTHERS = {"estimate_ns": "an estimate", "function": "a profile", "promise": "a table of promises"}  # by a column


def to_frame(rows: list[dict[str, Any]], runs: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a DataFrame with the schema's columns and types; `attrs["provenance"]` is a copy of `runs`."""
    with extra("lab"):
        import pandas as pd  # noqa: PLC0415 - half a second that the command line need not pay

    _checks.items("making a table", "rows", rows, dict, "a list of rows")
    _checks.instance("making a table", "runs", runs, dict, "the provenance of the rows' runs, by run_id")
    for row in rows:
        if missing := [name for name in NAMES if name not in row]:
            raise TableError("making a table", answered=f"a row lacks {', '.join(missing)}", remedy=_OLDER)
    frame = pd.DataFrame(rows, columns=list(NAMES)).astype({name: kind for name, kind, _ in SCHEMA})
    frame.attrs["provenance"] = dict(runs)
    return frame


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table and its provenance, completely or not at all.

    Raises TableError where the table breaks the schema, StorageError where it cannot be written.
    """
    path = _checks.path("writing a table", "path", path)
    check(frame, f"writing {path}")
    store(frame, path)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table and its provenance, and check them against the schema.

    Tables of earlier versions of ktlslab get the present column names. Raises TableError, which says what is wrong.
    """
    require("lab", "pandas", "pyarrow")
    import pandas as pd  # noqa: PLC0415

    path = _checks.path("reading a table", "path", path)
    beside = path.with_name(f"{path.stem}.json") if path.name else path
    try:
        frame = pd.read_parquet(path)
        if beside.exists():
            frame.attrs["provenance"] = json.loads(beside.read_text(encoding="utf-8"))
        frame = frame.rename(columns=FORMER_COLUMNS)
        frame = frame.assign(**{name: value for name, value in ADDED_COLUMNS.items() if name not in frame})
        for run in frame.attrs.get("provenance", {}).values():
            run["plan"] = renamed(run.get("plan", {}))
    except (OSError, ValueError) as error:
        raise TableError(f"reading {path}", answered=unreadable(path, error), remedy=_SWEPT) from error
    if "latency_histogram" in frame:
        frame["latency_histogram"] = frame["latency_histogram"].map(_plain)
    check(frame, f"reading {path}")
    return frame[list(NAMES)]


def check(frame: pd.DataFrame, tried: str = "checking a table") -> None:
    """Refuse what is no table of samples: TableError with the first thing wrong and where."""
    _checks.frame(tried, "frame", frame)
    for name, what in _OTHERS.items():
        if name in frame and "latency_p50" not in frame:
            raise TableError(tried, answered=f"it is {what}, not a table of samples", remedy=_SWEPT)
    if missing := [name for name in NAMES if name not in frame]:
        raise TableError(tried, answered=f"it lacks the columns {', '.join(missing)}", remedy=_OLDER)
    if unknown := [str(name) for name in frame if name not in NAMES]:
        raise TableError(tried, answered=f"it has unknown columns: {', '.join(unknown)}", remedy="Drop them first.")
    for name, kind, _ in SCHEMA:
        if not _is_of(frame[name], kind):
            answered = f"column {name} holds {frame[name].dtype}, not {kind.__name__}"
            raise TableError(tried, answered=answered, remedy=_ANEW)
    for wrong, name, rule in _faults(frame):
        if wrong.any():
            at = int(wrong.to_numpy().argmax())
            run, value = frame["run_id"].iloc[at], frame[[name]].to_dict("list")[name][at]
            answered = f"row {at} (run {run}): {name} is {value!r}, {rule}"
            raise TableError(tried, answered=answered, remedy=_ANEW)


def _faults(frame: pd.DataFrame) -> Iterator[tuple[pd.Series, str, str]]:
    """Yield for each rule the rows that break it, the column to name, and the rule in words."""
    for name, known in _ALLOWED.items():
        yield ~frame[name].isin(known), name, f"known: {', '.join(word or 'empty' for word in known)}"
    yield frame["unit"] != frame["clock"].map(UNITS), "unit", "which is not the unit of its clock"
    yield (frame["suite"] == "") != (frame["record_layer"] == "plain"), "suite", "empty is for plain TCP alone"
    for name, kind, _ in SCHEMA:
        if kind is float:
            nan_is_wrong = name not in _NAN_TELLS
            yield frame[name].abs() == math.inf, name, "not a finite number"
            yield frame[name].isna() & nan_is_wrong, name, "not a finite number"
        if kind in (int, float):
            yield frame[name] < 0, name, "below 0"
            yield (frame[name] == 0) & (name in _POSITIVE), name, "not above 0"
    for smaller, larger in pairwise(("latency_min", "latency_p50", "latency_p99", "latency_max")):
        yield frame[smaller] > frame[larger], smaller, f"above {larger}"
    other = frame["record_layer_observed"] != frame["record_layer"]
    yield other, "record_layer_observed", "which is not the record layer that the plan asked for"
    yield ~frame["payload_ok"], "payload_ok", "but each row needs this proof"
    yield (
        ~frame["latency_histogram"].map(_well_formed).astype(bool),
        "latency_histogram",
        "not [[latency, steps], ...] with rising latencies",
    )
    runs = frame.attrs.get("provenance", {})
    yield (
        ~frame["run_id"].isin([run for run, about in runs.items() if isinstance(about, dict)]),
        "run_id",
        "a run whose provenance is missing",
    )
    yield frame.duplicated(_KEY), "repeat", "but the table has that sample already"


def _is_of(column: pd.Series, kind: type) -> bool:
    """Whether a column has the type that the schema names, whatever its width."""
    with extra("lab"):
        from pandas.api import types  # noqa: PLC0415

    tests = {
        str: types.is_string_dtype,
        int: types.is_integer_dtype,
        float: types.is_float_dtype,
        bool: types.is_bool_dtype,
        object: types.is_object_dtype,
    }
    return bool(tests[kind](column))


def _well_formed(histogram: Any) -> bool:
    """Whether it is [[units, count], ...]: positive, finite, in rising order of units, not empty."""
    try:
        pairs = [(float(units), float(count)) for units, count in histogram]
    except (TypeError, ValueError):
        return False
    fit = all(0 < units < math.inf and count >= 1 and count.is_integer() for units, count in pairs)
    return bool(pairs) and fit and all(one < other for (one, _), (other, _) in pairwise(pairs))


def _plain(histogram: Any) -> Any:
    """Return a histogram as a worker wrote it: Parquet returns arrays of arrays with numbers of one type."""
    try:
        return [[float(units), int(count)] for units, count in histogram]
    except (TypeError, ValueError):
        return histogram  # for `check` to refuse


def comparable(one: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """Return the reasons why two tables should not be merged, a sentence each; [] where they can be.

    Kernels and machines may differ: a table exists to compare them. The clock's unit, the code, the size of a sample
    and the libraries at both ends may not differ; nor may the CPU that counted; nor, under the wall clock, the CPU and
    its settings.
    """
    for name, frame in (("one", one), ("other", other)):
        _checks.frame("seeing whether tables are comparable", name, frame, ["unit", "run_id"])
    reasons = []
    units = [", ".join(sorted(set(frame["unit"]))) for frame in (one, other)]
    if units[0] != units[1]:
        reasons.append(f"the unit is {units[0]} in one and {units[1]} in the other")
    reasons.append(counting.difference(counting.counted(one), counting.counted(other)))
    runs, others = _runs(one), _runs(other)
    timed, others_timed = (
        {name: run for name, run in found.items() if run.get("clock") == "wall"} for found in (runs, others)
    )
    for facts, ours, theirs in ((_ALIKE, runs, others), (_ALIKE_IN_TIME, timed, others_timed)):
        for words, fact in facts.items():
            differing = (
                f"{words} is {fact(a)!r} in run {name} and {fact(b)!r} in run {its_name}"
                for name, a in ours.items()
                for its_name, b in theirs.items()
                if fact(a) != fact(b)
            )
            reasons += [next(differing, "")]
    return [reason for reason in reasons if reason]


def merge(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Merge tables into one, with the provenance of all. TableError where two are not `comparable`.

    A sample that several tables have appears once. Blocks are not mixed: runs of the same plan keep their `run_id`.
    """
    with extra("lab"):
        import pandas as pd  # noqa: PLC0415

    frames = _checks.items("merging tables", "frames", frames, pd.DataFrame, "a list of tables, at least one", least=1)
    merged = frames[0]
    check(merged, "merging tables: number 1")
    for number, frame in enumerate(frames[1:], 2):
        check(frame, f"merging tables: number {number}")
        if reasons := comparable(merged, frame):
            remedy = "Compare them with `ktlslab compare A B`, or measure again with the same code."
            if counting.difference(counting.counted(merged), counting.counted(frame)):
                remedy = counting.REMEDY
            raise TableError(f"merging table {number} into the others", answered="; ".join(reasons), remedy=remedy)
        runs = {**merged.attrs["provenance"], **_runs(frame)}
        there = set(merged[_KEY].itertuples(index=False, name=None))
        new = frame[[sample not in there for sample in frame[_KEY].itertuples(index=False, name=None)]]
        merged = pd.concat([merged, new], ignore_index=True)
        merged.attrs["provenance"] = runs  # concat drops it
    return merged


def _runs(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the provenance of the runs that have rows."""
    known = frame.attrs.get("provenance", {})
    return {run: known.get(run, {}) for run in frame["run_id"].unique()}
