"""Notebook 03's checks: each knows the right answer, and says of each wrong one what is wrong with it."""

from __future__ import annotations

import re

import pytest

from ktlslab.course import after as check
from ktlslab.course.verdicts import Mark
from ktlslab.errors import UsageError
from ktlslab.tls.keyschedule import hkdf_expand_label, next_traffic_secret, traffic_key

GIVEN = check.made(b"a seed")
SECRET, SUITE = GIVEN.secret, check.SUITE
NEXT = next_traffic_secret(SECRET, SUITE)
KEY = traffic_key(NEXT, SUITE)[0]
RIGHT = [
    (check.numbers, (2, 5, 0), "still under the old key"),
    (check.next_key, (KEY,), "Nobody gets back"),
    (check.meaning, (b"one two three", 1, True), "Only type 23"),
    (check.clean, ({"a", "c"},), "close_notify came"),
    (check.clean, (["c", "a"],), "close_notify came"),
]
WRONG = [
    (check.numbers, (0, 3, 0), "the tickets were made with the same key.*\n.*the tickets count as well"),
    (check.numbers, (1, 5, 0), r"first record is not number 1: there were two tickets\.$"),
    (check.numbers, (3, 6, 7), "count from 0.*\n.*count from 0"),
    (check.numbers, (2, 4, 0), "the last data record's"),
    (check.numbers, (2, 0, 1), "the last record under the old key.*\n.*the KeyUpdate is not under the new key"),
    (check.numbers, (2, 5, 6), "a new key begins at 0"),
    (check.numbers, (2, 5, 99), r"not number 99\."),
    (check.numbers, ("2", 5, 0), "The kernel's first record's number is of type str"),
    (check.next_key, (traffic_key(SECRET, SUITE)[0],), "the key before the KeyUpdate"),
    (check.next_key, (SECRET[:16],), "the secret's first bytes"),
    (check.next_key, (NEXT,), "the next secret, which is right so far"),
    (check.next_key, (NEXT[:16],), "the next secret's first bytes"),
    (check.next_key, (hkdf_expand_label(SECRET, "traffic upd", b"", 16, "sha256"),), "as long as the digest"),
    (
        check.next_key,
        (hkdf_expand_label(traffic_key(SECRET, SUITE)[0], "traffic upd", b"", 16, "sha256"),),
        "not from the",
    ),
    (check.next_key, (traffic_key(next_traffic_secret(NEXT, SUITE), SUITE)[0],), "after two KeyUpdates"),
    (check.next_key, (traffic_key(NEXT, SUITE)[1],), "has 12 bytes and not 16"),
    (check.next_key, (bytes(16),), "not the next key"),
    (check.meaning, (b"".join(data for _, data in GIVEN.stream), 1, True), "only those of type 23"),
    (check.meaning, (b"one ", 1, True), "it goes on"),
    (check.meaning, ("one two three", 1, True), "this is text; what records hold is bytes"),
    (check.meaning, (b"", 1, True), "join what the records of type 23 hold"),
    (check.meaning, (b"one two three", 2, True), "a ticket is a handshake message too"),
    (check.meaning, (b"one two three", 0, True), "one record is a KeyUpdate"),
    (check.meaning, (b"one two three", 1, False), "The end is another"),
    (check.clean, ({"a", "b", "c"},), "3 of 4 are judged right.\nb: anybody on the way can send a FIN"),
    (check.clean, ({"a", "c", "d"},), "d: an error alert"),
    (check.clean, ({"a"},), "c: close_notify came before the reset"),
    (check.clean, (set(),), "2 of 4"),
    (check.clean, ({"e"},), "There is no 'e'; there are a, b, c, d"),
    (check.clean, ("a",), "Give names in braces: {'a', 'b'}"),
]
ANYTHING = (None, -1, 1 << 70, 0.5, "", "x", b"", b"x", [], {}, [[]], object(), len)
CHECKS = [(check.numbers, 3), (check.next_key, 1), (check.meaning, 3), (check.clean, 1)]


@pytest.mark.parametrize(("of", "answer", "said"), RIGHT)
def test_a_right_answer_is_called_right(of, answer, said):
    verdict = of(GIVEN, *answer)
    assert verdict.mark is Mark.RIGHT
    assert said in repr(verdict)


@pytest.mark.parametrize(("of", "answer", "said"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(of, answer, said):
    verdict = of(GIVEN, *answer)
    assert verdict.mark is Mark.WRONG
    assert re.search(said, repr(verdict)), repr(verdict)


@pytest.mark.parametrize(("of", "parts"), CHECKS)
def test_what_is_not_answered_is_not_wrong(of, parts):
    assert of(GIVEN, *[1] * (parts - 1), ...).mark is Mark.OPEN


@pytest.mark.parametrize(("of", "parts"), CHECKS)
@pytest.mark.parametrize("answer", ANYTHING, ids=repr)
def test_no_answer_raises(of, parts, answer):
    assert of(GIVEN, *[answer] * parts).mark is Mark.WRONG


@pytest.mark.parametrize(("of", "parts"), CHECKS)
def test_a_check_needs_what_was_given(of, parts):
    with pytest.raises(UsageError, match=r"after\.made"):
        of(None, *[b"x"] * parts)


def test_what_is_given_is_new_each_time_and_shown_in_full():
    assert check.made() != check.made()
    assert check.made(b"a seed") == GIVEN
    assert SECRET.hex() not in repr(GIVEN)
    assert SECRET[:8].hex(" ") in GIVEN._repr_html_()
    assert "data, FIN" in repr(check.ends())
