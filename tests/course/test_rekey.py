"""Notebook 06's checks: each knows the right answer, and says of each wrong one what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ktlslab.course import rekey as check
from ktlslab.course.race import opens
from ktlslab.course.verdicts import Mark
from ktlslab.errors import UsageError
from ktlslab.tls.keyschedule import next_traffic_secret, traffic_key

C, S, D, K = "client", "server", check.DATA, check.UPDATE
SCRIPT = ((C, D), (S, D), (C, K), (S, D), (C, D), (S, K), (S, D), (C, D))
GIVEN = replace(check.made(1), script=SCRIPT)
SECRETS = [GIVEN.secret]
while len(SECRETS) < check.MAX_CHANGES:
    SECRETS.append(next_traffic_secret(SECRETS[-1], check.SUITE))
FITS = [
    (changes, number)
    for changes, secret in enumerate(SECRETS)
    for number in range(check.MAX_NUMBER)
    if opens(check.SUITE, *traffic_key(secret, check.SUITE), number, GIVEN.record)
]
(CHANGES, NUMBER), *NO_MORE = FITS
RIGHT = [
    (check.numbers, ([0, 0, 1, 1, 0, 2, 0, 1],), "begins again at 0"),
    (check.numbers, ((0, 0, 1, 1, 0, 2, 0, 1),), "begins again at 0"),
    (check.lost, (CHANGES, NUMBER), "KeyUpdates, then record"),
    (check.order, ("faecbd",), "nothing is lost"),
    (check.true, ({"b", "d"},), "4.6.3"),
]
WRONG = [
    (check.numbers, ([0, 0, 1, 1, 2, 2, 3, 3],), "No count begins again"),
    (check.numbers, ([0, 0, 0, 1, 1, 0, 1, 2],), "the last record under the old key"),
    (check.numbers, ([0, 0, 1, 0, 0, 1, 0, 0],), "changes both directions"),
    (check.numbers, ([0, 0, 1, 0, 2, 1, 2, 0],), "whoever receives it"),
    (check.numbers, ([1, 1, 2, 2, 1, 3, 1, 2],), "has number 0"),
    (check.numbers, ([0, 1, 2, 3, 4, 5, 6, 7],), "counts by itself"),
    (check.numbers, ([0, 0, 1, 1, 7, 2, 0, 1],), r"script\[4\], data of the client: it is not number 7"),
    (check.numbers, ([0, 1],), "a list of 8 numbers"),
    (check.numbers, ("00110201",), "a list of 8 numbers"),
    (check.numbers, ([0, 0, 1, 1, "0", 2, 0, 1],), r"script\[4\] is of type str"),
    (check.lost, (CHANGES - 1, NUMBER), "wrong number of KeyUpdates, right record's number"),
    (check.lost, (CHANGES, NUMBER + 1), "right number of KeyUpdates, wrong record's number"),
    (check.lost, (99, 99), "wrong number of KeyUpdates, wrong record's number"),
    (check.lost, ("2", 1), "of type str"),
    (check.order, ("faecdb",), "b comes before d: no record of the next key"),
    (check.order, ("aefcbd",), "f comes before a: what came before"),
    (check.order, ("feacbd",), "a comes before e"),
    (check.order, ("facebd",), "e comes before c: the kernel stops"),
    (check.order, ("faebcd",), "c comes before b"),
    (check.order, ("abc",), "six letters, each once"),
    (check.true, ({"a", "b", "d"},), "a: only those of whoever sends it"),
    (check.true, ({"b", "c", "d"},), "go on for ever"),
    (check.true, ({"b"},), "4 of 5 are judged right.\nd: the peer changes"),
    (check.true, ({"b", "d", "e"},), "never had the secret"),
]
ANYTHING = (None, True, -1, 1 << 70, 0.123, "", "x", b"", b"x", [], [None] * 8, {}, [[]], object(), len)
CHECKS = {check.numbers: 1, check.lost: 2, check.order: 1, check.true: 1}


def ask(of, answers):
    return of(*answers) if of in {check.order, check.true} else of(GIVEN, *answers)


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


def test_numbers_that_are_swapped_are_told_so():
    given = next(one for one in map(check.made, range(99)) if ask_lost(one)[0] != ask_lost(one)[1])
    changes, number = ask_lost(given)
    assert "swapped" in repr(check.lost(given, number, changes))


def ask_lost(given):
    pairs = ((changes, number) for changes in range(check.MAX_CHANGES) for number in range(check.MAX_NUMBER))
    return next(pair for pair in pairs if check.lost(given, *pair).mark is Mark.RIGHT)


@pytest.mark.parametrize(("of", "parts"), CHECKS.items())
def test_what_is_not_answered_is_not_wrong(of, parts):
    assert ask(of, [1] * (parts - 1) + [...]).mark is Mark.OPEN
    assert check.numbers(GIVEN, [0] * 7 + [...]).mark is Mark.OPEN


@pytest.mark.parametrize(("of", "parts"), CHECKS.items())
@pytest.mark.parametrize("answer", ANYTHING, ids=lambda one: type(one).__name__)
def test_no_answer_raises(of, parts, answer):
    assert ask(of, [answer] * parts).mark is Mark.WRONG


@pytest.mark.parametrize(("of", "parts"), [(check.numbers, 1), (check.lost, 2)])
def test_a_check_needs_what_was_given(of, parts):
    with pytest.raises(UsageError, match=r"rekey\.made"):
        of(None, *[1] * parts)


def test_every_session_that_is_made_can_be_solved():
    assert not NO_MORE
    for seed in range(30):
        given = check.made(seed)
        following, found = dict.fromkeys((C, S), 0), []
        for who, what in given.script:
            found.append(following[who])
            following[who] = 0 if what == K else following[who] + 1
        assert check.numbers(given, found).mark is Mark.RIGHT
    assert check.made() != check.made()
    assert GIVEN.secret.hex() not in repr(GIVEN)
    assert GIVEN.secret[:8].hex(" ") in GIVEN._repr_html_()
    assert "recv says EIO" in repr(check.steps())
    assert "derives the next key" in repr(check.claims())
