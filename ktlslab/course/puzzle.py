"""A made-up session to solve exercises on: its keys are random, were never negotiated and protect nothing.

The server has sent five records under its application keys, from number 0 on: two session tickets, data, a padded
handshake message, close_notify. OpenSSL's servers begin in this way.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from ktlslab.show.html import MONO, ROW, Html, card, hexes
from ktlslab.tls.keyschedule import WRITE_IV_BYTES
from ktlslab.tls.protect import seal
from ktlslab.tls.records import HEADER_BYTES, ContentType
from ktlslab.tls.suites import Suite

SUITE = Suite.TLS_AES_128_GCM_SHA256
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CLOSE_NOTIFY = b"\x01\x00"  # RFC 8446, 6: level and description
TICKETS, DATA, PADDED, CLOSE = 2, 2, 3, 4  # how many tickets; the places of the other records


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle:
    """Keys and write IVs of both directions, and the records that the server sent, in their order.

    `inner` is what one more record held once it was opened: a padded TLSInnerPlaintext (RFC 8446, 5.4).
    """

    suite: Suite
    client_key: bytes
    client_write_iv: bytes
    server_key: bytes
    server_write_iv: bytes
    records: tuple[bytes, ...]
    inner: bytes

    def _repr_html_(self) -> str:
        rows = [(name, getattr(self, name)) for name in _SECRETS]
        rows += [(f"records[{at}]", record) for at, record in enumerate(self.records)]
        rows.append(("inner", self.inner))
        return card(
            f"Given: a made-up session, {self.suite.name}",
            [(name, Html(f'<span style="{MONO}">{_start(value)}</span>')) for name, value in rows],
        )

    def __repr__(self) -> str:
        return f"Puzzle({self.suite.name}, {len(self.records)} records of the server)"


_SECRETS = ("client_key", "client_write_iv", "server_key", "server_write_iv")


def made(seed: bytes | None = None) -> Puzzle:
    """Return a session with new keys; the same for the same seed."""
    drawn = hashlib.shake_256(os.urandom(32) if seed is None else seed).digest(4096)
    sizes = (SUITE.cipher.key_bytes, WRITE_IV_BYTES) * 2
    parts = [drawn[sum(sizes[:at]) : sum(sizes[: at + 1])] for at in range(len(sizes))]
    key, write_iv = parts[2:]
    ticket, padding = drawn[100:180], 3 + drawn[90] % 13
    message = b"\x04\x00\x00" + bytes([len(ticket)]) + ticket  # new_session_ticket (RFC 8446, 4.6.1), its body made up
    contents = (
        *((ContentType.HANDSHAKE, message, 0),) * TICKETS,
        (ContentType.APPLICATION_DATA, PAGE, 0),
        (ContentType.HANDSHAKE, message, padding),
        (ContentType.ALERT, CLOSE_NOTIFY, 0),
    )
    records = tuple(
        seal(SUITE, key, write_iv, number, kind, plain, padding=zeros)
        for number, (kind, plain, zeros) in enumerate(contents)
    )
    inner = b"ticket\x00\x00" + bytes([ContentType.HANDSHAKE]) + bytes(padding)
    secrets = dict(zip(_SECRETS, parts, strict=True))
    return Puzzle(suite=SUITE, records=records, inner=inner, **secrets)


def _start(value: bytes) -> str:
    """Return a short value's bytes; of a record its header, and how long it is."""
    if len(value) <= 2 * ROW:
        return hexes(value)
    return f"{value[:HEADER_BYTES].hex(' ')} …  {len(value)} bytes with the header"
