"""The faults, and how they are applied to a stream of bytes, without I/O.

`Fault` describes one fault. `Way` applies it to one direction of one connection: it splits the bytes into TLS records
(which needs no key, because their headers are clear text), finds the end of the handshake, and counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ktlslab import _checks
from ktlslab.tls.records import HEADER_BYTES, ContentType, RecordHeader

if TYPE_CHECKING:
    from collections.abc import Iterator

End = Literal["client", "server"]
Kind = Literal[
    "flip", "drop", "replay", "swap", "delay", "stall", "truncate", "reset", "length", "replace", "insert", "pad"
]
Part = Literal["type", "version", "length", "ciphertext", "tag"]

TAG_BYTES = 16
_MAX_NUMBER = 1 << 62
_STARTS: dict[str, int] = {"type": 0, "version": 1, "length": 3, "ciphertext": HEADER_BYTES, "tag": -TAG_BYTES}
_CONTENT_TYPES = frozenset(ContentType)
_SAYS_TLS13 = b"\x00\x2b\x00\x02\x03\x04"  # ServerHello's supported_versions (RFC 8446, 4.2.1)


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of damage to the bytes that go `towards` one end.

    flip      one bit: the `bit`-th of `part`, each byte's lowest first. In TLS 1.2 the ciphertext of GCM and CCM begins
              with the explicit nonce; the tag is the last 16 bytes.
    drop      the record does not arrive            replay    it arrives twice
    swap      it arrives after the next one         delay     it and everything after it arrive `seconds` later
    stall     neither it nor anything after it arrives, not even FIN; the connection stays open
    truncate  its first `keep` bytes arrive, then FIN         reset     the same, then RST, at both ends
    length    the header's length field says `length`; the payload is left as it is
    insert    `data` arrives before it              replace   `data` arrives in its place
    pad       it and all later ones carry `padding` more zero bytes (TLS 1.3); needs `Relay.give_keys`

    `record` counts from 0, after the handshake (in TLS 1.3 session tickets come first) or, with `handshake`, from the
    connection's first record. If `byte` is given, the fault applies to the record that holds that byte, and flip,
    truncate and reset apply exactly there. UsageError for a kind that is not listed here.
    """

    kind: Kind
    towards: End = "client"
    record: int = 0
    byte: int | None = None
    handshake: bool = False
    part: Part = "ciphertext"
    bit: int = 0
    keep: int = 0
    seconds: float = 1.0
    length: int = 0
    data: bytes = b""
    padding: int = 0

    def __post_init__(self) -> None:
        tried = "describing a fault"
        for name, value, words in (
            ("kind", self.kind, Kind),
            ("towards", self.towards, End),
            ("part", self.part, Part),
        ):
            _checks.word(tried, name, value, get_args(words))
        for name in ("record", "bit", "keep", "length", "padding"):
            _checks.whole(tried, name, getattr(self, name), 0, _MAX_NUMBER)
        _checks.optional(_checks.whole, tried, "byte", self.byte, 0, _MAX_NUMBER)
        _checks.instance(tried, "handshake", self.handshake, bool)
        _checks.number(tried, "seconds", self.seconds, 0, _checks.MAX_SECONDS)
        _checks.instance(tried, "data", self.data, bytes)


class Mark:
    """What can happen to an end other than receiving bytes."""


FIN, RESET = Mark(), Mark()


@dataclass(frozen=True, slots=True)
class ToPad:
    record: bytes
    number: int  # counted from the end of the handshake, as an offset to the sequence number there


Action = bytes | float | Mark | ToPad


class Way:
    """One direction of one connection. Bytes go in; bytes, seconds to wait and ends come out."""

    def __init__(self, towards: End, fault: Fault | None) -> None:
        self.towards = towards
        self.fault = fault if fault and fault.towards == towards else None
        self.from_start = bool(fault and fault.handshake)
        self.other: Way
        self.seen = 0  # records from where the fault counts
        self.applied = self.over = self.stalled = False  # over: nothing more passes
        self.tls13 = self.traffic = False
        self._offset = 0
        self._changed_cipher = False
        self._tls = True
        self._buffer = bytearray()
        self._held = b""  # the record held back by swap

    def feed(self, data: bytes) -> Iterator[Action]:
        """Take received bytes, b"" for the end; yield what to do to the receiving end."""
        self._buffer += data
        while not self.over and (piece := self._next(last=not data)):
            if self.traffic or self.from_start or not self._tls:
                yield from self._counted(piece)
            else:
                yield piece
            self._watch(piece)
        if not data and not self.over:
            self.over = True
            if self._held:
                yield self._held
            yield FIN

    def _next(self, *, last: bool) -> bytes:
        """Return the next whole record, or all bytes if they are not TLS or the end has come."""
        whole = len(self._buffer)
        self._tls = self._tls and (not self._buffer or self._buffer[0] in _CONTENT_TYPES)
        if self._tls and not last:
            if whole < HEADER_BYTES:
                return b""
            try:
                size = HEADER_BYTES + RecordHeader.parse(bytes(self._buffer[:HEADER_BYTES])).length
            except ValueError:
                self._tls = False
            else:
                if whole < size:
                    return b""
                whole = size
        piece = bytes(self._buffer[:whole])
        del self._buffer[:whole]
        return piece

    def _watch(self, record: bytes) -> None:
        """Find the end of the handshake without a key (RFC 5246, 7.3; RFC 8446, 2).

        In TLS 1.2 it is the record after ChangeCipherSpec. In TLS 1.3 it is the client's first encrypted record, after
        which the server's handshake is over as well.
        """
        if self.traffic or not self._tls:
            return
        kind = record[0]
        if kind == ContentType.HANDSHAKE and _SAYS_TLS13 in record and self.towards == "client":
            self.tls13 = self.other.tls13 = True
        if self.tls13:
            if self.towards == "server" and kind == ContentType.APPLICATION_DATA:
                self.traffic = self.other.traffic = True
        else:
            self.traffic = self._changed_cipher
            self._changed_cipher = kind == ContentType.CHANGE_CIPHER_SPEC

    def _counted(self, piece: bytes) -> Iterator[Action]:
        fault, start, number = self.fault, self._offset, self.seen
        self._offset += len(piece)
        self.seen += 1
        if self._held:
            piece, self._held = piece + self._held, b""
        hit = fault and (
            start <= fault.byte < self._offset
            if fault.byte is not None
            else number == fault.record or (fault.kind == "pad" and number > fault.record)
        )
        if not fault or not hit:
            yield piece
            return
        self.applied = True
        yield from self._struck(fault, piece, number, None if fault.byte is None else fault.byte - start)

    def _struck(  # noqa: C901 - one arm for each kind
        self, fault: Fault, piece: bytes, number: int, at: int | None
    ) -> Iterator[Action]:
        match fault.kind:
            case "flip":
                start = _STARTS[fault.part] % len(piece) if at is None else at
                changed = bytearray(piece)
                changed[(start + fault.bit // 8) % len(piece)] ^= 1 << fault.bit % 8
                yield bytes(changed)
            case "replay":
                yield piece
                yield piece
            case "swap":
                self._held = piece
            case "delay":
                yield float(fault.seconds)
                yield piece
            case "stall":
                self.over = self.stalled = True
            case "truncate" | "reset":
                self.over = True
                yield piece[: fault.keep if at is None else at]
                yield FIN if fault.kind == "truncate" else RESET
            case "length":
                yield piece[:3] + fault.length.to_bytes(2, "big") + piece[HEADER_BYTES:]
            case "insert" | "replace":
                yield fault.data
                if fault.kind == "insert":
                    yield piece
            case "pad":
                self.applied = False  # until it is done
                yield ToPad(piece, number)
