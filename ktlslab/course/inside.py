"""Notebook 09's exercises: own and total, the cipher's share, who calls it, what a tree shows.

    own_and_total(tree, own, total)   of tls_sw_sendmsg
    cipher_share(tree, answer)        the cipher's instructions among all
    caller(tree, answer)              the function that hands the record to the cipher
    claims()                          five claims about a record's way
    shown(answer)                     which of them are true

`tree` is `ktlslab.show.way.tree(profile, "send", "kernel")`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.course.verdicts import (
    Verdict,
    figure,
    judged,
    listed,
    near,
    not_figure,
    right,
    sentence,
    unanswered,
    wrong,
)
from ktlslab.errors import UsageError
from ktlslab.show.way import is_aead

if TYPE_CHECKING:
    import pandas as pd

    from ktlslab.show.html import Picture

SENDING = "tls_sw_sendmsg"
_COLUMNS = ("function", "class", "caller", "level", "instructions", "total")
_CLAIMS = {
    "a": (
        "kernel TLS copies the payload before it encrypts it",
        False,
        "the cipher reads the program's pages: sk_msg_zerocopy_from_iter only looks them up.",
    ),
    "b": (
        "userspace TLS copies the payload and then the record before TCP has it",
        True,
        "memcpy into OpenSSL's buffer, and _copy_from_iter into the kernel.",
    ),
    "c": (
        "the peer's tcp_v4_rcv is executed within the sender's system call",
        True,
        "on loopback the packet comes back in a soft interrupt, before send returns.",
    ),
    "d": (
        "the kernel decrypts straight into the receiving program's buffer",
        False,
        "into pages of its own first: the type stands behind the padding. TLS_RX_EXPECT_NO_PAD would change that.",
    ),
    "e": (
        "the kernel looks for a record's end only when the program calls recv",
        False,
        "tls_strp_check_rcv does it when a segment arrives, or the reader would be woken for nothing.",
    ),
}


def own_and_total(tree: pd.DataFrame, own: object, total: object) -> Verdict:
    """Check what tls_sw_sendmsg executed itself, and with all that it called."""
    row = _tree(tree).loc[tree["function"] == SENDING].iloc[0]
    wanted = float(row["instructions"]), float(row["total"])
    told = (own, total)
    if verdict := unanswered(*told) or not_figure(own, "The own") or not_figure(total, "The total"):
        return verdict
    fits = [near(one, of, 0.0001) for one, of in zip(told, wanted, strict=True)]
    if all(fits):
        return right(f"{wanted[0]:,.0f} of {wanted[1]:,.0f}: it hands out work rather than doing it.")
    if near(own, wanted[1]) and near(total, wanted[0]):
        return wrong("These are swapped: the total contains its own.")
    faults = ["" if fits[0] else "wrong own", "" if fits[1] else "wrong total"]
    if near(own, wanted[1] - wanted[0]):
        faults[0] = "the first number is what the others executed for it, not its own"
    if near(total, wanted[1] - wanted[0]):
        faults[1] = "the total contains its own as well"
    if near(total, float(tree["total"].iloc[0])):
        faults[1] = "this total is that of the whole way, which begins above it"
    return wrong(sentence(*faults))


def cipher_share(tree: pd.DataFrame, answer: object) -> Verdict:
    """Check which share of the way's instructions belongs to the cipher."""
    rows = _tree(tree)
    cipher = rows[rows["class"].map(is_aead)]
    if verdict := unanswered(answer) or not_figure(answer):
        return verdict
    own, whole = float(cipher["instructions"].sum()), float(rows["instructions"].sum())
    if near(answer, own / whole):
        return right(f"{own / whole:.3f}. Whoever runs the cipher pays this; only the rest can be saved.")
    known = {
        "This is in percent. A share lies between 0 and 1.": 100 * own / whole,
        "This is a number of instructions. Divide it by all.": own,
        "This is what is not the cipher.": 1 - own / whole,
        "This is upside down: all over the cipher's.": whole / own,
        "This adds totals, which contain each other. Add what is each function's own.": float(cipher["total"].sum())
        / whole,
        "This divides by the sum of totals, which contain each other.": own / float(rows["total"].sum()),
        "This is one function's. The cipher has several.": float(cipher["instructions"].max()) / whole,
        "This is the share in tls_sw_sendmsg. The way begins above it.": own
        / float(rows.loc[rows["function"] == SENDING, "total"].iloc[0]),
    }
    return figure(answer, known, "Divide the own instructions of the AEAD rows by those of all rows.")


def caller(tree: pd.DataFrame, answer: object) -> Verdict:
    """Check the name of the function that calls the cipher and is no part of it."""
    rows = _tree(tree)
    cipher = rows[rows["class"].map(is_aead)]
    names = set(cipher["function"])
    first = cipher[~cipher["caller"].isin(names)].sort_values("total").iloc[-1]
    wanted = str(first["caller"])
    if verdict := unanswered(answer):
        return verdict
    if not isinstance(answer, str):
        return wrong(f'The answer is of type {type(answer).__name__}. Give a name in quotes, such as "tcp_v4_rcv".')
    if answer == wanted:
        return right(f"{wanted} calls {first['function']}. Below it is the crypto API, which knows nothing of TLS.")
    known = {
        f"{answer} is part of the cipher. Who called it from outside?": answer in names,
        "No function in this tree has this name.": answer not in set(rows["function"]),
        f"{answer} is above it: the cipher is called farther down.": answer in _above(rows, wanted),
    }
    return wrong(next((said for said, so in known.items() if so), f"{answer} does not call the cipher."))


def claims() -> Picture:
    """Show five claims about the way of a record of TLS 1.3 over loopback."""
    return listed(_CLAIMS, "claim")


def shown(answer: object) -> Verdict:
    """Check which of the `claims` are true."""
    return judged(_CLAIMS, answer)


def _above(rows: pd.DataFrame, name: str) -> list[str]:
    """Return the callers of a function, and theirs."""
    callers = dict(zip(rows["function"].tolist()[::-1], rows["caller"].tolist()[::-1], strict=True))
    found: list[str] = []
    while (name := callers.get(name, "")) and name not in found:
        found.append(name)
    return found


def _tree(tree: pd.DataFrame) -> pd.DataFrame:
    rows = _checks.frame("checking an answer", "tree", tree, _COLUMNS)
    if SENDING not in set(rows["function"]):
        remedy = 'The cell above the exercises makes it: way.tree(profile, "send", "kernel").'
        raise UsageError("checking an answer", answered=f"`tree` has no {SENDING}", remedy=remedy)
    return rows
