"""Notebook 07's exercises: a chain that broke, system calls at a depth, what one operation costs more, what holds.

    made()                                a chain of linked sends with its results, and a load; made up
    chain(given, broke, short, sent)      which send broke the chain, which was short, how much was sent
    calls(given, by_calls, by_ring)       system calls for the load, by system calls and by a ring
    dearer(depths, answer)                what io_uring costs more with one operation in flight
    claims()                              six claims about io_uring and kTLS
    hold(answer)                          which of them hold

`depths` is `ktlslab.show.rings.depths(frame)`.
"""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.course.verdicts import (
    Verdict,
    figure,
    judged,
    listed,
    near,
    not_figure,
    not_number,
    right,
    sentence,
    unanswered,
    wrong,
)
from ktlslab.errors import UsageError, errno_name
from ktlslab.show.html import table

if TYPE_CHECKING:
    import pandas as pd

    from ktlslab.show.html import Picture

_CLAIMS = {
    "a": (
        "a linked operation begins only when the one before it has succeeded",
        True,
        "so keys that are refused never let data out in the clear.",
    ),
    "b": (
        "completions come in the order of submission",
        False,
        "they come as the operations finish; `user_data` says whose.",
    ),
    "c": (
        "a buffer may be used again as soon as its operation is submitted",
        False,
        "it is the kernel's until the completion (io_uring_enter(2)).",
    ),
    "d": (
        "on kTLS a multishot recv, without room for a type, leaves tickets out and goes on",
        False,
        "it ends with EIO at the first; recvmsg names each record's type.",
    ),
    "e": ("a zero-copy send saves a copy on kTLS", False, "kTLS refuses it; the cipher reads and writes anyway."),
    "f": (
        "with one operation in flight a ring makes about as many system calls as send and recv",
        True,
        "each is submitted and waited for by itself.",
    ),
}


@dataclass(frozen=True, slots=True)
class Given:
    """`chain`: linked sends in their order, each with its bytes and its result. `operations` echoes, `depth` each."""

    chain: tuple[tuple[int, int], ...]
    operations: int
    depth: int

    def _repr_html_(self) -> str:
        rows = [
            (f"chain[{at}]", f"send of {size} bytes", str(result), errno_name(-result) if result < 0 else "")
            for at, (size, result) in enumerate(self.chain)
        ]
        shown = table(("", "linked to the next", "result", "which is"), rows, numbers=(2,))
        load = f"given.operations is {self.operations:,}, given.depth is {self.depth}."
        return f"<div>given.chain:{shown}{load}</div>"


def made(seed: int | None = None) -> Given:
    """Return a new chain and load, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - figures, no secrets
    size = chance.randrange(3, 9) * 100
    whole, after = chance.randrange(1, 3), chance.randrange(1, 3)
    chain = [(size, size)] * whole + [(size, size - chance.randrange(20, 90))] + [(size, size)] * after
    chain += [(size, -errno.EPIPE)] + [(size, -errno.ECANCELED)] * chance.randrange(1, 3)
    depth = chance.choice((8, 16, 32))
    return Given(tuple(chain), depth * chance.randrange(20, 60), depth)


def chain(given: Given, broke: object, short: object, sent: object) -> Verdict:
    """Check which send broke the chain, which was short without breaking it, and how many bytes were sent."""
    rows = _given(given).chain
    verdict = unanswered(broke, short, sent)
    for answer, name in ((broke, "What broke the chain"), (short, "The short send"), (sent, "What was sent")):
        verdict = verdict or not_number(answer, name)
    if verdict:
        return verdict
    results = [result for _, result in rows]
    wanted_broke = next(at for at, result in enumerate(results) if result < 0)
    wanted_short = next(at for at, (size, result) in enumerate(rows) if 0 <= result < size)
    wanted_sent = sum(result for result in results if result > 0)
    faults = []
    if broke != wanted_broke:
        cancelled = isinstance(broke, int) and 0 <= broke < len(rows) and results[broke] == -errno.ECANCELED
        why = {wanted_short: "a short send is a success to io_uring, so the chain went on", wanted_broke + 1: ""}
        later = "it was cancelled, so one before it broke the chain" if cancelled else "look for the first error"
        faults.append(f"wrong break: {why.get(broke, '') or later}")  # type: ignore[call-overload]
    if short != wanted_short:
        faults.append("wrong short send: its result is positive, and less than its bytes")
    if sent != wanted_sent:
        full = sum(size for size, result in rows if result > 0)
        everything = sum(size for size, _ in rows)
        known = {full: "the short one sent less", everything: "neither the error nor the cancelled ones sent anything"}
        faults.append(f"wrong sum: {known.get(sent, 'add the results that are positive')}")  # type: ignore[call-overload]
    if faults:
        return wrong(sentence(*faults))
    missing = rows[wanted_short][0] - rows[wanted_short][1]
    return right(
        f"{wanted_sent} bytes, with a hole of {missing} in the middle of the stream: behind a short send the next one "
        "went on. MSG_WAITALL would prevent that, but kTLS refuses it; linked writes break where they are short."
    )


def calls(given: Given, by_calls: object, by_ring: object) -> Verdict:
    """Check the system calls for the echoes: a send and a recv for each, or one io_uring_enter for `depth` of them."""
    load = _given(given)
    verdict = unanswered(by_calls, by_ring) or not_number(by_calls, "By system calls")
    if verdict := verdict or not_number(by_ring, "By the ring"):
        return verdict
    told, wanted = (by_calls, by_ring), (2 * load.operations, load.operations // load.depth)
    if told == wanted:
        return right(f"{wanted[0] // wanted[1]} to 1. What that is worth is what a system call costs on your CPU.")
    if told == wanted[::-1]:
        return wrong("These are swapped.")
    why: tuple[dict[object, str], ...] = (
        {load.operations: "each echo sends and receives", 2 * load.operations // load.depth: "nothing is batched here"},
        {
            load.operations: "one system call submits many operations",
            2 * load.operations // load.depth: "one call submits sends and receives alike, and waits for them",
            2 * load.operations: "this would be a call for each operation",
            load.depth: "this is how many go with one call, not how many calls there are",
        },
    )
    faults = [
        f"wrong {name}{f': {known[answer]}' if answer in known else ''}"
        for name, answer, so, known in zip(
            ("number by system calls", "number by the ring"), told, wanted, why, strict=True
        )
        if answer != so
    ]
    return wrong(sentence(*faults))


def dearer(depths: pd.DataFrame, answer: object) -> Verdict:
    """Check what io_uring adds to one operation where only one is in flight."""
    rows = _checks.frame("checking an answer", "depths", depths, ["syscall", "uring"])
    if 1 not in rows.index or len(rows.index) < 2:
        remedy = "The cell above the exercises makes it: rings.depths(frame)."
        raise UsageError("checking an answer", answered="`depths` has no depth 1, or no other", remedy=remedy)
    if verdict := unanswered(answer) or not_figure(answer):
        return verdict
    by_calls, by_ring = float(rows["syscall"].loc[1]), float(rows["uring"].loc[1])
    if near(answer, by_ring - by_calls):
        return right(f"{by_ring - by_calls:,.0f}: submission, completion and polling, with nothing to share them with.")
    last = rows.iloc[-1]
    known = {
        "Right size, wrong sign: io_uring less system calls.": by_calls - by_ring,
        "This is the ratio. Subtract.": by_ring / by_calls,
        "This is io_uring's cost. Subtract that of system calls.": by_ring,
        "This is system calls' cost. Subtract it from io_uring's.": by_calls,
        "This is at the greatest depth.": float(last["uring"] - last["syscall"]),
        "This is what depth saves, not what io_uring adds.": float(by_ring - last["uring"]),
    }
    return figure(answer, known, "At depth 1: what io_uring needs, less what system calls need.")


def claims() -> Picture:
    """Show six claims."""
    return listed(_CLAIMS, "claim")


def hold(answer: object) -> Verdict:
    """Check which of the `claims` hold."""
    return judged(_CLAIMS, answer)


def _given(given: Given) -> Given:
    return _checks.instance("checking an answer", "given", given, Given, "ktlslab.course.ring.made")
