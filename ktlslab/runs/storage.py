"""Writing a frame: Parquet, and its provenance as JSON beside it, atomically."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import StorageError, UsageError
from ktlslab.runs.journal import journal_path

if TYPE_CHECKING:
    import pandas as pd


_SUFFIX = ".parquet"


def table_path(tried: str, name: str, value: Any) -> Path:
    """Return the absolute path of a table to be written. UsageError where its name is not NAME.parquet."""
    path = _checks.path(tried, name, value, f"the path of a table, NAME{_SUFFIX}").absolute()
    if path.suffix != _SUFFIX:
        raise UsageError(f"{tried} into {value}", answered=f"not NAME{_SUFFIX}", remedy=f"Name it NAME{_SUFFIX}.")
    return path


def store(frame: pd.DataFrame, path: Path, **more: pd.DataFrame) -> None:
    """Write a frame and its `attrs["provenance"]`. StorageError where they cannot be written.

    A further frame is written first, as `beside(path, name)`.
    """
    provenance = frame.attrs.get("provenance", {})
    with storing(path):
        for name, other in more.items():
            _put(beside(path, name), lambda to, other=other: other.to_parquet(to, index=False, compression="zstd"))  # type: ignore[misc]
        _put(path, lambda to: frame.to_parquet(to, index=False, compression="zstd"))
        _put(path.with_suffix(".json"), lambda to: to.write_text(json.dumps(provenance, indent=1) + "\n"))


def beside(path: Path, name: str) -> Path:
    """Return the path of a further frame of a table: TABLE.name.parquet."""
    return path.with_suffix(f".{name}{_SUFFIX}")


@contextlib.contextmanager
def storing(path: Path, rows: Path | None = None) -> Iterator[None]:
    """Turn an OSError into a StorageError that says where the rows are: by default in the journal of `path`."""
    try:
        yield
    except OSError as error:
        answered = os.strerror(error.errno) if error.errno else str(error)
        kept = rows or journal_path(path)
        remedy = f"Free space or choose another place, then continue with --resume: rows are safe in {kept}."
        raise StorageError(f"writing {path}", answered=answered, remedy=remedy) from error


def unreadable(path: Path, error: Exception) -> str:
    """Say why a file could not be read: for a missing one Parquet's reader gives only its name."""
    return str(error).rstrip(".") if path.exists() else "there is no such file"


def _put(path: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file, then rename it: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
