"""Pictures of records: those of a handshake in their order, and one record taken apart to its last byte.

A record's header is never encrypted, so that much can be said of any record. What is inside a protected one is shown by
opening it with `ktlslab.tls.protect`, by hand: for the handshake's own records with the handshake's traffic secrets,
which never protect application bytes; for application records with the keys that the caller passes in.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from ktlslab.errors import UsageError
from ktlslab.show.html import (
    HUES,
    MONO,
    ROW,
    SMALL,
    Html,
    Picture,
    code,
    markup,
    picture,
    plural,
    prose,
    shown,
    strip,
    table,
)
from ktlslab.tls import keylog
from ktlslab.tls.alerts import Alert
from ktlslab.tls.keyschedule import traffic_key
from ktlslab.tls.protect import open_record
from ktlslab.tls.records import HEADER_BYTES, ContentType, Record, RecordHeader, RecordSplitter, describe
from ktlslab.tls.suites import Suite, Version

if TYPE_CHECKING:
    from ktlslab.stages import Connection, DirectionKeys, Handshake

_HANDSHAKE_SECRETS = {
    "sent": keylog.CLIENT_HANDSHAKE_TRAFFIC_SECRET,
    "received": keylog.SERVER_HANDSHAKE_TRAFFIC_SECRET,
}
_WAYS = {"sent": "client → server", "received": "client ← server"}
_VERSION = {  # RFC 5246, 6.2.1; RFC 8446, 5.2 and D: fixed, authenticated, and it no longer names the version
    Version.TLS12: "TLS 1.2",
    Version.TLS13: "0x0303 in TLS 1.3 as well, where it no longer names the version",
}
_TAG = {  # the additional data: RFC 5246, 6.2.3.3; RFC 8446, 5.2, where the nonce brings in the number (5.3)
    Version.TLS12: "proves that ciphertext, number, type, version and length are those of the sender",
    Version.TLS13: "proves that ciphertext, number and header are those of the sender",
}
_LENGTH = {  # GCM, CCM and ChaCha20 add nothing but the tag; RFC 8446, 5.2: TLSInnerPlaintext
    Version.TLS12: "as long as the plaintext",
    Version.TLS13: "as long as the plaintext, its type and its padding",
}
_READ = {
    Version.TLS12: "In a first TLS 1.2 handshake only Finished is protected (RFC 5246, 7.4.9): that is what it holds.",
    Version.TLS13: "What it holds was read with the handshake's own traffic secrets, which protect no application data "
    "(RFC 8446, 7.3).",
}
_CHANGE_CIPHER_SPEC = {
    Version.TLS12: "one byte, 1: from here on this direction is protected (RFC 5246, 7.1)",
    Version.TLS13: "one byte, 1; in TLS 1.3 it is there only for middleboxes (RFC 8446, D.4)",
}
_FIRST = 6  # payload bytes in the list of records: a hello's type, length and version


def records(handshake: Handshake) -> Picture:
    """Show the handshake's records in order: who sent each, its header, its first bytes, and what it holds."""
    rows = []
    lines = []
    for number, (direction, record, inside) in enumerate(_opened(handshake), start=1):
        kind = ContentType(record.header.content_type).name.lower()
        header, start = record.raw[:HEADER_BYTES], record.payload[:_FIRST]
        hue = "hello" if inside is None else "cipher"
        more = " …" if len(record.payload) > _FIRST else ""
        rows.append(
            (
                str(number),
                _WAYS[direction],
                kind,
                f"{record.header.length:,}",
                _mono(_tinted("header", header.hex(" ")), _tinted(hue, start.hex(" ") + more)),
                "no" if inside is None else "yes",
                inside if inside is not None else _clear(record, handshake.version),
            )
        )
        lines.append(f"{number}. {_WAYS[direction]} {describe(record)}")
    head = ("", "direction", "type", "payload bytes", "header, first payload bytes", "encrypted", "holds")
    key = prose(
        Html(
            f'<span style="{SMALL};opacity:0.8">Grey: the five bytes of the header (type, version, length). Green: a '
            "payload in the clear. Blue: a protected payload. "
            f"{_READ[handshake.version]}</span>"
        )
    )
    return picture(f"The records of {handshake!r}", table(head, rows, numbers=(0, 3)), key, text="\n".join(lines))


def application_records(handshake: Handshake, seen: Iterable[Record], direction: str) -> list[tuple[int, Record]]:
    """Return (sequence number, record) of what followed the handshake, among all records that one end sent.

    `direction` is "sent" or "received", from the client's side.
    """
    if direction not in _WAYS:
        raise UsageError("picking records", answered=f"there is no {direction!r}", remedy="Choose sent or received.")
    before = sum(one == direction for one, _ in handshake.machine.transcript)
    first = 1 if handshake.version is Version.TLS12 else 0  # TLS 1.2's Finished was number 0 under these keys
    return list(enumerate(list(seen)[before:], start=first))


def waiting(connection: Connection, timeout: float = 1.0) -> list[Record]:
    """Return the whole records that lie in the socket's queue, and leave them there; waits `timeout` seconds for one.

    Only before the kernel has the keys: afterwards a peek sees decrypted bytes.
    """
    sock = connection.socket
    splitter = RecordSplitter()
    if select.select([sock], [], [], timeout)[0]:
        splitter.feed(sock.recv(1 << 17, socket.MSG_PEEK))
    return list(splitter)


def record_bytes(
    raw: bytes | Record,
    suite: Suite | None = None,
    key: bytes | None = None,
    write_iv: bytes | None = None,
    sequence: int = 0,
) -> Picture:
    """Show one record as it was on the wire, each part named, and with key and write IV its plaintext.

    `write_iv` is the direction's 12 bytes (TLS 1.2: its fixed part). The key itself is not shown.
    """
    data = raw.raw if isinstance(raw, Record) else bytes(raw)
    header = RecordHeader.parse(data[:HEADER_BYTES])
    kind = ContentType(header.content_type).name.lower()
    fields = [
        shown("type", data[:1], "header", f"{kind}, in the clear"),
        shown("version", data[1:3], "header", _VERSION[suite.version] if suite else "of the record layer"),
        shown("length", data[3:5], "header", f"{header.length:,} bytes follow"),
    ]
    payload = data[HEADER_BYTES:]
    if suite is None:
        fields.append(shown("payload", payload, "cipher"))
        return picture(f"A record of {plural(len(data), 'byte')}", strip(fields))
    cipher = suite.cipher
    explicit = cipher.explicit_nonce_bytes if suite.version is Version.TLS12 else 0
    sealed, tag = payload[explicit : -cipher.tag_bytes], payload[-cipher.tag_bytes :]
    if explicit:
        fields.append(
            shown(
                "explicit nonce",
                payload[:explicit],
                "nonce",
                "the 8 of the nonce's 12 bytes that are sent (RFC 5288, 3)",
            )
        )
    fields.append(shown("ciphertext", sealed, "cipher", f"{cipher.name}, {_LENGTH[suite.version]}"))
    fields.append(shown("tag", tag, "tag", _TAG[suite.version]))
    parts = [strip(fields)]
    title = f"A record of {plural(len(data), 'byte')} on the wire"
    if key is None or write_iv is None:
        return picture(title, *parts)
    content_type, plain = open_record(suite, key, write_iv, sequence, data)
    parts.append(_inside(suite, sealed, plain, content_type, sequence))
    return picture(title, *parts, text=f"{title}: {holds(content_type, plain)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A record that was opened by hand: its sequence number, its true type, its plaintext."""

    number: int
    content_type: ContentType
    plain: bytes = field(repr=False)


def opened(keys: DirectionKeys, numbered: Iterable[tuple[int, Record]]) -> list[Opened]:
    """Open records by hand with a direction's keys, which must not have been wiped. ValueError: one does not open."""
    key, write_iv = keys.key.reveal(), keys.write_iv.reveal()
    return [
        Opened(number=number, content_type=kind, plain=plain)
        for number, record in numbered
        for kind, plain in [open_record(keys.suite, key, write_iv, number, record.raw)]
    ]


def contents(records_opened: Iterable[Opened]) -> Picture:
    """Show what opened records hold, one per line."""
    rows, lines = [], []
    for one in records_opened:
        start = one.plain[:ROW].hex(" ") + (" …" if len(one.plain) > ROW else "")
        kind, said = one.content_type.name.lower(), holds(one.content_type, one.plain)
        rows.append((str(one.number), kind, f"{len(one.plain):,}", _mono(_tinted("plain", start)), said))
        lines.append(f"{one.number}. {kind}: {said}")
    head = ("number", "true type", "bytes", "first bytes, opened", "holds")
    return picture("Records opened by hand", table(head, rows, numbers=(0, 2)), text="\n".join(lines))


def application_data(records_opened: Iterable[Opened]) -> bytes:
    """Return what opened records carry for the application, in their order."""
    return b"".join(one.plain for one in records_opened if one.content_type == ContentType.APPLICATION_DATA)


def holds(content_type: int, plain: bytes) -> str:
    """Say in a few words what an opened record holds."""
    size = plural(len(plain), "byte")
    if content_type == ContentType.HANDSHAKE:
        header = RecordHeader(content_type=content_type, legacy_version=0x0303, length=len(plain))
        said = describe(Record(header=header, payload=plain)).partition(": ")[2]
        return said.replace("_", " ") or f"{size} of a handshake message"
    if content_type == ContentType.ALERT and len(plain) == 2:
        return f"the alert {Alert.parse(plain)}"
    return f"{size} of {ContentType(content_type).name.lower().replace('_', ' ')}"


def _inside(suite: Suite, sealed: bytes, plain: bytes, content_type: int, sequence: int) -> str:
    """Set the ciphertext and what it hides side by side, byte under byte."""
    inner = plain
    hidden = ""
    if suite.version is Version.TLS13:
        inner = plain + bytes([content_type])
        hidden = (
            f" The last byte that is not zero, {code(f'{content_type:02x}')} or {content_type:d} in decimal, is the "
            f"record's true type, {ContentType(content_type).name.lower()}: TLS 1.3 does not show it on the wire. "
            "Zeros behind it would be padding (RFC 8446, 5.4)."
        )
    says = prose(
        Html(f"Opened by hand with key, write IV and number {sequence}: {markup(holds(content_type, plain))}.{hidden}")
    )
    return says + side_by_side(sealed, inner)


def side_by_side(sealed: bytes, inner: bytes, most: int = 9) -> str:
    """Return ciphertext, plaintext and its letters in lines of sixteen; lines beyond `most` are folded away."""
    width = ROW * 3 - 1
    lines = [f'<span style="opacity:0.7">{"":4} {"ciphertext":<{width}} {"opened":<{width}} as text</span>']
    for at in range(0, len(inner), ROW):
        letters = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in inner[at : at + ROW])
        left, right = (f"{part[at : at + ROW].hex(' '):<{width}}" for part in (sealed, inner))
        lines.append(f"{at:04x} {_tinted('cipher', left)} {_tinted('plain', right)} {escape(letters)}")
    style = f"{MONO};font-size:0.8em;overflow-x:auto"  # so that a line fits beside JupyterLab's file browser
    body = f'<div style="{style}">' + "\n".join(lines[:most]) + "</div>"
    if lines[most:]:
        rest = "\n".join(lines[most:])
        body += (
            f'<details><summary style="{SMALL};cursor:pointer">{plural(len(lines) - most, "more line")}</summary>'
            f'<div style="{style}">{rest}</div></details>'
        )
    return body


def _mono(*parts: str) -> Html:
    return Html(f'<span style="{MONO}">{" ".join(parts)}</span>')


def _tinted(hue: str, text: str) -> str:
    return f'<span style="background-color:{HUES[hue]}">{text}</span>'


def _clear(record: Record, version: Version) -> str:
    if record.header.content_type == ContentType.CHANGE_CIPHER_SPEC:
        return _CHANGE_CIPHER_SPEC[version]
    return describe(record).partition(": ")[2].replace("_", " ")


def _opened(handshake: Handshake) -> Iterator[tuple[str, Record, str | None]]:
    """Yield each record of the handshake with what was inside if it was protected, None if it travelled in clear."""
    protected = dict.fromkeys(_WAYS, False)
    numbers = dict.fromkeys(_WAYS, 0)
    for direction, record in handshake.machine.transcript:
        kind = record.header.content_type
        if handshake.version is Version.TLS12:
            yield direction, record, "finished, under the application keys, number 0" if protected[direction] else None
            protected[direction] |= kind == ContentType.CHANGE_CIPHER_SPEC
        elif kind == ContentType.APPLICATION_DATA:
            yield direction, record, _handshake_message(handshake, direction, record, numbers[direction])
            numbers[direction] += 1
        else:
            yield direction, record, None


def _handshake_message(handshake: Handshake, direction: str, record: Record, number: int) -> str:
    line = handshake.secrets.get(_HANDSHAKE_SECRETS[direction])
    if line is None or handshake.suite is None:
        return "not opened: its keys are unknown"
    key, write_iv = traffic_key(line.secret, handshake.suite)
    try:
        return holds(*open_record(handshake.suite, key, write_iv, number, record.raw))
    except ValueError:
        return "not opened: protected with other keys"
