import math

import pytest

from ktlslab.measure.warmup import MAX_ROUNDS, PATIENCE, Warm, warm_up


def warmed(medians, *, best=math.inf, tolerance=0.01, size=2, lasting=lambda _: 1):
    """Warm up on rounds with these medians; return the outcome and the requested sizes."""
    sizes, left = [], iter(medians)

    def median_of(steps):
        sizes.append(steps)
        return next(left)

    return warm_up(median_of, size, best, tolerance, lasting), sizes


def test_it_goes_on_while_rounds_get_faster_and_stops_once_one_is_as_fast_as_the_best_before():
    outcome, sizes = warmed([200, 150, 120, 119.5, 1])
    assert outcome == Warm(steps=8, steady=True, step=119.5)
    assert sizes == [2, 2, 2, 2]


def test_one_round_will_do_where_it_agrees_with_the_last_sample():
    assert warmed([100.9, 1], best=100) == (Warm(steps=2, steady=True, step=100.9), [2])


def test_a_round_that_disagrees_with_the_last_sample_is_followed_by_more():
    outcome, sizes = warmed([130, 101, 100], best=100)
    assert outcome.steady
    assert len(sizes) == 2


def test_a_work_that_never_settles_is_given_up_and_said_not_to_be_steady():
    outcome, sizes = warmed([100, 110, 120, 130, 140], size=1)
    assert not outcome.steady
    assert len(sizes) == 1 + PATIENCE


def test_a_work_that_gets_faster_for_ever_is_given_up_too():
    outcome, sizes = warmed([1000 * 0.9**n for n in range(20)])
    assert not outcome.steady
    assert len(sizes) == MAX_ROUNDS
    assert outcome.step == pytest.approx(1000 * 0.9 ** (MAX_ROUNDS - 1))


def test_rounds_grow_to_what_lasts_long_enough_and_never_shrink():
    _, sizes = warmed([100, 50, 25, 25], lasting=lambda step: int(800 / step))
    assert sizes == [2, 8, 16, 32]
