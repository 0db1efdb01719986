"""Records, which carry all bytes of TLS before, during and after a handover (RFC 8446 5.1).

A record has a header of five bytes (content type, version, length) and a payload. In TLS 1.3 the header's version is
fixed and names no protocol (5.2). The header is never encrypted. This makes a handover possible without help from the
TLS library: `RecordSplitter` finds the ends of records without a key, so a driver can feed the library exactly one
record at a time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from .alerts import ALERT_BYTES, Alert

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEADER_BYTES = 5
MAX_PLAINTEXT = 2**14
MAX_CIPHERTEXT = MAX_PLAINTEXT + 256  # TLS 1.3, RFC 8446 5.2
MAX_CIPHERTEXT_TLS12 = MAX_PLAINTEXT + 2048  # RFC 5246 6.2.3
LEGACY_VERSION = 0x0303  # in the headers of both versions

_MAX_FRAGMENT_LENGTH = 1  # the extension of RFC 6066, 4, and what its codes mean
_FRAGMENT_LENGTHS = {1: 2**9, 2: 2**10, 3: 2**11, 4: 2**12}
_HANDSHAKE_HEADER_BYTES = 4  # type, and a length of three bytes (RFC 8446 4)


class ContentType(IntEnum):
    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class HandshakeType(IntEnum):
    """RFC 8446 4 and B.3; the types that only TLS 1.2 sends (RFC 5246 7.4) are marked."""

    HELLO_REQUEST = 0  # TLS 1.2
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    END_OF_EARLY_DATA = 5
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    SERVER_KEY_EXCHANGE = 12  # TLS 1.2
    CERTIFICATE_REQUEST = 13
    SERVER_HELLO_DONE = 14  # TLS 1.2
    CERTIFICATE_VERIFY = 15
    CLIENT_KEY_EXCHANGE = 16  # TLS 1.2
    FINISHED = 20
    CERTIFICATE_STATUS = 22  # TLS 1.2
    KEY_UPDATE = 24
    MESSAGE_HASH = 254


_CONTENT_TYPES = frozenset(ContentType)
_HANDSHAKE_TYPES = frozenset(HandshakeType)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordHeader:
    """The five bytes in front of a payload of `length` bytes."""

    content_type: int
    legacy_version: int
    length: int

    @classmethod
    def parse(cls, data: bytes) -> RecordHeader:
        """Read a header from exactly five bytes (RFC 8446 5.1).

        ValueError says what is wrong: not five bytes, not TLS at all, or a length that no version of TLS allows.
        """
        if len(data) != HEADER_BYTES:
            raise ValueError(f"a record's header has {HEADER_BYTES} bytes, not {len(data)}")
        shown = f"{bytes(data)!r}" if bytes(data).isascii() else data.hex(" ")
        if data[0] not in _CONTENT_TYPES:
            raise ValueError(f"this is not TLS: no record starts with {shown} ({data[0]} is not a content type)")
        if data[1] != LEGACY_VERSION >> 8:
            raise ValueError(f"this is not TLS: a record's version starts with 3, not {data[1]} ({shown})")
        length = int.from_bytes(data[3:], "big")
        # TLS 1.2's limit, because the header does not tell the versions apart. Callers that know apply TLS 1.3's own.
        if length > MAX_CIPHERTEXT_TLS12:
            raise ValueError(f"a record of {length} bytes is too large: TLS allows {MAX_CIPHERTEXT_TLS12} at most")
        version = int.from_bytes(data[1:3], "big")
        return cls(content_type=ContentType(data[0]), legacy_version=version, length=length)

    def encode(self) -> bytes:
        """Return the five bytes on the wire. ValueError if a number does not fit its field."""
        try:
            fields = self.legacy_version.to_bytes(2, "big") + self.length.to_bytes(2, "big")
        except OverflowError as error:
            raise ValueError(f"does not fit a record's header: {self}") from error
        return bytes((self.content_type,)) + fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A whole record on the wire; `payload` is ciphertext once keys are in use."""

    header: RecordHeader
    payload: bytes

    @property
    def raw(self) -> bytes:
        """The record's bytes on the wire, header included."""
        return self.header.encode() + self.payload


class RecordSplitter:
    """Splits a stream of bytes into records, however the bytes arrive.

    `feed` takes any bytes and never fails. `next`, iteration and `needed` raise ValueError at an invalid header, and at
    every later call, because the start of the next record is then unknown.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.count: Counter[int] = Counter()
        """The number of records returned so far, by content type."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes from the wire."""
        self._buffer += data

    def next(self) -> Record | None:
        """Return the next whole record, or None if it is not complete yet."""
        header = self._header()
        if header is None or len(self._buffer) < (end := HEADER_BYTES + header.length):
            return None
        record = Record(header=header, payload=bytes(self._buffer[HEADER_BYTES:end]))
        del self._buffer[:end]
        self.count[header.content_type] += 1
        return record

    def __iter__(self) -> Iterator[Record]:
        """Yield the records that are complete now; more may be fed and iterated afterwards."""
        while (record := self.next()) is not None:
            yield record

    @property
    def pending(self) -> int:
        """The number of bytes fed and not returned; once `next` returns None, those of the incomplete record."""
        return len(self._buffer)

    @property
    def needed(self) -> int:
        """The number of bytes that complete the header or, once it is known, the record; 0: `next` has a record."""
        header = self._header()
        whole = HEADER_BYTES if header is None else HEADER_BYTES + header.length
        return max(0, whole - len(self._buffer))

    def _header(self) -> RecordHeader | None:
        if len(self._buffer) < HEADER_BYTES:
            return None
        return RecordHeader.parse(bytes(self._buffer[:HEADER_BYTES]))


def max_fragment_length(payload: bytes) -> int | None:
    """Return the length that a ClientHello or ServerHello asks for or grants (RFC 6066, 4), by its handshake record.

    None if it does not, or is no whole Hello. An encrypted record is none either: of TLS 1.3, ask the ClientHello.
    """
    hello = memoryview(payload)[_HANDSHAKE_HEADER_BYTES:]
    at = 2 + 32  # version, random
    try:
        at += 1 + hello[at]  # session id
        if payload[0] == HandshakeType.CLIENT_HELLO:
            at += 2 + int.from_bytes(hello[at : at + 2], "big")  # suites
            at += 1 + hello[at]  # compression methods
        elif payload[0] == HandshakeType.SERVER_HELLO:
            at += 3
        else:
            return None
        at += 2
        while at + 4 <= len(hello):
            kind, size = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
            if kind == _MAX_FRAGMENT_LENGTH:
                return _FRAGMENT_LENGTHS.get(hello[at + 4])
            at += 4 + size
    except IndexError:
        pass
    return None


def describe(record: Record) -> str:
    """Describe a record as far as possible without keys: ``handshake, 122 bytes: client_hello``.

    A record does not say whether it is encrypted. Application data always is. A handshake or alert record is taken as
    clear text only if its payload parses as whole messages.
    """
    kind = record.header.content_type
    size = len(record.payload)
    name = ContentType(kind).name.lower() if kind in _CONTENT_TYPES else f"unknown({kind})"
    said = f"{name}, {size} {'byte' if size == 1 else 'bytes'}"
    if kind == ContentType.CHANGE_CIPHER_SPEC:
        return said
    if kind == ContentType.ALERT and size == ALERT_BYTES:
        return f"{said}: {Alert.parse(record.payload)}"
    if kind == ContentType.HANDSHAKE:
        messages = _handshake_messages(record.payload)
        return f"{said}: {', '.join(messages)}" if messages else f"{said} (encrypted, or part of a message)"
    return f"{said} (encrypted)"


def server_random(records: Iterable[Record]) -> bytes | None:
    """Return the 32 random bytes of a ServerHello (RFC 5246, 7.4.1.3), the first message of what a server sent."""
    hello = b""
    for record in records:
        if record.header.content_type != ContentType.HANDSHAKE:
            break
        hello += record.payload
    found = hello[_HANDSHAKE_HEADER_BYTES + 2 :][:32]  # after the version
    return found if len(found) == 32 and hello[0] == HandshakeType.SERVER_HELLO else None


def _handshake_messages(payload: bytes) -> list[str]:
    """Return the names of the messages that fill `payload` exactly; none if it does not parse that way."""
    names = []
    at = 0
    while at < len(payload):
        kind = payload[at]
        end = at + _HANDSHAKE_HEADER_BYTES + int.from_bytes(payload[at + 1 : at + _HANDSHAKE_HEADER_BYTES], "big")
        if kind not in _HANDSHAKE_TYPES or at + _HANDSHAKE_HEADER_BYTES > len(payload) or end > len(payload):
            return []
        names.append(HandshakeType(kind).name.lower())
        at = end
    return names
