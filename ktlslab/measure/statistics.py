"""Statistics over plain lists: small, and without numpy, because they run in guests."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: a value that occurred. ValueError for no values."""
    if not values:
        raise ValueError("a percentile of nothing")
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]
