"""Where a notebook's table comes from, so that the notebook itself need not say: swept now, swept before, or recorded.

A table that was measured on the reader's own machine is worth more than a recorded one, so a sweep is tried first.
Where no kernel with kTLS is available, the recorded figures of `data/` stand in, and `Table` says so when it is shown.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab.errors import MachineError, StorageError, TableError
from ktlslab.measure.dimensions import IO_ENGINES, RECORD_LAYERS, WORKLOADS
from ktlslab.measure.plan import SETTING
from ktlslab.measure.sweeping import sweep
from ktlslab.measure.table import read_table
from ktlslab.runs.journal import interrupted
from ktlslab.show.html import Html, plural, prose, table
from ktlslab.show.names import place_name, processor, size_name, suite_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

VARIABLE = "KTLSLAB_TABLE"
RECORDED = Path("../data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A frame of samples and where it comes from. `recorded`: not measured on this occasion, nor perhaps here."""

    frame: pd.DataFrame
    origin: str
    recorded: bool

    def __repr__(self) -> str:
        return f"{plural(len(self.frame), 'sample')}, {self.origin}: {place_name(self.frame)}"

    def _repr_html_(self) -> str:
        frame = self.frame
        runs = frame.attrs.get("provenance", {})
        rows = [
            ("samples", f"{len(frame):,}, each with its proof of path"),
            ("origin", self.origin),
            ("measured on", place_name(frame)),
            ("record layers", ", ".join(_in_order(frame["record_layer"], RECORD_LAYERS))),
            ("I/O engines", ", ".join(_in_order(frame["io_engine"], IO_ENGINES))),
            ("suites", "; ".join(suite_name(name) for name in sorted(frame["suite"].unique()) if name)),
            ("payloads", ", ".join(size_name(int(size)) for size in sorted(frame["payload_bytes"].unique()))),
            ("workloads", ", ".join(_in_order(frame["workload"], WORKLOADS))),
            ("blocks", _span(frame.groupby([*SETTING], observed=True)["repeat"].nunique())),
        ]
        how = table((), _provenance({run: runs.get(run, {}) for run in frame["run_id"].unique()}))
        note = Html("<b>These are recorded figures: no kernel with kTLS ran on this occasion.</b>")
        folded = "How it was measured, and what was unusual"
        return (
            f"<div>{prose(note) if self.recorded else ''}{table((), rows)}"
            f'<details><summary style="cursor:pointer">{folded}</summary>{how}</details></div>'
        )


def find_table(
    output: str | Path = "out/quick.parquet", *, plan: str = "quick", on: str = "auto", fresh: bool = False
) -> Table:
    """Return the table to show: KTLSLAB_TABLE if that is set, else a sweep into `output`, else the newest of ../data.

    A table that lies at `output` is shown as it is; `fresh` measures anew. Raises TableError where there is none.
    """
    if named := os.environ.get(VARIABLE):
        return _read(Path(named), f"read from {Path(named).name}")
    path = Path(output)
    if path.exists() and not fresh:
        return _read(path, f"measured earlier, into {path} (find_table(fresh=True) measures anew)")
    try:
        frame = sweep(plan, on, output=path, resume=interrupted(path))
        return Table(frame=frame, origin=f"measured now, into {path}", recorded=False)
    except StorageError:
        raise
    except MachineError as error:
        return recorded_table(f"because nothing could be measured here ({error})")


def recorded_table(because: str, folder: Path = RECORDED) -> Table:
    """Return the recorded table of the newest kernel. TableError where there is none."""
    path = newest_recorded(folder)
    if path is None:
        answered = f"no table in {folder} either"
        raise TableError(f"looking for recorded figures, {because}", answered=answered, remedy="Run `ktlslab doctor`.")
    return Table(frame=read_table(path), origin=f"recorded in {path.name}, {because}", recorded=True)


def recorded(name: str, folder: Path = RECORDED) -> Table:
    """Return a table of `data/` by its name. TableError where it is not there."""
    return Table(frame=read_table(folder / f"{name}.parquet"), origin=f"recorded in {name}.parquet", recorded=True)


def newest_recorded(folder: Path = RECORDED) -> Path | None:
    """Return the recorded table whose name sorts last, numbers by their value; None where there is none."""
    paths = sorted(folder.glob("quick*.parquet"), key=_by_number) or sorted(folder.glob("*.parquet"), key=_by_number)
    return paths[-1] if paths else None


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.stem)]


def _in_order(column: pd.Series, known: tuple[str, ...]) -> list[str]:
    """Return a column's values in the order in which a plan names them."""
    return [name for name in known if name in set(column)]


def _span(counts: pd.Series) -> str:
    """Return how many there are, from the fewest to the most."""
    return " to ".join(dict.fromkeys((f"{counts.min()}", f"{counts.max()}"))) + " of each setting"


def _read(path: Path, origin: str) -> Table:
    recorded = path.resolve().parent == RECORDED.resolve()
    return Table(frame=read_table(path), origin=origin, recorded=recorded)


def _provenance(runs: Mapping[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Return what a reader needs to judge the runs; runs with the same facts are listed together."""
    told: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run, known in runs.items():
        told.setdefault(tuple(_facts(known)), []).append(run)
    rows = []
    for facts, names in told.items():
        rows.append((plural(len(names), "run"), ", ".join(names)))
        rows += facts
        unusual = [" ".join(said) for name in names if (said := runs[name].get("unusual"))]
        rows += [("unusual", "\n".join(unusual))] if unusual else []
    return rows


def _facts(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of a run: processor, kernel, libraries, code, and what was left out."""
    if not known:
        return [("provenance", "lost")]
    if known.get("cpu") is None:
        return [("provenance", "not that of a sweep")]
    drivers = ", ".join(f"{name}: {driver}" for name, driver in known.get("crypto_drivers", {}).items() if driver)
    packages = ", ".join(f"{name} {version}" for name, version in known.get("packages", {}).items())
    config = known.get("kernel_config", {})
    tls = ", ".join(f"{name}={value}" for name, value in config.items() if name.startswith("CONFIG_TLS"))
    where = f" on host {known['host']}" if known.get("host") else ""
    facts = [
        ("processor", f"{processor(known)}{where}"),
        ("kernel", f"{known.get('kernel', '?')}; {tls or 'its configuration is not known'}"),
        ("kernel's crypto drivers", drivers or "not known"),
        ("TLS libraries", f"client {known.get('client_openssl', '?')}, peer {known.get('peer_openssl', '?')}"),
        ("code", f"{known.get('commit') or 'not in a checkout'}; {packages}"),
    ]
    left_out = [f"{arm}: {why}" for arm, why in known.get("left_out", {}).items()]
    return facts + ([("left out", " ".join(left_out))] if left_out else [])
