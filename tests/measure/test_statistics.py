import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktlslab.measure.statistics import histogram, histogram_percentile, percentile

values = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1)
durations = st.lists(st.integers(0, 10**12), min_size=1)


@given(values, st.floats(0, 100))
def test_a_percentile_is_a_value_that_occurred(sample, percent):
    assert percentile(sample, percent) in sample


@given(values)
def test_half_of_the_values_are_at_most_the_median(sample):
    median = percentile(sample, 50)
    assert sum(v <= median for v in sample) * 2 >= len(sample)
    assert sum(v < median for v in sample) * 2 <= len(sample)


def test_the_ends():
    assert percentile([3, 1, 2], 0) == 1
    assert percentile([3, 1, 2], 100) == 3
    assert percentile(range(1, 101), 99) == 99


def test_nothing_has_no_percentile():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
    with pytest.raises(ValueError, match="no values"):
        histogram_percentile([], 50)


@given(durations)
def test_a_histogram_counts_every_value_once_in_rising_buckets(sample):
    buckets = histogram(sample)
    edges = [edge for edge, _ in buckets]
    assert edges == sorted(set(edges))
    assert sum(count for _, count in buckets) == len(sample)
    assert all(count > 0 for _, count in buckets)
    assert json.loads(json.dumps(buckets)) == buckets


@given(st.integers(0, 10**12))
def test_a_bucket_is_at_most_one_percent_wide(value):
    ((edge, _),) = histogram([value])
    assert edge <= value
    width = next(step for step in (1 << n for n in range(64)) if histogram([edge + step])[0][0] != edge)
    assert value < edge + width
    assert width == 1 or width <= edge / 100


@given(st.integers(0, 255))
def test_small_values_are_exact(value):
    assert histogram([value, value]) == [[value, 2]]


def test_fractions_of_a_unit_are_cut_off_and_a_negative_duration_is_refused():
    assert histogram([12.25, 12.75, 13.0]) == [[12, 2], [13, 1]]
    with pytest.raises(ValueError, match=r"-0\.5"):
        histogram([-0.5])


@given(durations, st.floats(0, 100))
def test_a_histogram_gives_the_same_percentile_as_the_values_less_at_most_one_percent(sample, percent):
    exact = percentile(sample, percent)
    told = histogram_percentile(histogram(sample), percent)
    assert exact * 0.99 <= told <= exact


@given(durations, durations, st.floats(0, 100))
def test_histograms_add_up(one, other, percent):
    together = histogram_percentile(histogram(one) + histogram(other), percent)
    assert together == histogram_percentile(histogram(one + other), percent)
