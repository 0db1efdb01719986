"""Notebook 09's checks: each knows the right answer, and says of each wrong one what is wrong with it."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from ktlslab.course import inside as check
from ktlslab.course.verdicts import Mark
from ktlslab.errors import UsageError

ROWS = [  # function, class, caller, level, own, total
    ("__send", "libc", "", 0, 10, 1000),
    ("tls_sw_sendmsg", "tls", "__send", 1, 90, 990),
    ("bpf_exec_tx_verdict", "tls", "tls_sw_sendmsg", 2, 50, 900),
    ("gcm_encrypt", "AEAD AES-256-GCM", "bpf_exec_tx_verdict", 3, 100, 600),
    ("aes_loop", "AEAD AES-256-GCM", "gcm_encrypt", 4, 500, 500),
    ("tcp_write_xmit", "TCP/IP", "bpf_exec_tx_verdict", 3, 250, 250),
]
TREE = pd.DataFrame(ROWS, columns=["function", "class", "caller", "level", "instructions", "total"])
RIGHT = [
    (check.own_and_total, (90, 990), "90 of 990"),
    (check.cipher_share, (0.6,), r"0\.600"),
    (check.caller, ("bpf_exec_tx_verdict",), "calls gcm_encrypt"),
    (check.shown, ({"b", "c"},), "comes back in a soft interrupt"),
]
WRONG = [
    (check.own_and_total, (990, 90), "swapped"),
    (check.own_and_total, (900, 990), "what the others executed for it"),
    (check.own_and_total, (90, 900), "contains its own as well"),
    (check.own_and_total, (90, 1000), "that of the whole way"),
    (check.own_and_total, (1, 2), "Wrong own; wrong total"),
    (check.own_and_total, ("90", 990), "The own is of type str"),
    (check.cipher_share, (60,), "in percent"),
    (check.cipher_share, (600,), "Divide it by all"),
    (check.cipher_share, (0.4,), "what is not the cipher"),
    (check.cipher_share, (1 / 0.6,), "upside down"),
    (check.cipher_share, (1.1,), "adds totals"),
    (check.cipher_share, (600 / 4240,), "sum of totals"),
    (check.cipher_share, (0.5,), "one function's"),
    (check.cipher_share, (600 / 990,), "begins above it"),
    (check.cipher_share, (0.123,), "of the AEAD rows"),
    (check.caller, ("gcm_encrypt",), "part of the cipher"),
    (check.caller, ("tls_sw_sendmsg",), "farther down"),
    (check.caller, ("tcp_write_xmit",), "does not call the cipher"),
    (check.caller, ("nobody",), "No function in this tree"),
    (check.caller, (7,), "Give a name in quotes"),
    (check.shown, ({"a", "b", "c"},), "a: the cipher reads the program's pages"),
    (check.shown, ({"b", "c", "d"},), "d: into pages of its own first"),
    (check.shown, ({"b"},), "4 of 5 are judged right.\nc: on loopback"),
    (check.shown, ({"b", "c", "e"},), "when a segment arrives"),
]
ANYTHING = (None, True, -1, 1 << 70, 10**400, 0.123, "", "x", b"", b"x", [], {}, [[]], object(), len, TREE)
CHECKS = {check.own_and_total: 2, check.cipher_share: 1, check.caller: 1, check.shown: 1}


def ask(of, answers):
    return of(*answers) if of is check.shown else of(TREE, *answers)


@pytest.mark.parametrize(("of", "answers", "said"), RIGHT)
def test_a_right_answer_is_called_right(of, answers, said):
    verdict = ask(of, answers)
    assert verdict.mark is Mark.RIGHT, verdict
    assert re.search(said, repr(verdict))


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


@pytest.mark.parametrize(("of", "parts"), [(of, parts) for of, parts in CHECKS.items() if of is not check.shown])
def test_a_check_needs_the_tree(of, parts):
    for tree in (None, pd.DataFrame(), TREE[TREE["function"] != check.SENDING]):
        with pytest.raises(UsageError):
            of(tree, *[1] * parts)


def test_the_claims_are_shown_without_the_answers():
    assert "copies the payload before it encrypts" in repr(check.claims())
    assert "zerocopy" not in repr(check.claims())
