"""Notebook 11's exercises: who carried the payload, from which size on a handoff pays, what leads to a fall back.

made()                        a made-up trace of a transfer, and what two ways cost; new at each run
carried(given, answer)        how many bytes of payload io_uring carried
pays(given, answer)           from how many bytes on the kernel's records are cheaper
events()                      six things that can happen while a session opens with record_layer="auto"
falls_back(answer)            which of them lead to a fall back and not to an error
"""

from __future__ import annotations

import random
from dataclasses import dataclass

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
    unanswered,
    wrong,
)
from ktlslab.show.html import Picture, table

_EVENTS = {
    "a": ("the certificate has expired", False, "whom one talks to is not known: CertificateError."),
    "b": (
        "the server has only suites with CBC",
        True,
        "no kernel has a type for them, so the library keeps the records: Why.SUITE_UNKNOWN.",
    ),
    "c": (
        "a container forbids io_uring",
        True,
        "plain system calls carry the bytes, and the kernel may still make the records: Why.NO_IO_URING.",
    ),
    "d": (
        "the certificate is for another name",
        False,
        "that is the wrong server. Who encrypts makes no difference: CertificateError.",
    ),
    "e": (
        "the kernel has no tls module",
        True,
        "the library that did the handshake goes on: Why.NO_TLS_MODULE.",
    ),
    "f": (
        "the server speaks no version that the client takes",
        False,
        "no keys were agreed on, so nobody could encrypt: HandshakeError.",
    ),
}


@dataclass(frozen=True, slots=True)
class Given:
    """A transfer, as (what was called, its result in bytes, minus an errno if it failed); and what two ways cost.

    `carries` lists calls and operations in order. `once_before` and `once_now`: instructions of a fetch without a body;
    `byte_before` and `byte_now`: instructions for each byte of it.
    """

    carries: tuple[tuple[str, int], ...]
    once_before: int
    once_now: int
    byte_before: float
    byte_now: float

    def _repr_html_(self) -> str:
        rows = [(name, str(result)) for name, result in self.carries]
        first = table(("given.carries: call or operation", "result"), rows, numbers=(1,))
        costs = [(f"given.{name}", f"{getattr(self, name):,}") for name in _COSTS]
        return f"{first}<div>{table(('', 'instructions'), costs, numbers=(1,))}</div>"


_COSTS = ("once_before", "once_now", "byte_before", "byte_now")
_RING = "io_uring "  # what a ring's operation is called begins with it


def made(seed: int | None = None) -> Given:
    """Return a new transfer and new costs, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    request, first, second = chance.randrange(40, 400), chance.randrange(8000, 16000), chance.randrange(300, 8000)
    ticket = chance.randrange(200, 260)
    carries = (
        ("sendto", chance.randrange(60, 150)),
        (f"{_RING}SEND", request),
        (f"{_RING}RECV", -5),
        (f"{_RING}RECVMSG, type 22", ticket),
        (f"{_RING}RECV", first),
        (f"{_RING}RECV", second),
        ("recvfrom", chance.randrange(1000, 9000)),
    )
    return Given(
        carries=carries,
        once_before=chance.randrange(4_000, 5_000) * 1000,
        once_now=chance.randrange(6_000, 9_000) * 1000,
        byte_before=chance.randrange(60, 70) / 10,
        byte_now=chance.randrange(40, 58) / 10,
    )


def carried(given: Given, answer: object) -> Verdict:
    """Check how many bytes of payload went through the ring: of results above 0 that are not a ticket's."""
    ring = [(name, result) for name, result in _given(given).carries if name.startswith(_RING)]
    wanted = sum(result for name, result in ring if result > 0 and "type 22" not in name)
    if verdict := unanswered(answer) or not_number(answer):
        return verdict
    if answer == wanted:
        return right(
            f"{wanted:,} bytes. A record of type 22 is a handshake message (RFC 8446, 5.1), and a negative result is "
            "an errno: io_uring_enter(2) has no other way to say it."
        )
    calls = sum(result for name, result in given.carries if not name.startswith(_RING))
    whole = sum(result for _, result in ring if result > 0)
    known = {
        "A negative result is an errno, not a number of bytes: EIO says that a control record is next.": wanted - 5,
        "The record of type 22 is a session ticket, a handshake message: no payload.": whole,
        "That has the ticket and the errno in it: neither is payload.": whole - 5,
        "sendto and recvfrom are system calls of their own: io_uring did not carry these.": wanted + calls,
        "This adds everything that is positive: system calls, and a ticket, which is no payload.": whole + calls,
        "This adds everything. Leave out system calls, the errno, and the ticket, which is no payload.": whole
        + calls
        - 5,
        "What was sent is payload as well: the request.": wanted - next(r for name, r in ring if name.endswith("SEND")),
        "This is what the system calls carried. The ring carried the rest.": calls,
        "This is how many operations there were. Their results are the bytes.": len(ring),
    }
    otherwise = "Add the results of the ring's operations that moved application data."
    return wrong(next((said for said, value in known.items() if answer == value), otherwise))  # each byte counts


def pays(given: Given, answer: object) -> Verdict:
    """Check the size at which both ways cost the same."""
    more, less = _given(given).once_now - given.once_before, given.byte_before - given.byte_now
    wanted = more / less
    if verdict := unanswered(answer) or not_figure(answer):
        return verdict
    if near(answer, wanted, 0.005):
        return right(
            f"From {wanted:,.0f} bytes on. What a handoff adds is paid once; what it saves, with each byte. On a "
            "connection that is kept, all bodies count together."
        )
    known = {
        "This divides by what a byte costs now. Divide by what a byte costs *less* than before.": more / given.byte_now,
        "This divides by what a byte cost before. Divide by the difference.": more / given.byte_before,
        "This leaves out that the old way begins with a cost of its own: only what comes on top counts.": given.once_now
        / less,
        "The wrong way round: bytes are instructions divided by instructions per byte.": less / more,
        "The sign: the new way costs more once, and less for each byte.": -wanted,
    }
    return figure(answer, known, "Set both costs equal: once_before + n * byte_before = once_now + n * byte_now.")


def events() -> Picture:
    """Show six things that can happen while a session opens."""
    return listed(_EVENTS, "while a session opens, record_layer='auto'")


def falls_back(answer: object) -> Verdict:
    """Check which of the `events` lead to a fall back."""
    return judged(_EVENTS, answer)


def _given(given: Given) -> Given:
    return _checks.instance("checking an answer", "given", given, Given, "ktlslab.course.ways.made")
