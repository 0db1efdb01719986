"""Stage 3, export: from the library's secrets to the keys that the kernel needs.

TLS 1.3 (RFC 8446, 7.3) expands the key and write IV of each direction from its application traffic secret, which the
library puts into its key log. TLS 1.2 (RFC 5246, 6.3) cuts the keys of both directions from one key block, made
from the master secret and the two randoms. The sequence number counts the records that the application keys have
protected so far, session tickets included. It cannot be recomputed, so the state machine counts it.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab._html import card
from ktlslab.errors import HandshakeError, SuiteUnsupportedError, UsageError
from ktlslab.linux import ktls
from ktlslab.linux.ktls import CryptoInfo, Direction
from ktlslab.tls import keylog
from ktlslab.tls.keyschedule import (
    WRITE_IV_BYTES,
    kernel_iv_tls12,
    key_block,
    sequence_bytes,
    split_write_iv,
    traffic_key,
)
from ktlslab.tls.records import server_random
from ktlslab.tls.suites import Suite, Version

if TYPE_CHECKING:
    from ktlslab.stages.handshaking import Handshake

BOTH = (Direction.TX, Direction.RX)


class Secret:
    """Bytes that only `reveal` shows, and that can be wiped."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = bytearray(data)

    def reveal(self) -> bytes:
        """Return the bytes. UsageError after `wipe`."""
        if not self._data:
            remedy = "Reveal it before the keys are installed, or install with wipe=False."
            raise UsageError("revealing a secret", answered="it was wiped when its keys were installed", remedy=remedy)
        return bytes(self._data)

    def wipe(self) -> None:
        """Overwrite the bytes in memory and forget them."""
        self._data[:] = bytes(len(self._data))
        self._data.clear()

    @property
    def wiped(self) -> bool:
        return not self._data

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._data, other._data)

    __hash__ = None  # type: ignore[assignment]  # mutable: it can be wiped

    def __repr__(self) -> str:
        return "<wiped>" if self.wiped else f"<{len(self)} bytes, not shown>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where keys were exported from: a session and one of its directions."""

    handshake: Handshake
    direction: Direction

    @property
    def sequence(self) -> int:
        """The number of the session's next record in this direction, as long as the library makes or opens it."""
        return self.handshake.machine.sequence_numbers[BOTH.index(self.direction)]

    @property
    def handed_over(self) -> bool:
        """Whether the kernel has the keys of this direction, and counts its records."""
        return ktls.installed(self.handshake.connection.socket, self.direction) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionKeys:
    """The keys of one direction: `key`, `write_iv` and `sequence` protect the next record.

    `write_iv` has 12 bytes in TLS 1.3 (RFC 8446, 5.3). In TLS 1.2 it is the fixed part: 4 bytes (RFC 5288, 3), or 12
    for ChaCha20-Poly1305 (RFC 7905). `generation` counts KeyUpdates. `origin` is None for keys that were not exported.
    """

    suite: Suite
    key: Secret
    write_iv: Secret
    sequence: int
    generation: int = 0
    origin: Origin | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """UsageError for a key, write IV or number that the suite cannot have. What was wiped has no length."""
        tried = "making the keys of a direction"
        suite = _checks.instance(tried, "suite", self.suite, Suite)
        _checks.whole(tried, "sequence", self.sequence, high=(1 << 64) - 1)
        iv_bytes = suite.cipher.fixed_iv_bytes if suite.version is Version.TLS12 else WRITE_IV_BYTES
        for name, secret, size in (("key", self.key, suite.cipher.key_bytes), ("write_iv", self.write_iv, iv_bytes)):
            if len(_checks.instance(tried, name, secret, Secret)) != size and not secret.wiped:
                remedy = f"With {suite.name} it has {size}. `export` returns the keys of a session."
                raise UsageError(tried, answered=f"{name} has {len(secret)} bytes", remedy=remedy)

    @property
    def current(self) -> bool:
        """Whether `sequence` is still the number of the session's next record. Always true without an `origin`."""
        origin = self.origin
        return origin is None or (
            self.sequence == origin.sequence and not origin.handed_over and not origin.handshake.machine.uncounted
        )

    def crypto_info(self) -> CryptoInfo:
        """Return the kernel's struct: the write IV split into salt and iv, the sequence number in network order.

        Raises UsageError if the keys were wiped.
        """
        cipher = self.suite.cipher
        if self.suite.version is Version.TLS12:
            write_iv = kernel_iv_tls12(self.write_iv.reveal(), self.sequence, cipher)
        else:
            write_iv = split_write_iv(self.write_iv.reveal(), cipher)
        return CryptoInfo(
            version=self.suite.version.wire,
            cipher_type=cipher.kernel_type,
            iv=write_iv.iv,
            key=self.key.reveal(),
            salt=write_iv.salt,
            rec_seq=sequence_bytes(self.sequence),
        )

    def wipe(self) -> None:
        self.key.wipe()
        self.write_iv.wipe()

    def _repr_html_(self) -> str:
        named = f" of {self.origin.direction.name}" if self.origin else ""
        rows: list[tuple[str, object]] = [("cipher", f"{self.suite.cipher.name}, {self.suite.version.label}")]
        rows += [("key", self.key), ("write IV", self.write_iv)]
        rows += [("sequence number", self.sequence), ("generation", self.generation)]
        return card(f"Keys{named}", rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficKeys:
    """The keys of both directions, as this end sees them. `target` is the peer's name, for display."""

    tx: DirectionKeys
    rx: DirectionKeys
    target: str = field(default="")

    @property
    def suite(self) -> Suite:
        return self.tx.suite

    def of(self, direction: Direction) -> DirectionKeys:
        """Return one direction's keys."""
        return self.tx if direction is Direction.TX else self.rx

    def wipe(self) -> None:
        """Overwrite all key bytes in memory."""
        self.tx.wipe()
        self.rx.wipe()

    def __repr__(self) -> str:
        wiped = [direction.name for direction in BOTH if self.of(direction).key.wiped]
        state = ["key bytes not shown", f"{''.join(wiped)} wiped", "wiped"][len(wiped)]
        return f"TrafficKeys({self.suite.name}, tx sequence {self.tx.sequence}, rx {self.rx.sequence}, {state})"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [("cipher", f"{self.suite.cipher.name}, {self.suite.version.label}")]
        for name, keys in (("TX", self.tx), ("RX", self.rx)):
            rows += [(f"{name} key", keys.key), (f"{name} write IV", keys.write_iv)]
            rows += [(f"{name} sequence number", keys.sequence), (f"{name} generation", keys.generation)]
        return card(f"TrafficKeys of {self.target}", rows)


def export(handshake: Handshake, directions: Sequence[Direction] = BOTH) -> TrafficKeys:
    """Return the traffic keys at this moment of the session.

    The keys of a direction that is not named in `directions` are returned wiped. Raises SuiteUnsupportedError if no
    kernel has a cipher type for the negotiated suite, HandshakeError if the library holds unread data or records were
    not counted, and UsageError on a closed connection or if the kernel has the keys of one of these directions, since
    it alone knows their next sequence number.
    """
    from ktlslab.stages.handshaking import Handshake  # noqa: PLC0415 - it imports OpenSSL, which keys alone do not need

    _checks.instance("exporting keys", "handshake", handshake, Handshake, "handshake makes one")
    tried = f"exporting the keys of {handshake.suite_name}"
    chosen = named(tried, directions)
    handshake.connection.ready(tried)
    for direction in chosen:
        if Origin(handshake=handshake, direction=direction).handed_over:
            remedy = "Export before installing; where the other direction is still the library's, name that one."
            answered = f"the kernel has the {direction.name} keys, and has counted on from their sequence number"
            raise UsageError(tried, answered=answered, remedy=remedy)
    suite = handshake.suite
    if suite is None:
        remedy = "Use userspace TLS, or limit the offer with ClientConfig(suites=...)."
        raise SuiteUnsupportedError(tried, answered="the kernel has no cipher type for this suite", remedy=remedy)
    if handshake.machine.library.pending():
        remedy = "Read them first: the kernel cannot take over in the middle of a record."
        raise HandshakeError(tried, answered="the library holds decrypted bytes", remedy=remedy)
    if handshake.machine.uncounted:
        remedy = "Export before the first transfer, or feed records one at a time."
        raise HandshakeError(tried, answered="some records were not counted", remedy=remedy)
    tx, rx = (
        _keys(suite, Origin(handshake=handshake, direction=direction), *(pair if direction in chosen else (b"", b"")))
        for direction, pair in zip(BOTH, first_keys(handshake), strict=True)
    )
    return TrafficKeys(tx=tx, rx=rx, target=handshake.server_name)


def named(tried: str, directions: Any) -> tuple[Direction, ...]:
    """Return the directions without duplicates. UsageError if they are none, or something else."""

    def check(tried: str, name: str, value: Any) -> Direction:
        return _checks.instance(tried, name, value, Direction, "Direction.TX, Direction.RX")

    chosen = tuple(dict.fromkeys(_checks.several(tried, "directions", directions, check)))
    if not chosen:
        raise UsageError(tried, answered="`directions` is empty", remedy="Name TX, RX or both.")
    return chosen


def _keys(suite: Suite, origin: Origin, key: bytes, write_iv: bytes) -> DirectionKeys:
    return DirectionKeys(
        suite=suite, key=Secret(key), write_iv=Secret(write_iv), sequence=origin.sequence, origin=origin
    )


def traffic_secrets(handshake: Handshake) -> tuple[bytes, bytes]:
    """Return the first application traffic secrets of TLS 1.3, as this end sees them: (TX, RX)."""
    client = handshake.secrets[keylog.CLIENT_TRAFFIC_SECRET_0].secret
    server = handshake.secrets[keylog.SERVER_TRAFFIC_SECRET_0].secret
    return (client, server) if handshake.role == "client" else (server, client)


KeyAndIv = tuple[bytes, bytes]


def first_keys(handshake: Handshake) -> tuple[KeyAndIv, KeyAndIv]:
    """Return the keys and write IVs that a handshake ends with, as this end sees them: (TX, RX)."""
    suite = handshake.suite
    assert suite is not None  # noqa: S101 - asked before
    return (_tls13 if suite.version is Version.TLS13 else _tls12)(handshake, suite)


def _tls13(handshake: Handshake, suite: Suite) -> tuple[KeyAndIv, KeyAndIv]:
    tx, rx = traffic_secrets(handshake)
    return traffic_key(tx, suite), traffic_key(rx, suite)


def _tls12(handshake: Handshake, suite: Suite) -> tuple[KeyAndIv, KeyAndIv]:
    block = key_block(*tls12_secrets(handshake), suite)
    ours, theirs = (block.client_key, block.client_iv), (block.server_key, block.server_iv)
    return (ours, theirs) if handshake.role == "client" else (theirs, ours)


def tls12_secrets(handshake: Handshake) -> tuple[bytes, bytes, bytes]:
    """Return what TLS 1.2's keys are made of: the master secret, the client's random and the server's.

    The key log has the first two. The server's stands in its hello, in the clear.
    """
    line = handshake.secrets.get(keylog.CLIENT_RANDOM)
    server = server_random(
        record
        for direction, record in handshake.machine.transcript
        if direction == ("received" if handshake.role == "client" else "sent")
    )
    if line is None or server is None:
        remedy = "Export after the handshake."
        raise HandshakeError("exporting the master secret", answered="the library has none yet", remedy=remedy)
    return line.secret, line.client_random, server
