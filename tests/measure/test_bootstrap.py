"""Intervals from few blocks: textbook values, and coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktlslab.measure.bootstrap import mean_interval, resamples, student, student_tail, typical

NOISES = {
    "normal": lambda draw, shape: draw.standard_normal(shape),
    "heavy tails": lambda draw, shape: draw.standard_t(3, shape),
    "rare outliers": lambda draw, shape: draw.standard_normal(shape) * np.where(draw.random(shape) < 0.1, 10, 1),
    "ratio of skewed": lambda draw, shape: draw.lognormal(0, 1, shape) - draw.lognormal(0, 1, shape),
    "skewed": lambda draw, shape: draw.exponential(1, shape) - 1,
}


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 5, 2.57058), (0.95, 10, 1.81246), (0.975, 30, 2.04227)],
)
def test_students_distribution_is_that_of_the_tables(probability, freedom, quantile):
    assert student(probability, freedom) == pytest.approx(quantile, rel=1e-5)
    assert student_tail(quantile, freedom) == pytest.approx(1 - probability, rel=2e-5)


def test_a_far_tail_is_small_and_not_nothing():
    assert student_tail(11, 5) == pytest.approx(5.4e-5, rel=0.01)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("size", [5, 6, 8, 12])
def test_intervals_cover_what_they_promise(noise, size):
    _, low, high = mean_interval(NOISES[noise](np.random.default_rng(size), (size, 2000)))
    covered = ((low <= 0) & (high >= 0)).mean()
    # Five blocks seldom show the tail of an exponential, and no method can know what it has not seen.
    assert covered >= (0.87 if noise == "skewed" else 0.935), f"{noise}, {size} blocks: {covered:.3f}"
    assert covered < 0.995  # an interval that is too wide would also cover


def test_a_plain_percentile_interval_would_not():
    samples = np.random.default_rng(5).standard_normal((5, 2000))
    weights, share = resamples(5)
    drawn = np.random.default_rng(1).choice(len(weights), size=4000, p=share)
    low, high = np.quantile(weights[drawn] @ samples, [0.025, 0.975], axis=0)
    assert ((low <= 0) & (high >= 0)).mean() < 0.87


@pytest.mark.parametrize("size", [3, 6, 7, 12])
def test_resamples_are_all_there_is_or_a_fair_draw(size):
    weights, share = resamples(size)
    assert share.sum() == pytest.approx(1)
    assert np.allclose(weights.sum(axis=1), 1)
    spread = share @ (weights - 1 / size) ** 2  # of a weight: (1 - 1 / n) / n ** 2
    assert np.allclose(spread, (1 - 1 / size) / size**2, rtol=0.12)


def test_the_typical_value_is_the_geometric_mean():
    found = typical([np.log([1.0, 2.0, 4.0]), np.log([3.0, 3.0, 3.0]), np.log([5.0, 6.0]), np.array([])])
    assert found.value[:3] == pytest.approx([2, 3, math.sqrt(30)])
    assert found.low[1] == pytest.approx(3)
    assert found.high[1] == pytest.approx(3)
    assert np.isnan([found.low[2], found.high[2], found.value[3]]).all()


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=9), st.floats(-2, 2))
@settings(max_examples=60, deadline=None)
def test_intervals_turn_and_shift_with_the_values(values, by):
    sample = np.array(values)[:, None]
    (mean,), (low,), (high,) = mean_interval(sample)
    assert low <= mean <= high
    assert mean_interval(-sample)[1][0] == pytest.approx(-high, abs=1e-9)
    assert mean_interval(sample + by)[2][0] == pytest.approx(high + by, abs=1e-9)


def test_the_same_blocks_give_the_same_interval():
    sample = np.random.default_rng(3).standard_normal((12, 4))
    first, second = mean_interval(sample), mean_interval(sample.copy())
    assert all((one == two).all() for one, two in zip(first, second, strict=True))
