"""Notebook 08's checks: each knows the right answer, and says of each wrong one what is wrong with it."""

from __future__ import annotations

import re

import pytest

from ktlslab.course import race as check
from ktlslab.course.verdicts import Mark
from ktlslab.errors import UsageError
from ktlslab.tls.protect import open_record

GIVEN = next(given for given in map(check.made, range(99)) if (given.data, given.library_read) == (5, 6))


def opens(number):
    try:
        return bool(open_record(check.SUITE, GIVEN.key, GIVEN.write_iv, number, GIVEN.lost))
    except ValueError:
        return False


NUMBER = next(filter(opens, range(check.MAX_NUMBER)))
RIGHT = [
    (check.rec_seq, GIVEN, 6, "has number 6"),
    (check.lost_number, GIVEN, NUMBER, "never mistaken"),
    (check.harmless, None, {"a", "d"}, "the other half"),
]
WRONG = [
    (check.rec_seq, GIVEN, 4, "The tickets count as well"),
    (check.rec_seq, GIVEN, 5, "the next one's number"),
    (check.rec_seq, GIVEN, 7, "has number 0, so"),
    (check.rec_seq, GIVEN, 6 + GIVEN.handshake, "numbers of their own"),
    (check.rec_seq, GIVEN, 0, "where the key began"),
    (check.rec_seq, GIVEN, 1, "how many wait"),
    (check.rec_seq, GIVEN, 1000, "Count the records"),
    (check.rec_seq, GIVEN, b"6", "a number is asked for"),
    (check.lost_number, GIVEN, NUMBER + 1, "One too many"),
    (check.lost_number, GIVEN, NUMBER - 1, "One too few"),
    (check.lost_number, GIVEN, 1000, "one of 0 to 39"),
    (check.harmless, None, {"a", "b", "d"}, "b: the number is used. The kernel would use it again"),
    (check.harmless, None, {"a"}, "4 of 5 are judged right.\nd: it waits"),
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


@pytest.mark.parametrize("of", [check.rec_seq, check.lost_number, lambda given, _: check.ledger(given)])
def test_a_check_needs_what_was_given(of):
    with pytest.raises(UsageError, match=r"race\.made"):
        of(None, 1)


def test_every_session_that_is_made_can_be_solved():
    for seed in range(50):
        given = check.made(seed)
        waits = given.tickets + given.data - given.library_read
        assert waits >= 1
        assert f"{waits}, waits in the socket" in repr(check.ledger(given))
        assert check.rec_seq(given, given.library_read).mark is Mark.RIGHT
    assert check.made() != check.made()
    assert GIVEN.key.hex() not in repr(GIVEN)
    assert str(NUMBER) not in re.sub(r"<[^>]*>", "", check.ledger(GIVEN).html).split()
    assert GIVEN.key[:8].hex(" ") in GIVEN._repr_html_()
    assert "reads five bytes ahead" in repr(check.events())
