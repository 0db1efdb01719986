"""Notebook 11's checks: each knows the right answer, and says of each wrong one what is wrong with it."""

from __future__ import annotations

import re

import pytest

from ktlslab.course import ways as check
from ktlslab.course.verdicts import Mark
from ktlslab.errors import UsageError

GIVEN = check.made(1)
CARRIES = dict(reversed(GIVEN.carries))  # of the receives the first
RING = [result for name, result in GIVEN.carries if name.startswith("io_uring")]
PAYLOAD = sum(result for result in RING if result > 0) - CARRIES["io_uring RECVMSG, type 22"]
CALLS = CARRIES["sendto"] + CARRIES["recvfrom"]
MORE, LESS = GIVEN.once_now - GIVEN.once_before, GIVEN.byte_before - GIVEN.byte_now
RIGHT = [
    (check.carried, GIVEN, PAYLOAD, "is an errno"),
    (check.pays, GIVEN, MORE / LESS, "paid once"),
    (check.pays, GIVEN, round(MORE / LESS), "paid once"),
    (check.falls_back, None, {"b", "c", "e"}, "All 6"),
]
WRONG = [
    (check.carried, GIVEN, PAYLOAD - 5, "A negative result is an errno"),
    (check.carried, GIVEN, sum(result for result in RING if result > 0), "a session ticket"),
    (check.carried, GIVEN, sum(RING), "neither is payload"),
    (check.carried, GIVEN, PAYLOAD + CALLS, "system calls of their own"),
    (check.carried, GIVEN, CALLS, "what the system calls carried"),
    (check.carried, GIVEN, CALLS + sum(result for result in RING if result > 0), "everything that is positive"),
    (check.carried, GIVEN, CALLS + sum(RING), "Leave out system calls, the errno, and the ticket"),
    (check.carried, GIVEN, PAYLOAD - RING[0], "What was sent is payload as well"),
    (check.carried, GIVEN, len(RING), "how many operations"),
    (check.carried, GIVEN, 1, "Add the results"),
    (check.carried, GIVEN, 1.5, "should be a whole number"),
    (check.pays, GIVEN, MORE / GIVEN.byte_now, "costs \\*less\\*|costs less"),
    (check.pays, GIVEN, MORE / GIVEN.byte_before, "Divide by the difference"),
    (check.pays, GIVEN, GIVEN.once_now / LESS, "only what comes on top"),
    (check.pays, GIVEN, LESS / MORE, "wrong way round"),
    (check.pays, GIVEN, -MORE / LESS, "The sign"),
    (check.pays, GIVEN, 7, "Set both costs equal"),
    (check.falls_back, None, {"a", "b", "c", "e"}, "5 of 6 are judged right.\na: whom one talks to"),
    (check.falls_back, None, {"b", "c"}, "e: the library that did the handshake"),
]
ANYTHING = (None, True, -1, 1 << 70, 0.123, "", "x", b"", b"x", [], {}, [[]], object(), len)
CHECKS = {of: given for of, given, _, _ in RIGHT}


def ask(of, given, answer):
    return of(answer) if given is None else of(given, answer)


@pytest.mark.parametrize(("of", "given", "answer", "said"), RIGHT)
def test_a_right_answer_is_called_right(of, given, answer, said):
    verdict = ask(of, given, answer)
    assert verdict.mark is Mark.RIGHT, verdict
    assert said in repr(verdict)


@pytest.mark.parametrize(("of", "given", "answer", "said"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(of, given, answer, said):
    verdict = ask(of, given, answer)
    assert verdict.mark is Mark.WRONG
    assert re.search(said, repr(verdict)), repr(verdict)


@pytest.mark.parametrize("of", CHECKS)
def test_what_is_not_answered_is_not_wrong(of):
    assert ask(of, CHECKS[of], ...).mark is Mark.OPEN


@pytest.mark.parametrize("of", CHECKS)
@pytest.mark.parametrize("answer", ANYTHING, ids=lambda one: type(one).__name__)
def test_no_answer_raises(of, answer):
    assert ask(of, CHECKS[of], answer).mark is Mark.WRONG


@pytest.mark.parametrize("of", [check.carried, check.pays])
def test_a_check_needs_what_was_given(of):
    with pytest.raises(UsageError, match=r"ways\.made"):
        of(None, 1)


def test_every_exercise_that_is_made_can_be_solved_and_its_mistakes_differ_from_its_answer():
    for seed in range(200):
        given = check.made(seed)
        assert given.byte_before > given.byte_now
        assert given.once_now > given.once_before
        answer = (given.once_now - given.once_before) / (given.byte_before - given.byte_now)
        assert check.pays(given, answer).mark is Mark.RIGHT
        assert check.pays(given, answer * 1.02).mark is Mark.WRONG
    assert check.made() != check.made()
    shown = GIVEN._repr_html_()
    assert str(CARRIES["sendto"]) in shown
    assert f"{GIVEN.once_now:,}" in shown
    assert "expired" in repr(check.events())
