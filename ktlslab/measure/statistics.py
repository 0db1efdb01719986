"""Statistics over plain lists: small, and without numpy, because they run in guests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_BITS = 8  # leading bits of a value that a bucket keeps: its width is less than 1/128 of its lower edge


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: a value that occurred. ValueError for no values."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[_rank(len(values), percent) - 1]


def histogram(values: Sequence[float]) -> list[list[int]]:
    """Return [[lower edge, count], ...] in rising order: values in buckets that are less than 1 % wide.

    A bucket keeps the first eight binary digits of a value (the scheme of HdrHistogram), so integers below 256 are
    exact; fractions are truncated. Empty buckets are left out. ValueError: a value is negative.
    """
    if values and min(values) < 0:
        raise ValueError(f"a histogram of the negative value {min(values)}")
    counts: dict[int, int] = {}
    for value in values:  # one Python frame: this runs for every timed step
        edge = int(value)
        if (cut := edge.bit_length() - _BITS) > 0:
            edge = edge >> cut << cut
        counts[edge] = counts.get(edge, 0) + 1
    return [[edge, counts[edge]] for edge in sorted(counts)]


def histogram_percentile(buckets: Iterable[Sequence[int]], percent: float) -> int:
    """Return the lower edge of the bucket that holds the nearest-rank percentile: at most 1 % below it.

    ValueError for an empty histogram. To add histograms of the same unit, concatenate them in any order.
    """
    ordered = sorted((edge, count) for edge, count in buckets)
    rank = _rank(sum(count for _, count in ordered), percent)
    for edge, count in ordered:
        rank -= count
        if rank <= 0:
            return edge
    raise ValueError("no values")


def _rank(count: int, percent: float) -> int:
    return max(1, math.ceil(count * percent / 100))
