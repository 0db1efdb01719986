"""Notebook 03's exercises: numbers across a KeyUpdate, the next key, what records mean, which ends are clean.

made()                                             a traffic secret and a stream to solve them on
numbers(given, first, key_update, after)           the numbers of three records that a server sends
next_key(given, answer)                            the key that follows a KeyUpdate
meaning(given, data, new_keys, clean)              what an application makes of typed records
clean(given, answer)                               which of four streams ended cleanly
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

from ktlslab import _checks
from ktlslab.course.verdicts import (
    Verdict,
    judged,
    listed,
    mistake,
    not_bytes,
    not_number,
    right,
    sentence,
    unanswered,
    wrong,
)
from ktlslab.show.html import MONO, Html, Picture, card, hexes
from ktlslab.tls.keyschedule import hkdf_expand_label, next_traffic_secret, traffic_key
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite

SUITE = Suite.TLS_AES_128_GCM_SHA256
TICKETS, DATA = 2, 3
KEY_UPDATE, CLOSE_NOTIFY = b"\x18\x00\x00\x01\x00", b"\x01\x00"  # RFC 8446, 4.6.3 and 6
_HANDSHAKE, _DATA, _ALERT = ContentType.HANDSHAKE, ContentType.APPLICATION_DATA, ContentType.ALERT
STREAM = (
    (_HANDSHAKE, b"\x04\x00\x00\x06ticket"),
    (_DATA, b"one "),
    (_HANDSHAKE, KEY_UPDATE),
    (_DATA, b"two "),
    (_DATA, b"three"),
    (_ALERT, CLOSE_NOTIFY),
)
_SAID = b"one two three"
_ENDS = {
    "a": (
        "data, alert close_notify, FIN",
        True,
        "close_notify came: the sender said that this was all (RFC 8446, 6.1).",
    ),
    "b": ("data, FIN", False, "anybody on the way can send a FIN: without close_notify the rest may be missing."),
    "c": ("data, alert close_notify, RST", True, "close_notify came before the reset: nothing of the data is missing."),
    "d": ("data, alert bad_record_mac, FIN", False, "an error alert says that something went wrong (RFC 8446, 6.2)."),
}


@dataclass(frozen=True, slots=True)
class Given:
    """A server's application traffic secret, made up, and what recvmsg returned of one stream: types and bytes."""

    secret: bytes = field(repr=False)
    stream: tuple[tuple[int, bytes], ...] = STREAM

    def _repr_html_(self) -> str:
        shown = [(name, Html(f'<span style="{MONO}">{value}</span>')) for name, value in self._values()]
        return card("Given: a secret and a stream, made up", shown)

    def _values(self) -> list[tuple[str, str]]:
        rows = [("secret", hexes(self.secret))]
        return rows + [(f"stream[{at}]", f"{kind:d}, {data.hex(' ')}") for at, (kind, data) in enumerate(self.stream)]


def made(seed: bytes | None = None) -> Given:
    """Return a new secret, the same for the same seed, and the stream."""
    return Given(hashlib.sha256(os.urandom(32) if seed is None else seed).digest())


def ends() -> Picture:
    """Show how four streams ended."""
    return listed(_ENDS, "what came, in this order")


def numbers(given: Given, first: object, key_update: object, after: object) -> Verdict:
    """Check the numbers of the kernel's first record, of a KeyUpdate behind three more, and of what follows it."""
    _given(given)
    names = ("The kernel's first record", "The KeyUpdate", "The record after it")
    answers = (first, key_update, after)
    verdict = unanswered(*answers)
    for answer, name in zip(answers, names, strict=True):
        verdict = verdict or not_number(answer, f"{name}'s number")
    if verdict:
        return verdict
    wanted = (TICKETS, TICKETS + DATA, 0)
    why: tuple[dict[object, str], ...] = (
        {0: "the tickets were made with the same key, so they count", 1: "there were two tickets", 3: "count from 0"},
        {
            DATA: "the tickets count as well",
            TICKETS + DATA - 1: "this is the last data record's",
            TICKETS + DATA + 1: "count from 0",
            0: "it is the last record under the old key, not the first under the new one",
        },
        {TICKETS + DATA + 1: "a new key begins at 0 (RFC 8446, 5.3)", 1: "the KeyUpdate is not under the new key"},
    )
    if answers == wanted:
        return right(
            "The tickets are 0 and 1, the data 2 to 4, the KeyUpdate 5, still under the old key. Then 0 again."
        )
    faults = [
        f"{name} is not number {answer}{f': {told[answer]}' if answer in told else ''}."
        for name, answer, number, told in zip(names, answers, wanted, why, strict=True)
        if answer != number
    ]
    return wrong("\n".join(faults))


def next_key(given: Given, answer: object) -> Verdict:
    """Check the key that protects the server's records after its first KeyUpdate (RFC 8446, 7.2 and 7.3)."""
    secret = _given(given).secret
    if isinstance(answer, bytes) and answer == next_traffic_secret(secret, SUITE):
        return wrong('This is the next secret, which is right so far. The key follows from it by the label "key".')
    if verdict := unanswered(answer) or not_bytes(answer, SUITE.cipher.key_bytes):
        return verdict
    key, following = traffic_key(secret, SUITE)[0], next_traffic_secret(secret, SUITE)
    if answer == traffic_key(following, SUITE)[0]:
        return right(
            "First the next secret, from the old one; then the key from it. Nobody gets back to the old secret."
        )

    def expanded(of: bytes, label: str) -> bytes:
        return hkdf_expand_label(of, label, b"", SUITE.cipher.key_bytes, SUITE.digest)

    known = {
        key: "This is the key before the KeyUpdate. The secret must change first.",
        secret[:16]: "These are the secret's first bytes. A key is expanded from a secret, never cut from it.",
        following[:16]: 'These are the next secret\'s first bytes. The key follows from it by the label "key".',
        expanded(secret, "traffic upd"): "The next secret is as long as the digest, 32 bytes. Expand all of it, then "
        'the key from it, by the label "key".',
        expanded(key, "traffic upd"): "The next secret follows from the secret, not from the key.",
        traffic_key(next_traffic_secret(following, SUITE), SUITE)[0]: "This is the key after two KeyUpdates.",
        traffic_key(following, SUITE)[1]: "This is the next write IV.",
    }
    return mistake(bytes(answer) if isinstance(answer, bytes | bytearray) else b"", known, "This is not the next key.")


def meaning(given: Given, data: object, new_keys: object, clean: object) -> Verdict:
    """Check what the stream means: the application's bytes, new receive keys for the kernel, whether it ended well."""
    _given(given)
    if verdict := unanswered(data, new_keys, clean) or not_number(new_keys, "The number of new keys"):
        return verdict
    faults = []
    if data != _SAID:
        everything = b"".join(part for _, part in STREAM)
        known = {
            everything: "all records are in it; only those of type 23 are the application's",
            b"one ": "it goes on",
        }
        what = bytes(data) if isinstance(data, bytes | bytearray) else b""
        otherwise = "this is text; what records hold is bytes" if isinstance(data, str) else ""
        otherwise = otherwise or "join what the records of type 23 hold"
        faults.append(f"wrong data: {known.get(what, otherwise)}")
    if new_keys != 1:
        said = "one record is a KeyUpdate: a handshake message that begins with 18 in hexadecimal, 24"
        tickets = "a ticket is a handshake message too, but brings no key" if new_keys == 2 else said
        faults.append(f"wrong number of new keys: {tickets}")
    if clean is not True:
        faults.append("the end is another: the last record is an alert, 1 and 0: warning, close_notify")
    if faults:
        return wrong(sentence(*faults))
    return right("Only type 23 is the application's. The KeyUpdate stops the kernel until it has the next key.")


def clean(given: Given, answer: object) -> Verdict:
    """Check which of the streams that `ends` shows ended cleanly."""
    _given(given)
    return judged(_ENDS, answer)


def _given(given: Given) -> Given:
    return _checks.instance("checking an answer", "given", given, Given, "ktlslab.course.after.made")
