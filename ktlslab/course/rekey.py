"""Notebook 06's exercises: numbers across KeyUpdates, a record of an unknown generation, the order of steps, duties.

made()                             a secret, a script in which both ends change their keys, a record; made up
numbers(given, answer)             the number of each record of the script
lost(given, changes, number)       how many KeyUpdates came before a record, and its number
steps()                            six steps of a receiver whose kernel has the keys
order(answer)                      their order
claims()                           five claims about KeyUpdate
true(answer)                       which of them are true
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from ktlslab import _checks
from ktlslab.course.verdicts import (
    Verdict,
    judged,
    listed,
    not_number,
    right,
    sentence,
    unanswered,
    wrong,
)
from ktlslab.show.html import MONO, Html, Picture, hexes, table
from ktlslab.show.race import opens
from ktlslab.tls.keyschedule import next_traffic_secret, traffic_key
from ktlslab.tls.protect import seal
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite

SUITE = Suite.TLS_AES_128_GCM_SHA256
MAX_CHANGES, MAX_NUMBER = 5, 8
DATA, UPDATE = "data", "KeyUpdate"
_STEPS = {
    "a": "recv says EIO",
    "b": "setsockopt(TLS_RX) gives the kernel the next key",
    "c": "recv says EKEYEXPIRED",
    "d": "recv returns data of the next key",
    "e": "recvmsg, with room for a type, returns a KeyUpdate",
    "f": "recv returns the last data of the old key",
}
_ORDER = "faecbd"
_CLAIMS = {
    "a": (
        "a KeyUpdate changes the keys of both directions",
        False,
        "only those of whoever sends it (RFC 8446, 4.6.3).",
    ),
    "b": (
        "who is asked by update_requested must send a KeyUpdate before its next data",
        True,
        "so says RFC 8446, 4.6.3.",
    ),
    "c": (
        "the answer to update_requested says update_requested as well",
        False,
        "update_not_requested, or both would go on for ever (RFC 8446, 4.6.3).",
    ),
    "d": (
        "records under the peer's old key may still come after one's own KeyUpdate",
        True,
        "the peer changes its key when it sends its own; until then the old one is right.",
    ),
    "e": (
        "the kernel derives the next key by itself once it has seen a KeyUpdate",
        False,
        "it never had the secret: the program derives the key and sets it (tls.rst).",
    ),
}


@dataclass(frozen=True, slots=True)
class Given:
    """`script`: who sends what, in order. `secret`: a first secret; `record`: sealed some KeyUpdates later."""

    script: tuple[tuple[str, str], ...] = field(repr=False)
    secret: bytes = field(repr=False)
    record: bytes = field(repr=False)

    def _repr_html_(self) -> str:
        rows = [(f"script[{at}]", who, what) for at, (who, what) in enumerate(self.script)]
        shown = [
            (f"given.{name}", Html(f'<span style="{MONO}">{hexes(getattr(self, name))}</span>'))
            for name in ("secret", "record")
        ]
        return f"<div>given.script:{table(('', 'who sends', 'what'), rows)}{table((), shown)}</div>"


def made(seed: int | None = None) -> Given:
    """Return a new script, secret and record, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - keys that protect nothing
    first, other = chance.sample(["client", "server"], 2)
    script = [(first, DATA)] * chance.randrange(1, 3) + [(other, DATA)] * chance.randrange(1, 3)
    script += [(first, UPDATE), (other, DATA)] + [(first, DATA)] * chance.randrange(1, 3)
    script += [(other, UPDATE), (other, DATA), (first, DATA)]
    secret = chance.randbytes(32)
    changes, number = chance.randrange(2, MAX_CHANGES), chance.randrange(1, MAX_NUMBER)
    keys = traffic_key(_after(secret, changes), SUITE)
    return Given(tuple(script), secret, seal(SUITE, *keys, number, ContentType.APPLICATION_DATA, b"found"))


def numbers(given: Given, answer: object) -> Verdict:
    """Check the numbers of the script's records: each end counts its own, from 0, and from 0 again with a new key."""
    script = _given(given).script
    if verdict := unanswered(answer):
        return verdict
    if not isinstance(answer, list | tuple) or len(answer) != len(script):
        return wrong(f"Give a list of {len(script)} numbers, one for each record of the script.")
    for at, one in enumerate(answer):
        if verdict := unanswered(one) or not_number(one, f"The number of script[{at}]"):
            return verdict
    wanted = _counted(script, lambda who, sender: who == sender, before=True)
    told = list(answer)
    if told == wanted:
        return right("Each end counts its own records, and begins again at 0 behind its own KeyUpdate.")
    known: list[tuple[list[int], str]] = [
        (_counted(script, lambda *_: False), "No count begins again here. A new key begins at 0 (RFC 8446, 5.3)."),
        (
            _counted(script, lambda who, sender: who == sender, before=False),
            "A KeyUpdate is the last record under the old key, not the first under the new one (RFC 8446, 4.6.3).",
        ),
        (
            _counted(script, lambda *_: True),
            "Here a KeyUpdate changes both directions. It changes only its sender's (RFC 8446, 4.6.3).",
        ),
        (
            _counted(script, lambda who, sender: who != sender),
            "Here a KeyUpdate changes the direction of whoever receives it. It changes its sender's.",
        ),
        (_counted(script, lambda who, sender: who == sender, first=1), "The first record under a key has number 0."),
        (list(range(len(script))), "These count the script's lines. Each direction counts by itself (RFC 8446, 5.3)."),
    ]
    if said := next((said for numbers_so, said in known if told == numbers_so), ""):
        return wrong(said)
    at = next(at for at, pair in enumerate(zip(told, wanted, strict=True)) if pair[0] != pair[1])
    who, what = script[at]
    return wrong(f"The first that is wrong is script[{at}], {what} of the {who}: it is not number {told[at]}.")


def lost(given: Given, changes: object, number: object) -> Verdict:
    """Check after how many KeyUpdates, and with which number, `given.record` was sealed."""
    secret, record = _given(given).secret, given.record
    if verdict := (
        unanswered(changes, number)
        or not_number(changes, "The number of KeyUpdates")
        or not_number(number, "The record's number")
    ):
        return verdict
    fits = next(
        (so_many, at)
        for so_many in range(MAX_CHANGES)
        for at in range(MAX_NUMBER)
        if opens(SUITE, *traffic_key(_after(secret, so_many), SUITE), at, record)
    )
    if (changes, number) == fits:
        return right(f"{fits[0]} KeyUpdates, then record {fits[1]}. Nobody who has only the last key finds the first.")
    if (number, changes) == fits:
        return wrong("These are swapped.")
    faults = [
        f"{'right' if told == so else 'wrong'} {what}"
        for what, told, so in zip(("number of KeyUpdates", "record's number"), (changes, number), fits, strict=True)
    ]
    return wrong(sentence("the record does not open", ", ".join(faults)))


def steps() -> Picture:
    """Show six steps, in no order."""
    rows = list(_STEPS.items())
    return Picture(table(("", "step"), rows), "\n".join(": ".join(row) for row in rows))


def order(answer: object) -> Verdict:
    """Check the order of the `steps`, a word of their letters."""
    if verdict := unanswered(answer):
        return verdict
    if not isinstance(answer, str) or sorted(answer) != sorted(_ORDER):
        return wrong('Give a word of the six letters, each once, such as "abcdef".')
    if answer == _ORDER:
        return right("Data, EIO, the KeyUpdate, EKEYEXPIRED, the new key, data: nothing is lost, and nothing guessed.")
    told = [
        ("f", "a", "what came before the KeyUpdate is received first"),
        ("a", "e", "recv has no room for a type, so it says EIO, and the KeyUpdate still waits for recvmsg"),
        ("e", "c", "the kernel stops when the KeyUpdate has been received, not before"),
        ("c", "b", "EKEYEXPIRED ends when the key is set"),
        ("b", "d", "no record of the next key opens before the kernel has it"),
    ]
    faults = [
        f"{early} comes before {late}: {why}" for early, late, why in told if answer.find(early) > answer.find(late)
    ]
    return wrong("\n".join(f"{fault}." for fault in faults))


def claims() -> Picture:
    """Show five claims about KeyUpdate."""
    return listed(_CLAIMS, "claim")


def true(answer: object) -> Verdict:
    """Check which of the `claims` are true."""
    return judged(_CLAIMS, answer)


def _after(secret: bytes, changes: int) -> bytes:
    for _ in range(changes):
        secret = next_traffic_secret(secret, SUITE)
    return secret


def _counted(
    script: tuple[tuple[str, str], ...],
    resets: Callable[[str, str], bool],
    *,
    before: bool = True,
    first: int = 0,
) -> list[int]:
    """Return each record's number. `resets(who, sender)`: whether a KeyUpdate of `sender` resets who's count.

    `before`: the KeyUpdate is numbered before it resets. `first`: a key's first number.
    """
    following = dict.fromkeys(("client", "server"), first)
    found = []
    for sender, what in script:
        if before or what != UPDATE:
            found.append(following[sender])
            following[sender] += 1
        if what == UPDATE:
            following = {who: first if resets(who, sender) else at for who, at in following.items()}
            if not before:
                found.append(following[sender])
                following[sender] += 1
    return found


def _given(given: Given) -> Given:
    return _checks.instance("checking an answer", "given", given, Given, "ktlslab.course.rekey.made")
