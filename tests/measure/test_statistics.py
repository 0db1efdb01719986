import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktlslab.measure.statistics import percentile

values = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1)


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
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)
