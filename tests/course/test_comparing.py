"""Notebook 02's checks: each knows the right answer, and says of each wrong one what is wrong with it."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from ktlslab.course import comparing as check
from ktlslab.course.verdicts import Mark
from ktlslab.errors import UsageError

GIVEN = check.made(1)
WIDE = GIVEN.frame.pivot_table("latency", "block", ["record_layer", "io_engine"])
WITHIN = {engine: WIDE["kernel", engine] / WIDE["userspace", engine] for engine in ("syscall", "uring")}
CALLS, RING = (ratios.prod() ** (1 / ratios.count()) for ratios in WITHIN.values())
MEANS = WIDE.mean()
BOTH = (WIDE["kernel", "uring"] / WIDE["userspace", "syscall"]).prod() ** 0.2
FOUND = pd.DataFrame(
    [("kTLS", "latency_p50", verdict, ratio) for verdict, ratio in (("more", 1.2),) * 3 + (("less", 0.8),) * 4]
    + [("kTLS", "latency_p50", "none", 1.001)] * 6
    + [("kTLS", "client_cpu", "more", 1.2)] * 17
    + [("io_uring", "latency_p50", "more", 1.2)] * 29,
    columns=["effect", "quantity", "verdict", "ratio"],
)
RIGHT = [
    (check.ratio, CALLS, "What a block's arms share"),
    (check.interaction, RING / CALLS, "saves more than with system calls"),
    (check.verdicts, ["less", "none", "none", "more"], "excludes 1"),
    (check.shown, {"a", "c", "e"}, "counted, so shown"),
    (check.dearer, 3, "3 of 13 cells"),
    (check.dearer, pd.Series([1, 2]).sum(), "3 of 13 cells"),  # a number of numpy's
]
WRONG = [
    (check.ratio, 1 / CALLS, "upside down"),
    (check.ratio, 100 * (CALLS - 1), "difference in percent"),
    (check.ratio, 1 - CALLS, "the share that is saved"),
    (check.ratio, RING, "wrong I/O engine"),
    (check.ratio, BOTH, "Two things change at once"),
    (check.ratio, 7, "This is not the ratio"),
    (check.ratio, MEANS["kernel", "syscall"] / MEANS["userspace", "syscall"], "divide within each block"),
    (check.ratio, WITHIN["syscall"].prod() ** 0.2, "there are four of them"),
    (check.ratio, "0.8", "of type str"),
    (check.ratio, float("nan"), "of type float"),
    (check.interaction, CALLS / RING, "upside down"),
    (check.interaction, RING - CALLS, "subtracted"),
    (check.interaction, RING, "at io_uring alone"),
    (check.interaction, CALLS, "at system calls alone"),
    (check.interaction, RING * CALLS, "multiplied"),
    (check.interaction, 7, "This is not the interaction"),
    (check.verdicts, ["less", "less", "none", "more"], "3 of 4 are right. `b` is none: the interval contains 1"),
    (check.verdicts, ["less", "none", "less", "more"], "two equal arms differ by as much"),
    (check.verdicts, ["fewer", "none", "none", "more"], "'fewer' is no verdict"),
    (check.verdicts, ["less"], "a list of 4 words"),
    (check.verdicts, "less", "a list of 4 words"),
    (check.shown, {"a", "b", "c", "e"}, "b: an instruction is not a nanosecond"),
    (check.shown, {"a", "c", "d", "e"}, "d: the emulated CPU has no caches"),
    (check.shown, {"a"}, "3 of 5 are judged right"),
    (check.dearer, 9, "a ratio above 1"),
    (check.dearer, 4, "the kernel is cheaper"),
    (check.dearer, 7, "cheaper ones included"),
    (check.dearer, 20, "counts CPU and throughput"),
    (check.dearer, 32, "counts other effects"),
    (check.dearer, 13, "all cells of kernel TLS"),
    (check.dearer, 49, "all effects and all quantities"),
    (check.dearer, 1000, "Choose effect, quantity and verdict"),
]
ANYTHING = (None, True, -1, 1 << 70, 10**400, 0.5, "", "x", b"", b"x", [], {}, [[]], object(), len, FOUND)
CHECKS = (check.ratio, check.interaction, check.verdicts, check.shown, check.dearer)


def given_to(of):
    return FOUND if of is check.dearer else GIVEN


@pytest.mark.parametrize(("of", "answer", "said"), RIGHT)
def test_a_right_answer_is_called_right(of, answer, said):
    verdict = of(given_to(of), answer)
    assert verdict.mark is Mark.RIGHT, verdict
    assert said in repr(verdict)


@pytest.mark.parametrize(("of", "answer", "said"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(of, answer, said):
    verdict = of(given_to(of), answer)
    assert verdict.mark is Mark.WRONG
    assert re.search(said, repr(verdict)), repr(verdict)


@pytest.mark.parametrize("of", CHECKS)
def test_what_is_not_answered_is_not_wrong(of):
    assert of(given_to(of), ...).mark is Mark.OPEN


@pytest.mark.parametrize("of", CHECKS)
@pytest.mark.parametrize("answer", ANYTHING, ids=lambda one: type(one).__name__)
def test_no_answer_raises(of, answer):
    assert of(given_to(of), answer).mark is Mark.WRONG


@pytest.mark.parametrize("of", CHECKS)
def test_a_check_needs_what_was_given(of):
    with pytest.raises(UsageError):
        of(None, 1)


def test_drift_is_shared_by_a_block_and_cancels():
    assert WITHIN["syscall"].std() < 0.004
    assert WITHIN["syscall"].isna().tolist() == [False] * 4 + [True]
    assert WITHIN["uring"].notna().all()
    assert WIDE["userspace", "syscall"].std() > 5_000
    assert check.made(1).frame.equals(GIVEN.frame)
    assert not check.made(2).frame.equals(GIVEN.frame)
    assert "19 samples of 5 blocks" in repr(GIVEN)
    assert GIVEN._repr_html_().count("did not run") == 1
    assert "kernel<br>uring" in GIVEN._repr_html_()
    assert "io_uring makes fewer" in repr(check.claims())
