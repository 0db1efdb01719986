"""Typical values and their intervals from few blocks.

The typical value of positive figures is their geometric mean: the mean on the log scale. There 2 and 1/2 are equally
far from 1, the ratio of two typical values is the typical ratio, and swapping the two arms inverts it exactly. A mean
of ratios has none of these properties. (A median has the last two only pairwise, and the bootstrap of a median of five
values has only five levels.)

The interval is the expanded percentile bootstrap (Hesterberg, *What Teachers Should Know About the Bootstrap*, 2015),
never narrower than Student's. A plain percentile interval is too narrow by sqrt((n - 1) / n) and ignores Student's
tails: with five blocks, 95 % intervals cover 83 %. The expanded one corrects both and follows skewness, but cannot
reach beyond the values themselves: it covers 92 % with five. Student's covers 94 to 98 % for any symmetric noise, which
the ratio of two arms measured alike has. The studentized bootstrap covers skewed noise best (93 % for exponential
noise, against 89 %). But where most blocks agree to the last digit and one does not, as under the instruction clock,
its interval is unbounded. `tests/measure/test_bootstrap.py` simulates these claims.

For up to six blocks the bootstrap distribution is exact. For more, resamples are drawn from a fixed seed, so the same
blocks always give the same interval.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

from ktlslab.packages import extra

with extra("lab"):
    import numpy as np
    import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_BLOCKS = 3  # two blocks have a spread, but no useful interval
COUNTED_OUT = 6  # blocks up to which all resamples (462 different ones) are enumerated
RESAMPLES = 4000  # drawn where there are more blocks
_STEPS = 8193  # of the numerical integral of Student's density


class Typical(NamedTuple):
    """Geometric means of positive figures with their intervals, which are NaN for fewer than MIN_BLOCKS figures."""

    value: Floats
    low: Floats
    high: Floats


def typical(logs: Sequence[Floats], confidence: float = 0.95) -> Typical:
    """Return the typical value of each sample; a sample is the natural logarithms of a figure's blocks (no NaN)."""
    value, low, high = (np.full(len(logs), np.nan) for _ in range(3))
    sizes = np.array([len(sample) for sample in logs], dtype=int)
    for size in sorted(set(sizes.tolist()) - {0}):
        at = np.flatnonzero(sizes == size)
        value[at], low[at], high[at] = mean_interval(np.column_stack([logs[each] for each in at.tolist()]), confidence)
    return Typical(np.exp(value), np.exp(low), np.exp(high))


def mean_interval(samples: Floats, confidence: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """Return mean, low and high of each column, on the scale of the values themselves."""
    size = len(samples)
    mean = samples.mean(axis=0)
    if size < MIN_BLOCKS:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    error = samples.std(axis=0, ddof=1) / math.sqrt(size)
    reach = student(0.5 + confidence / 2, size - 1)
    resampled, share = resamples(size)
    ends = _quantiles(resampled @ (samples - mean), share, NormalDist().cdf(-reach * math.sqrt(size / (size - 1))))
    return mean, mean + np.minimum(ends[0], -reach * error), mean + np.maximum(ends[1], reach * error)


@functools.cache
def resamples(size: int) -> tuple[Floats, Floats]:
    """Return resamples as rows of weights on the values, and how likely each is."""
    if size > COUNTED_OUT:
        drawn = np.random.default_rng(size).multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
        return drawn / size, np.full(RESAMPLES, 1 / RESAMPLES)
    chosen = [Counter(which) for which in itertools.combinations_with_replacement(range(size), size)]
    counts = np.array([[which[at] for at in range(size)] for which in chosen], dtype=float)
    orders = [math.factorial(size) / math.prod(map(math.factorial, which.values())) for which in chosen]
    return counts / size, np.array(orders) / size**size


def _quantiles(values: Floats, share: Floats, tail: float) -> tuple[Floats, Floats]:
    """Return the quantiles `tail` and 1 - `tail` of each column, whose values have these shares."""
    if len(values) == RESAMPLES:  # equal shares: a partial sort is enough
        rank = max(0, math.ceil(tail * RESAMPLES - 1e-9) - 1)
        parted = np.partition(values.T, [rank, RESAMPLES - 1 - rank], axis=1)
        return parted[:, rank], parted[:, RESAMPLES - 1 - rank]
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    below = np.cumsum(share[order], axis=0)
    columns = np.arange(values.shape[1])
    low = (below >= tail - 1e-12).argmax(axis=0)
    high = (below > 1 - tail + 1e-12).argmax(axis=0)
    return ordered[low, columns], ordered[high, columns]


@functools.lru_cache(maxsize=1024)
def student(probability: float, freedom: float) -> float:
    """Return the quantile (above one half) of Student's distribution with `freedom` >= 1 degrees, any real number."""
    angle, beyond = _student(round(freedom, 3))
    return math.sqrt(freedom) * math.tan(float(np.interp(2 * (probability - 1), -beyond, angle)))


def student_tail(value: float, freedom: float) -> float:
    """Return the probability that Student's variable is larger than a `value` >= 0."""
    angle, beyond = _student(round(freedom, 3))
    return float(np.interp(math.atan(value / math.sqrt(freedom)), angle, beyond)) / 2


@functools.lru_cache(maxsize=256)
def _student(freedom: float) -> tuple[Floats, Floats]:
    """Return angles a, and the probability of |t| beyond sqrt(freedom) tan(a): the density is cos(a)**(freedom - 1)."""
    angle = np.linspace(0, math.pi / 2, _STEPS)
    density = np.cos(angle).clip(0) ** (freedom - 1)
    area = np.concatenate([np.cumsum(((density[1:] + density[:-1]) / 2)[::-1])[::-1], [0.0]])
    return angle, area / area[0]
