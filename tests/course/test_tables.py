"""The checks of notebooks 04, 05 and 10: each knows the right answer, and says what is wrong with a wrong one."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from ktlslab.course import kernels, promised, trust
from ktlslab.course.verdicts import Mark
from ktlslab.errors import UsageError
from ktlslab.measure.table import read_table

DATA = Path(__file__).parents[2] / "data"

# Of the oldest, the middle and the newest kernel: how many promises have these verdicts.
VERDICTS = {
    ("kept", "kept", "kept"): 40,
    ("broken", "kept", "kept"): 3,
    ("broken", "broken", "kept"): 1,
    ("not in this kernel", "not in this kernel", "kept"): 9,
    ("kept", "kept", "broken"): 2,
    ("broken", "kept", "broken"): 5,
    ("broken", "broken", "broken"): 17,
    ("kept", "broken", "kept"): 30,
}
BOARD = pd.DataFrame(
    [
        (f"promise {number}", kernel, verdict)
        for number, line in enumerate(line for line, count in VERDICTS.items() for _ in range(count))
        for kernel, verdict in zip(("6.1.0-52", "6.12.1", "7.3.4"), line, strict=True)
    ],
    columns=["promise", "kernel", "verdict"],
)
COST = pd.DataFrame(
    {"6.1": [50.0, 200.0, 210.0], "6.12": [51.0, 215.0, 211.0], "7.3": [54.0, 220.0, 216.0]},
    index=["plain", "kernel", "userspace"],
)
DEPTHS = pd.DataFrame({"syscall": [90.0, 84.0, 79.0], "uring": [94.0, 82.0, 78.0]}, index=[1, 4, 16])
SILICON = trust.made(1)
LOADED, BARE = ((SILICON.other + 16384 / each) / (SILICON.other + 2 * 16384 / each) for each in (1, 32))
CLASSES = SILICON.profile
NS = float((CLASSES["instructions"] * CLASSES["ns_each"]).sum())
RIGHT = [
    (promised.gained, BOARD, 13, "4 were broken"),
    (promised.lost, BOARD, 7, "7 of 107"),
    (promised.program, None, {"b", "d", "e", "f"}, "EKEYEXPIRED"),
    (kernels.growth, COST, 1.1, "1.100"),
    (kernels.of_tls, COST, 16, "16 of 20"),
    (kernels.no_dearer_from, DEPTHS, 4, "From 4 on"),
    (trust.counted, SILICON, (LOADED, BARE), "the same work"),
    (trust.estimated, SILICON, NS, "of the time"),
    (trust.believable, None, ["b", "d"], "to be weighed"),
]
WRONG = [
    (promised.gained, BOARD, 4, "These were broken"),
    (promised.gained, BOARD, 9, "These are new features"),
    (promised.gained, BOARD, 2, "the other way round"),
    (promised.gained, BOARD, 83, "all that the newest kernel keeps"),
    (promised.gained, BOARD, 15, "all on which the two differ"),
    (promised.gained, BOARD, 11, "what was lost is subtracted"),
    (promised.gained, BOARD, 1, "side by side"),
    (promised.lost, BOARD, 24, "whether an older one kept them or not"),
    (promised.lost, BOARD, 17, "These every kernel breaks"),
    (promised.lost, BOARD, 2, "One is enough"),
    (promised.lost, BOARD, 34, "the other way round"),
    (promised.lost, BOARD, 1000, "Broken by the newest"),
    (promised.lost, BOARD, {"x"}, "of type set"),
    (promised.program, None, {"a", "b", "d", "e", "f"}, "a: the kernel opens the record"),
    (promised.program, None, {"b", "d", "e"}, "f: the kernel only names a record's type"),
    (kernels.growth, COST, 1 / 1.1, "upside down"),
    (kernels.growth, COST, 20, "the difference. Divide"),
    (kernels.growth, COST, 10, "in percent"),
    (kernels.growth, COST, 216 / 210, "userspace TLS"),
    (kernels.growth, COST, 220 / 216, "compares record layers"),
    (kernels.growth, COST, 220 / 215, "the one before it"),
    (kernels.growth, COST, 5, "by that on the oldest"),
    (kernels.of_tls, COST, 20, "TCP's part included"),
    (kernels.of_tls, COST, 4, "what plain TCP gained"),
    (kernels.of_tls, COST, 166, "not how that changed"),
    (kernels.of_tls, COST, 24, "These are added"),
    (kernels.of_tls, COST, -16, "wrong sign"),
    (kernels.of_tls, COST, 3, "less what plain TCP gained"),
    (kernels.no_dearer_from, DEPTHS, 1, "% more"),
    (kernels.no_dearer_from, DEPTHS, 16, "neither does it at a smaller depth"),
    (kernels.no_dearer_from, DEPTHS, 2, "2 was not measured; the depths are 1, 4, 16"),
    (kernels.no_dearer_from, DEPTHS.assign(uring=99), 4, "at the greatest depth as well"),
    (trust.counted, SILICON, (BARE, LOADED), "swapped"),
    (trust.counted, SILICON, (0.5, BARE), r"wrong with erms and right without: it leaves out given\.other"),
    (trust.counted, SILICON, (LOADED, 1 / BARE), "right with erms and wrong without: upside down"),
    (trust.counted, SILICON, (1.0, BARE), "as often in both arms"),
    (trust.counted, SILICON, (7, 7), r"wrong with erms and wrong without\."),
    (trust.counted, SILICON, ("x", BARE), "The ratio with erms is of type str"),
    (trust.estimated, SILICON, CLASSES["instructions"].iloc[:-1].sum(), "without weights"),
    (
        trust.estimated,
        SILICON,
        (CLASSES["instructions"] * CLASSES["ns_each"]).iloc[:-1].sum(),
        "system calls are missing",
    ),
    (trust.estimated, SILICON, CLASSES["instructions"].sum() * CLASSES["ns_each"].mean(), "mean of the weights"),
    (trust.estimated, SILICON, (CLASSES["instructions"] / CLASSES["ns_each"]).sum(), "divides by the weights"),
    (trust.estimated, SILICON, NS / 1000, "in microseconds"),
    (trust.estimated, SILICON, 1, "and add"),
    (trust.believable, None, {"b", "c", "d"}, "c: it is the clock's"),
    (trust.believable, None, {"a"}, "2 of 5"),
]
ANYTHING = (None, True, -1, 1 << 70, 10**400, 0.123, "", "x", b"", b"x", [], {}, [[]], (None, 1), object(), len, COST)
CHECKS = {of: given for of, given, _, _ in RIGHT}


def ask(of, given, answer):
    answers = answer if isinstance(answer, tuple) and of is trust.counted else (answer,)
    return of(*answers) if given is None else of(given, *answers)


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
    assert ask(of, CHECKS[of], (..., 1) if of is trust.counted else ...).mark is Mark.OPEN


@pytest.mark.parametrize("of", CHECKS)
@pytest.mark.parametrize("answer", ANYTHING, ids=lambda one: type(one).__name__)
def test_no_answer_raises(of, answer):
    assert ask(of, CHECKS[of], (answer, answer) if of is trust.counted else answer).mark is Mark.WRONG


@pytest.mark.parametrize("of", [of for of, given in CHECKS.items() if given is not None])
def test_a_check_needs_what_was_given(of):
    for given in (None, COST.T if of in {kernels.growth, kernels.of_tls} else pd.DataFrame()):
        with pytest.raises(UsageError):
            ask(of, given, (1, 1)) if given is not None else of(None, *[1] * (1 + (of is trust.counted)))


def test_what_is_given_is_new_each_time():
    assert trust.made(1).profile.equals(CLASSES)
    assert not trust.made(2).profile.equals(CLASSES)
    assert "4 classes" in repr(SILICON)
    assert "system calls" in SILICON._repr_html_()
    assert "reported" in trust.claims()._repr_html_()
    assert "close_notify" in repr(promised.duties())


def test_what_is_cut_from_a_table_is_what_it_holds():
    frame = read_table(DATA / "standard.parquet")
    cost, depths = kernels.cut(frame)
    assert list(cost.columns) == ["6.1", "6.12", "7.3"]
    assert {"plain", "userspace", "kernel"} <= set(cost.index)
    cell = "workload == 'echo' and payload_bytes == 64 and record_layer == 'kernel' and machine == '7.3' and depth == 4"
    some = frame.query(f"{cell} and suite == 'TLS_AES_256_GCM_SHA384' and io_engine == 'uring'")
    assert depths.loc[4, "uring"] == some["latency_p50"].median()
    with pytest.raises(UsageError):
        kernels.cut(frame.drop(columns="machine"))


def test_kernels_are_in_the_order_of_their_age():
    names = ("6.12.101+deb13-amd64", "6.1.0-56-amd64", "7.3.4+deb13-amd64", "6.1.0-9-amd64")
    rows = [("promise", kernel, "kept") for kernel in names]
    wide = promised.by_age(pd.DataFrame(rows, columns=["promise", "kernel", "verdict"]))
    assert list(wide.columns) == [names[3], names[1], names[0], names[2]]


def test_the_release_of_a_debian_kernel_does_not_say_how_old_it_is_but_its_build_does():
    rows = [("promise", kernel, "kept", kernel) for kernel in ("6.1.0-52-amd64", "6.1.176")]
    frame = pd.DataFrame(rows, columns=["promise", "kernel", "verdict", "run_id"])
    frame.attrs["provenance"] = {"6.1.0-52-amd64": {"kernel_build": "#1 SMP Debian 6.1.180-1 (2026-07-01)"}}
    assert list(promised.by_age(frame).columns) == ["6.1.176", "6.1.0-52-amd64"]
