"""Notebook 08's exercises: the number of a handoff, a number that was lost, what may happen before the kernel has it.

made()                        a server's records, of which a program has read some; made up
ledger(given)                 what became of each
rec_seq(given, answer)        the number that the kernel must be given
lost_number(given, answer)    the number of a record, found by trial
events()                      five things that can happen between export and install
harmless(answer)              which of them do no harm
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ktlslab import _checks
from ktlslab.course.verdicts import Verdict, figure, judged, listed, not_number, right, unanswered
from ktlslab.show.html import MONO, Html, Picture, hexes, picture, table
from ktlslab.show.race import opens
from ktlslab.tls.keyschedule import WRITE_IV_BYTES
from ktlslab.tls.protect import seal
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite

SUITE = Suite.TLS_AES_128_GCM_SHA256
MAX_NUMBER = 40
_EVENTS = {
    "a": ("a record arrives and waits in the socket", True, "the kernel opens it: its number was not used yet."),
    "b": (
        "the library sends a record",
        False,
        "the number is used. The kernel would use it again, with the same nonce.",
    ),
    "c": ("the library reads a record", False, "the number is used. The kernel would open the next record with it."),
    "d": ("half a record arrives", True, "it waits in the socket for the other half: no number is used."),
    "e": ("the library reads five bytes ahead", False, "the header is gone, so the kernel takes data for one."),
}


@dataclass(frozen=True, slots=True)
class Given:
    """How many records a server sent with its handshake's keys, and as tickets and data with its application key.

    `library_read` of the latter are read. `lost` is a record whose number nobody knows, below 40.
    """

    handshake: int
    tickets: int
    data: int
    library_read: int
    key: bytes = field(repr=False)
    write_iv: bytes = field(repr=False)
    lost: bytes = field(repr=False)

    def _repr_html_(self) -> str:
        rows = [(name, hexes(getattr(self, name))) for name in ("key", "write_iv", "lost")]
        shown = [(f"given.{name}", Html(f'<span style="{MONO}">{value}</span>')) for name, value in rows]
        return f"{ledger(self).html}<div>{table((), shown)}</div>"


def made(seed: int | None = None) -> Given:
    """Return a new session, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - keys that protect nothing
    key, write_iv = chance.randbytes(SUITE.cipher.key_bytes), chance.randbytes(WRITE_IV_BYTES)
    number, tickets, data = chance.randrange(3, MAX_NUMBER), 2, chance.randrange(2, 6)
    return Given(
        handshake=chance.randrange(4, 7),
        tickets=tickets,
        data=data,
        library_read=tickets + chance.randrange(1, data),
        key=key,
        write_iv=write_iv,
        lost=seal(SUITE, key, write_iv, number, ContentType.APPLICATION_DATA, b"found"),
    )


def ledger(given: Given) -> Picture:
    """Show what the server sent and where it is, without numbers."""
    wait = _given(given).tickets + given.data - given.library_read
    rows = [
        ("handshake, with the handshake's keys or in the clear", str(given.handshake), "read by the library"),
        ("tickets, with the application key", str(given.tickets), "read by the library"),
        ("data, with the application key", str(given.library_read - given.tickets), "read by the library"),
        ("data, with the application key", str(wait), "waits in the socket"),
    ]
    text = "\n".join(", ".join(row) for row in rows)
    return picture("What the server sent", table(("records", "how many", "where"), rows, numbers=(1,)), text=text)


def rec_seq(given: Given, answer: object) -> Verdict:
    """Check the number for TLS_RX: how many records under the application key the library has read."""
    wanted, everything = _given(given).library_read, given.tickets + given.data
    if verdict := unanswered(answer) or not_number(answer):
        return verdict
    if answer == wanted:
        return right(f"{wanted} records are read, numbers 0 to {wanted - 1}. The first that waits has number {wanted}.")
    known = {
        "The tickets count as well: the same key protects them.": wanted - given.tickets,
        "This is the last record that was read. The kernel needs the next one's number.": wanted - 1,
        "The first record has number 0, so the next number is how many were read.": wanted + 1,
        "This counts what waits in the socket: the kernel has yet to open that.": everything,
        "The handshake's records do not count: they have other keys, and numbers of their own.": wanted
        + given.handshake,
        "This is where the key began. The library has read on since.": 0,
        "This is how many wait. Count those that were read.": everything - wanted,
    }
    return figure(answer, known, "Count the records under the application key that are read.")


def lost_number(given: Given, answer: object) -> Verdict:
    """Check the number with which `given.lost` opens."""
    keys = (SUITE, _given(given).key, given.write_iv)
    number = next(number for number in range(MAX_NUMBER) if opens(*keys, number, given.lost))
    if verdict := unanswered(answer) or not_number(answer):
        return verdict
    if answer == number:
        return right(f"Number {number} opens it: {'found'!r}. A wrong number is never mistaken for the right one.")
    known = {
        "One too many: this is the number of the record behind it.": number + 1,
        "One too few: this is the number of the record before it.": number - 1,
    }
    return figure(answer, known, f"With this number the record does not open. It is one of 0 to {MAX_NUMBER - 1}.")


def events() -> Picture:
    """Show five things that can happen between export and install."""
    return listed(_EVENTS, "between export and install")


def harmless(answer: object) -> Verdict:
    """Check which of the `events` do no harm."""
    return judged(_EVENTS, answer)


def _given(given: Given) -> Given:
    return _checks.instance("checking an answer", "given", given, Given, "ktlslab.course.race.made")
