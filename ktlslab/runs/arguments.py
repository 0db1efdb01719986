"""What callers give, checked where it comes in: an argument that cannot be meant is a UsageError with a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab.errors import UsageError
from ktlslab.packages import extra

if TYPE_CHECKING:
    import pandas as pd

TABLE = ".parquet"


def path_of(value: Any, tried: str) -> Path:
    """Return a path, given as one or as a string."""
    if isinstance(value, str | Path) and str(value) and "\0" not in str(value):
        return Path(value)
    raise _wrong(value, tried, 'Give a file name, such as "table.parquet".')


def output_of(value: Any, tried: str) -> Path:
    """Return the absolute path of a table to be written."""
    path = path_of(value, tried).absolute()
    if path.suffix != TABLE:
        raise UsageError(f"{tried} {value}", answered=f"not NAME{TABLE}", remedy=f"Name it NAME{TABLE}.")
    return path


def words_of(value: Any, tried: str, remedy: str) -> list[str]:
    """Return a list of words, given as a list or as one word."""
    many = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    words = list(value) if many else [value]
    if wrong := [word for word in words if not isinstance(word, str)]:
        raise _wrong(wrong[0], tried, remedy)
    if not words:
        raise UsageError(tried, answered="there is none", remedy=remedy)
    return words


def frame_of(value: Any, tried: str, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Return a DataFrame that has these columns."""
    with extra("lab"):
        import pandas as pd  # noqa: PLC0415 - half a second that the command line need not pay

    remedy = "Give a table that `ktlslab.sweep` or `ktlslab.read_table` returned."
    if not isinstance(value, pd.DataFrame):
        raise _wrong(value, tried, remedy)
    if missing := [name for name in columns if name not in value]:
        raise UsageError(tried, answered=f"it lacks the columns {', '.join(missing)}", remedy=remedy)
    return value


def frames_of(value: Any, tried: str) -> Sequence[pd.DataFrame]:
    """Return a sequence of DataFrames, at least one."""
    if not isinstance(value, list | tuple) or not value:
        raise _wrong(value, tried, "Give a list of tables, one at least.")
    return [frame_of(frame, tried) for frame in value]


def share_of(value: Any, tried: str, what: str, remedy: str) -> float:
    """Return a number from 0 up to, but not, 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise UsageError(tried, answered=f"{what} of {value!r}", remedy=remedy)
    return float(value)


def check_that(fits: bool, value: Any, tried: str, remedy: str) -> None:  # noqa: FBT001
    """Refuse a value unless it fits."""
    if not fits:
        raise _wrong(value, tried, remedy)


def _wrong(value: Any, tried: str, remedy: str) -> UsageError:
    shown = repr(value) if len(repr(value)) <= 60 else f"a {type(value).__name__}"
    return UsageError(tried, answered=f"{shown} is not that", remedy=remedy)
