"""Notebook 00's exercises: which machine for what, what a refusal means, which suites a kernel takes.

wishes()                   five things that somebody wants to do
places(answer)             on which machine to do each
made()                     refusals in a random order, and a kernel's answers; made up
refusals(given, answer)    what each refusal means
both(given, answer)        how many suites the kernel takes in both directions
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ktlslab import _checks
from ktlslab.course.verdicts import Verdict, figure, not_number, right, unanswered, wrong
from ktlslab.show.html import Picture, table

_MACHINES = {
    "here": "this machine, without kTLS",
    "uml": "a user-mode kernel",
    "emulated": "a guest on an emulated CPU",
    "other": "another machine, with kTLS in its own kernel",
}
_WISHES = (
    ("read the recorded plots and do their exercises", "here", "they need no kernel of their own."),
    (
        "hand a session to the kernel and look at every byte, in a lesson, now",
        "uml",
        "it has kTLS and is up in seconds; nothing is measured.",
    ),
    (
        "count what a record costs on Linux 6.1 and on the newest",
        "emulated",
        "of these, only an emulated CPU counts instructions.",
    ),
    (
        "say how many nanoseconds kernel TLS saves on a server's CPU",
        "other",
        "no guest has that clock: a user-mode kernel's system calls are dear, an emulated CPU is none.",
    ),
    (
        "see at once what a peer's KeyUpdate does to a kernel before 6.14",
        "uml",
        "uml-6.12 is such a kernel, up in seconds. An emulated one shows it too, later.",
    ),
)
_MEANINGS = {
    "a": "the tls module is not there: load it, or take another kernel",
    "b": "the module is there, but not this cipher",
    "c": "the socket is not connected, or no longer",
    "d": "the tls module is attached to this socket already",
    "e": "this kernel takes no second key in the same direction",
}
_REFUSALS = {  # by the call and the errno: what it means
    ("setsockopt(TCP_ULP, 'tls')", "ENOENT"): "a",
    ("setsockopt(TLS_TX)", "ENOENT"): "b",
    ("setsockopt(TCP_ULP, 'tls')", "ENOTCONN"): "c",
    ("setsockopt(TCP_ULP, 'tls')", "EEXIST"): "d",
    ("setsockopt(TLS_TX), once more", "EBUSY"): "e",
}
_SUITES = ("AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305", "AES-128-CCM")


@dataclass(frozen=True, slots=True)
class Given:
    """`refusals`: calls and their errno. `answers`: by suite, the directions that a made-up kernel takes."""

    refusals: tuple[tuple[str, str], ...]
    answers: dict[str, tuple[str, ...]]

    def _repr_html_(self) -> str:
        calls = [(f"refusals[{at}]", *one) for at, one in enumerate(self.refusals)]
        taken = [(suite, " and ".join(ways) or "no") for suite, ways in self.answers.items()]
        return (
            f"<div>given.refusals:{table(('', 'call', 'answer'), calls)}"
            f"given.answers:{table(('suite', 'taken'), taken)}</div>"
        )

    def __repr__(self) -> str:
        return f"Given({len(self.refusals)} refusals, {len(self.answers)} suites)"


def made(seed: int | None = None) -> Given:
    """Return refusals in a new order and new answers, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    calls = list(_REFUSALS)
    chance.shuffle(calls)
    names = [f"{version} {suite}" for version in ("TLS 1.2", "TLS 1.3") for suite in _SUITES]
    ways: list[tuple[str, ...]] = [("TX", "RX") for _ in range(chance.randrange(2, 4))]
    ways += [("TX",), ("TX",), ("RX",)]
    ways += [() for _ in range(len(names) - len(ways))]
    chance.shuffle(ways)
    return Given(tuple(calls), dict(zip(names, ways, strict=True)))


def wishes() -> Picture:
    """Show five wishes, and four machines to choose from."""
    rows = [(str(at), wish) for at, (wish, _, _) in enumerate(_WISHES)]
    text = "\n".join(": ".join(row) for row in [*rows, *_MACHINES.items()])
    return Picture(f"<div>{table(('', 'wish'), rows)}{table(('name', 'machine'), _MACHINES.items())}</div>", text)


def places(answer: object) -> Verdict:
    """Check a list of five names, one for each of the `wishes`."""
    if verdict := unanswered(answer) or _not_names(answer, _MACHINES, len(_WISHES)):
        return verdict
    told = list(answer) if isinstance(answer, list | tuple) else []
    faults = [f"{at}, {wish}: {why}" for at, (wish, name, why) in enumerate(_WISHES) if told[at] != name]
    if faults:
        return wrong("\n".join([f"{len(_WISHES) - len(faults)} of {len(_WISHES)} are right.", *faults]))
    return right("Look on a user-mode kernel, count on an emulated CPU, measure time on the machine that it is about.")


def meanings() -> Picture:
    """Show what refusals can mean."""
    rows = list(_MEANINGS.items())
    return Picture(table(("", "meaning"), rows), "\n".join(": ".join(row) for row in rows))


def refusals(given: Given, answer: object) -> Verdict:
    """Check a list of letters, one for each of the given refusals: what it means."""
    calls = _given(given).refusals
    if verdict := unanswered(answer) or _not_names(answer, _MEANINGS, len(calls)):
        return verdict
    told = list(answer) if isinstance(answer, list | tuple) else []
    faults = [
        f"refusals[{at}], {call}: {number} does not mean that {_MEANINGS[told[at]].partition(':')[0]}"
        for at, (call, number) in enumerate(calls)
        if told[at] != _REFUSALS[call, number]
    ]
    if faults:
        return wrong(
            "\n".join([f"{len(calls) - len(faults)} of {len(calls)} are right.", *(f"{one}." for one in faults)])
        )
    return right("The same errno means one thing at TCP_ULP and another at TLS_TX: look at the call as well.")


def both(given: Given, answer: object) -> Verdict:
    """Check how many suites the made-up kernel takes in both directions."""
    ways = list(_given(given).answers.values())
    if verdict := unanswered(answer) or not_number(answer):
        return verdict
    wanted = sum(len(one) == 2 for one in ways)
    if answer == wanted:
        return right(
            f"{wanted} suites. Where only one direction is taken, OpenSSL keeps the other: kernel-tx or kernel-rx."
        )
    known = {
        "These are all that it takes in at least one direction.": sum(bool(one) for one in ways),
        "These are all that it can send with.": sum("TX" in one for one in ways),
        "These are all that it can receive with.": sum("RX" in one for one in ways),
        "These are directions. Count suites.": sum(len(one) for one in ways),
        "These are all suites, refused ones too.": len(ways),
        "These are the ones that it refuses.": sum(not one for one in ways),
    }
    return figure(answer, known, "Count the suites with TX and RX.")


def _not_names(answer: object, names: dict[str, str], count: int) -> Verdict | None:
    """Return what is wrong with an answer that should be a list of so many of these names; None where it is one."""
    if not isinstance(answer, list | tuple) or len(answer) != count:
        return wrong(f"Give a list of {count}, each one of {', '.join(names)}.")
    if any(one is ... for one in answer):
        return unanswered(...)
    if unknown := [one for one in answer if not isinstance(one, str) or one not in names]:
        return wrong(f"There is no {unknown[0]!r}; there are {', '.join(names)}.")
    return None


def _given(given: Given) -> Given:
    return _checks.instance("checking an answer", "given", given, Given, "ktlslab.course.machines.made")
