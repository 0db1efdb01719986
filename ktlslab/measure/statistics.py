"""Statistics over plain lists: small, and without numpy, because they run in guests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_BITS = 8  # of a value that a bucket keeps: the first and 7 more, so it is less than 1/128 of its lower edge wide


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: a value that occurred. ValueError for no values."""
    if not values:
        raise ValueError("a percentile of nothing")
    return sorted(values)[_rank(len(values), percent) - 1]


def histogram(values: Sequence[float]) -> list[list[int]]:
    """Return [[lower edge, count], ...] in rising order: values in buckets that are less than 1 % wide.

    A bucket keeps a value's first eight binary digits (the scheme of HdrHistogram), so whole values below 256 are
    exact; fractions are cut off. Empty buckets are left out. ValueError: a value is negative.
    """
    if values and min(values) < 0:
        raise ValueError(f"a histogram of the negative value {min(values)}")
    counts: dict[int, int] = {}
    for value in values:  # in one frame: it is done for every step that was timed
        edge = int(value)
        if (cut := edge.bit_length() - _BITS) > 0:
            edge = edge >> cut << cut
        counts[edge] = counts.get(edge, 0) + 1
    return [[edge, counts[edge]] for edge in sorted(counts)]


def histogram_percentile(buckets: Iterable[Sequence[int]], percent: float) -> int:
    """Return the lower edge of the bucket that the nearest-rank percentile lies in: at most 1 % below it.

    ValueError for an empty histogram. Histograms over the same unit add up: concatenate them in any order.
    """
    ordered = sorted((edge, count) for edge, count in buckets)
    rank = _rank(sum(count for _, count in ordered), percent)
    for edge, count in ordered:
        rank -= count
        if rank <= 0:
            return edge
    raise ValueError("a percentile of nothing")


def _rank(count: int, percent: float) -> int:
    return max(1, math.ceil(count * percent / 100))
