"""Notebook 07's checks: each knows the right answer, and says of each wrong one what is wrong with it."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from ktlslab.course import ring as check
from ktlslab.course.verdicts import Mark
from ktlslab.errors import UsageError

CHAIN = ((400, 400), (400, 370), (400, 400), (400, -32), (400, -125), (400, -125))
GIVEN = check.Given(CHAIN, operations=960, depth=16)
DEPTHS = pd.DataFrame({"syscall": [45_000.0, 40_000.0, 32_000.0], "uring": [49_000.0, 40_100.0, 31_500.0]}, [1, 4, 64])
RIGHT = [
    (check.chain, (3, 1, 1170), "a hole of 30"),
    (check.calls, (1920, 60), "32 to 1"),
    (check.dearer, (4_000,), "4,000: submission"),
    (check.hold, ({"a", "f"},), "never let data out"),
]
WRONG = [
    (check.chain, (1, 1, 1170), "Wrong break: a short send is a success"),
    (check.chain, (4, 1, 1170), "Wrong break: it was cancelled"),
    (check.chain, (5, 1, 1170), "Wrong break: it was cancelled"),
    (check.chain, (0, 1, 1170), "look for the first error"),
    (check.chain, (3, 3, 1170), "Wrong short send: its result is positive"),
    (check.chain, (3, 1, 1200), "Wrong sum: the short one sent less"),
    (check.chain, (3, 1, 2400), "nor the cancelled ones"),
    (check.chain, (3, 1, 7), "Wrong sum: add the results"),
    (check.chain, (3.5, 1, 1170), "What broke the chain is of type float"),
    (check.calls, (60, 1920), "swapped"),
    (check.calls, (960, 60), "each echo sends and receives"),
    (check.calls, (120, 60), "nothing is batched here"),
    (check.calls, (1920, 960), "submits many"),
    (check.calls, (1920, 120), "sends and receives alike"),
    (check.calls, (1920, 1920), "a call for each operation"),
    (check.calls, (1920, 16), "how many go with one call"),
    (check.calls, (7, 7), "Wrong number by system calls; wrong number by the ring"),
    (check.calls, ("1920", 60), "By system calls is of type str"),
    (check.dearer, (-4_000,), "wrong sign"),
    (check.dearer, (49 / 45,), "the ratio. Subtract"),
    (check.dearer, (49_000,), "Subtract that of system calls"),
    (check.dearer, (45_000,), "Subtract it from io_uring's"),
    (check.dearer, (-500,), "at the greatest depth"),
    (check.dearer, (17_500,), "what depth saves"),
    (check.dearer, (1,), "At depth 1"),
    (check.hold, ({"a", "b", "f"},), "b: they come as the operations finish"),
    (check.hold, ({"a", "c", "f"},), "until the completion"),
    (check.hold, ({"a", "d", "f"},), "ends with EIO"),
    (check.hold, ({"a", "e", "f"},), "kTLS refuses it"),
    (check.hold, ({"a"},), "5 of 6 are judged right.\nf: each is submitted"),
]
ANYTHING = (None, True, -1, 1 << 70, 10**400, 0.123, "", "x", b"", b"x", [], {}, [[]], object(), len, DEPTHS)
CHECKS = {check.chain: 3, check.calls: 2, check.dearer: 1, check.hold: 1}


def ask(of, answers):
    if of is check.hold:
        return of(*answers)
    return of(DEPTHS if of is check.dearer else GIVEN, *answers)


@pytest.mark.parametrize(("of", "answers", "said"), RIGHT)
def test_a_right_answer_is_called_right(of, answers, said):
    verdict = ask(of, answers)
    assert verdict.mark is Mark.RIGHT, verdict
    assert said in repr(verdict)


@pytest.mark.parametrize(("of", "answers", "said"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(of, answers, said):
    verdict = ask(of, answers)
    assert verdict.mark is Mark.WRONG
    assert re.search(said, repr(verdict)), repr(verdict)


@pytest.mark.parametrize(("of", "parts"), CHECKS.items())
def test_what_is_not_answered_is_not_wrong(of, parts):
    assert ask(of, [1] * (parts - 1) + [...]).mark is Mark.OPEN


@pytest.mark.parametrize(("of", "parts"), CHECKS.items())
@pytest.mark.parametrize("answer", ANYTHING, ids=lambda one: type(one).__name__)
def test_no_answer_raises(of, parts, answer):
    assert ask(of, [answer] * parts).mark is Mark.WRONG


@pytest.mark.parametrize(("of", "parts"), [(check.chain, 3), (check.calls, 2), (check.dearer, 1)])
def test_a_check_needs_what_was_given(of, parts):
    for given in (None, pd.DataFrame(), DEPTHS.loc[[4]]):
        with pytest.raises(UsageError):
            of(given, *[1] * parts)


def test_every_chain_that_is_made_can_be_solved():
    for seed in range(50):
        given = check.made(seed)
        results = [result for _, result in given.chain]
        broke = next(at for at, result in enumerate(results) if result < 0)
        short = next(at for at, (size, result) in enumerate(given.chain) if 0 <= result < size)
        assert short < broke
        assert check.chain(given, broke, short, sum(one for one in results if one > 0)).mark is Mark.RIGHT
        assert check.calls(given, 2 * given.operations, given.operations // given.depth).mark is Mark.RIGHT
    assert "EPIPE (Broken pipe)" in check.made(1)._repr_html_()
    assert "multishot recv" in repr(check.claims())
