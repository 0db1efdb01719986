"""Notebook 04's exercises: what a newer kernel gained and lost, and whose work is whose.

gained(frame, answer)    promises that the newest kernel keeps and the oldest does not
lost(frame, answer)      promises that the newest kernel breaks and an older one keeps
duties()                 six duties, to be divided between kernel and program
program(answer)          which of them are the program's
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.course.verdicts import Verdict, figure, judged, listed, near, not_figure, right, unanswered
from ktlslab.promises.verdicts import ABSENT, BROKEN, KEPT
from ktlslab.show.scoreboard import upstream

if TYPE_CHECKING:
    import pandas as pd

    from ktlslab.show.html import Picture

_DUTIES = {
    "a": ("checking a record's tag", False, "the kernel opens the record, or says EBADMSG (tls.rst)."),
    "b": (
        "sending close_notify before the end",
        True,
        "the kernel sends none at close() or shutdown(), and the protocol wants one (RFC 8446, 6.1).",
    ),
    "c": ("a new nonce for each record", False, "the kernel counts rec_seq up by itself."),
    "d": ("changing the key before its limit", True, "the kernel numbers records but sets no limit (RFC 8446, 5.5)."),
    "e": ("deriving the key after a KeyUpdate", True, "the kernel waits for it, with EKEYEXPIRED (tls.rst)."),
    "f": (
        "telling a ticket from data",
        True,
        "the kernel only names a record's type, and only to who makes room for it; the rest is yours (tls.rst).",
    ),
}


def by_age(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the verdicts with a row per promise and a column per kernel, the oldest first by its upstream version."""
    rows = _checks.frame("comparing kernels", "frame", frame, ["promise", "kernel", "verdict"])
    wide = rows.pivot_table(index="promise", columns="kernel", values="verdict", aggfunc="first")

    def age(kernel: str) -> tuple[tuple[int, ...], list[int]]:
        return upstream(frame, kernel), [int(number) for number in re.findall(r"\d+", kernel)]

    return wide[sorted(wide.columns, key=lambda kernel: age(str(kernel)))]


def gained(frame: pd.DataFrame, answer: object) -> Verdict:
    """Check how many promises the newest kernel keeps that the oldest does not keep (`read_scoreboard`)."""
    wide = by_age(frame)
    if verdict := unanswered(answer) or not_figure(answer):
        return verdict
    old, new = wide.iloc[:, 0], wide.iloc[:, -1]
    wanted = int(((new == KEPT) & (old != KEPT)).sum())
    if near(answer, wanted, 0):
        return right(f"{wanted}: {int(((new == KEPT) & (old == BROKEN)).sum())} were broken, the others not there yet.")
    known = {
        "These were broken. Promises that the oldest kernel lacks are not kept either.": (new == KEPT)
        & (old == BROKEN),
        "These are new features. Promises that the oldest kernel breaks are not kept either.": (new == KEPT)
        & (old == ABSENT),
        "This is the other way round: kept by the oldest, not by the newest.": (old == KEPT) & (new != KEPT),
        "These are all that the newest kernel keeps.": new == KEPT,
        "These are all on which the two differ.": old != new,
    }
    counts = {said: float(which.sum()) for said, which in known.items()}
    counts["This is the difference of two counts: what was lost is subtracted."] = float(
        (new == KEPT).sum() - (old == KEPT).sum()
    )
    return figure(answer, counts, "Put the oldest and the newest kernel's verdicts side by side, and count.")


def lost(frame: pd.DataFrame, answer: object) -> Verdict:
    """Check how many promises the newest kernel breaks that at least one older kernel keeps."""
    wide = by_age(frame)
    if verdict := unanswered(answer) or not_figure(answer):
        return verdict
    older, new = wide.iloc[:, :-1], wide.iloc[:, -1]
    once = (older == KEPT).any(axis=1)
    wanted = int(((new == BROKEN) & once).sum())
    if near(answer, wanted, 0):
        return right(f"{wanted} of {len(wide)}. A newer kernel is not better in everything: look at what was seen.")
    known = {
        "These are all that the newest kernel breaks, whether an older one kept them or not.": new == BROKEN,
        "These every kernel breaks.": (new == BROKEN) & (older == BROKEN).all(axis=1),
        "These every older kernel keeps. One is enough.": (new == BROKEN) & (older == KEPT).all(axis=1),
        "This is the other way round: kept by the newest, broken by an older one.": (new == KEPT)
        & (older == BROKEN).any(axis=1),
    }
    return figure(
        answer, {said: float(which.sum()) for said, which in known.items()}, "Broken by the newest, kept by another."
    )


def duties() -> Picture:
    """Show six duties of whoever speaks TLS."""
    return listed(_DUTIES, "duty")


def program(answer: object) -> Verdict:
    """Check which of the `duties` are the program's own where the kernel has the keys."""
    return judged(_DUTIES, answer)
