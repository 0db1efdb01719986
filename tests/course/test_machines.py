"""Notebook 00's checks: each knows the right answer, and says of each wrong one what is wrong with it."""

from __future__ import annotations

import re

import pytest

from ktlslab.course import machines as check
from ktlslab.course.verdicts import Mark
from ktlslab.errors import UsageError

GIVEN = check.Given(
    refusals=(
        ("setsockopt(TLS_TX)", "ENOENT"),
        ("setsockopt(TCP_ULP, 'tls')", "ENOENT"),
        ("setsockopt(TCP_ULP, 'tls')", "EEXIST"),
        ("setsockopt(TLS_TX), once more", "EBUSY"),
        ("setsockopt(TCP_ULP, 'tls')", "ENOTCONN"),
    ),
    answers={
        **{f"both {number}": ("TX", "RX") for number in range(3)},
        **{f"sends {number}": ("TX",) for number in range(4)},
        "receives": ("RX",),
        **{f"neither {number}": () for number in range(12)},
    },
)
PLACES = ["here", "uml", "emulated", "other", "uml"]
LETTERS = list("badec")
RIGHT = [
    (check.places, PLACES, "measure time on the machine"),
    (check.refusals, LETTERS, "look at the call as well"),
    (check.refusals, tuple(LETTERS), "look at the call as well"),
    (check.both, 3, "kernel-tx or kernel-rx"),
]
WRONG = [
    (check.places, ["uml", *PLACES[1:]], "4 of 5 are right.\n0, read the recorded plots.*no kernel of their own"),
    (check.places, ["here", "emulated", *PLACES[2:]], "up in seconds; nothing is measured"),
    (check.places, [*PLACES[:2], "uml", *PLACES[3:]], "of these, only an emulated CPU counts"),
    (check.places, [*PLACES[:3], "emulated", "uml"], "no guest has that clock"),
    (check.places, [*PLACES[:4], "here"], "uml-6.12 is such a kernel"),
    (check.places, ["qemu"] * 5, "There is no 'qemu'; there are here, uml"),
    (check.places, ["here"], "a list of 5"),
    (check.places, "here", "a list of 5"),
    (check.refusals, list("aadec"), r"4 of 5 are right.\nrefusals\[0\], setsockopt\(TLS_TX\): ENOENT does not mean"),
    (check.refusals, list("bbdec"), r"refusals\[1\].*does not mean that the module is there, but"),
    (check.refusals, list("xadec"), "There is no 'x'"),
    (check.refusals, "badec", "a list of 5"),
    (check.both, 8, "in at least one direction"),
    (check.both, 7, "that it can send with"),
    (check.both, 4, "that it can receive with"),
    (check.both, 11, "These are directions"),
    (check.both, 20, "refused ones too"),
    (check.both, 12, "that it refuses"),
    (check.both, 99, "with TX and RX"),
    (check.both, "3", "of type str"),
]
ANYTHING = (None, True, -1, 1 << 70, 0.123, "", "x", b"", b"x", [], [None] * 5, [[]] * 5, {}, object(), len)
CHECKS = (check.places, check.refusals, check.both)


def ask(of, answer):
    return of(answer) if of is check.places else of(GIVEN, answer)


@pytest.mark.parametrize(("of", "answer", "said"), RIGHT)
def test_a_right_answer_is_called_right(of, answer, said):
    verdict = ask(of, answer)
    assert verdict.mark is Mark.RIGHT, verdict
    assert said in repr(verdict)


@pytest.mark.parametrize(("of", "answer", "said"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(of, answer, said):
    verdict = ask(of, answer)
    assert verdict.mark is Mark.WRONG
    assert re.search(said, repr(verdict)), repr(verdict)


@pytest.mark.parametrize("of", CHECKS)
def test_what_is_not_answered_is_not_wrong(of):
    assert ask(of, ...).mark is Mark.OPEN
    if of is not check.both:
        assert ask(of, [..., *"abcd"]).mark is Mark.OPEN


@pytest.mark.parametrize("of", CHECKS)
@pytest.mark.parametrize("answer", ANYTHING, ids=lambda one: type(one).__name__)
def test_no_answer_raises(of, answer):
    assert ask(of, answer).mark is Mark.WRONG


@pytest.mark.parametrize("of", [check.refusals, check.both])
def test_a_check_needs_what_was_given(of):
    with pytest.raises(UsageError, match=r"machines\.made"):
        of(None, 1)


def test_every_kernel_that_is_made_has_another_count_for_each_mistake():
    for seed in range(40):
        given = check.made(seed)
        ways = list(given.answers.values())
        assert len(ways) == 8
        assert check.both(given, sum(len(one) == 2 for one in ways)).mark is Mark.RIGHT
        assert check.both(given, sum(bool(one) for one in ways)).mark is Mark.WRONG
    assert len({check.made(seed).refusals for seed in range(40)}) > 20
    assert "given.answers" in GIVEN._repr_html_()
    assert "5 refusals" in repr(GIVEN)
    assert "count what a record costs" in repr(check.wishes())
    assert "but not this cipher" in repr(check.meanings())
