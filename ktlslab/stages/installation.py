"""Stage 4, install: the kernel takes over the record layer.

This takes three setsockopt calls: attach the tls module (TCP_ULP), hand over TLS_TX, hand over TLS_RX. Each direction
can be installed alone. Another socket is tried first (`linux.capabilities`), so a refusal leaves this one unchanged. A
refusal is a result, not an exception: `Refused` gives the step, the reason and the errno.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from ktlslab import _checks
from ktlslab._html import card
from ktlslab.errors import PeerTimeoutError, StreamError, UsageError, errno_name
from ktlslab.linux import capabilities, ktls
from ktlslab.linux.counters import Counters
from ktlslab.linux.engines import RingEngine
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer, Operation, transfer
from ktlslab.stages.connection import STREAM, Connection
from ktlslab.stages.keys import BOTH, DirectionKeys, TrafficKeys, named
from ktlslab.stages.transfer.sides import push_all
from ktlslab.tls.suites import Suite

ATTACH = "setsockopt(TCP_ULP)"
LIMIT = "setsockopt(SOL_TLS, TLS_TX_MAX_PAYLOAD_LEN)"


class Why(Enum):
    """Why the kernel or io_uring is not used. The value is a sentence for people."""

    NO_TLS_MODULE = "this kernel has no tls module"
    CIPHER_REFUSED = "this kernel's tls module does not have this cipher"
    VERSION_REFUSED = "this kernel's tls module does not take this version and cipher"
    SUITE_UNKNOWN = "no kernel has a cipher type for the negotiated suite"
    RECORDS_LIMITED = "the peer accepts only smaller records, to which this kernel cannot be limited"
    NOT_ESTABLISHED = "the connection is not established"
    KERNEL_REFUSED = "the kernel refused for another reason"
    NO_RING_SETSOCKOPT = "this kernel's io_uring has no setsockopt"
    NO_IO_URING = "io_uring is not available"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What the kernel accepted.

    As proof, `counters` holds the changes in /proc/net/tls_stat, and `sequence` the numbers read back from the kernel.
    """

    suite: Suite
    directions: tuple[Direction, ...]
    counters: Counters = field(repr=False)
    sequence: dict[Direction, int]

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Installed({self.suite.name}, {' and '.join(direction.name for direction in self.directions)})"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [
            (f"{direction.name} sequence number", n) for direction, n in self.sequence.items()
        ]
        rows += [(f"tls_stat {name}", f"+{value}") for name, value in self.counters.values.items()]
        return card(f"Installed: the kernel has {self.suite.name}", rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The kernel refused at this step. The session is intact, and can continue in userspace.

    `directions` are those that the kernel took before it refused, which cannot be undone: give them to `Stream`.
    """

    step: str
    reason: Why
    errno: int
    directions: tuple[Direction, ...] = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        taken = f"; the kernel has {self._taken}" if self.directions else ""
        return f"Refused({self.reason.name} at {self.step}: {errno_name(self.errno)}{taken})"

    @property
    def _taken(self) -> str:
        return " and ".join(direction.name for direction in self.directions)

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [("step", self.step), ("errno", errno_name(self.errno))]
        rows += [("the kernel has", self._taken)] if self.directions else []
        return card(f"Refused: {self.reason.value}", rows)


def kernel_suites() -> tuple[Suite, ...]:
    """Return every suite that this kernel takes in both directions, ARIA and SM4 included if it has them.

    Use it as `ClientConfig(suites=...)`; the default offers only the usual ciphers. The first call can take seconds,
    because the kernel searches for a module for each missing cipher. The answers are kept for the life of the process.
    """
    return tuple(
        suite
        for suite in Suite
        if all(capabilities.accepts(suite.version.wire, suite.cipher.kernel_type, direction) for direction in Direction)
    )


def install(
    connection: Connection, keys: TrafficKeys, directions: Sequence[Direction] = BOTH, *, wipe: bool = True
) -> Installed | Refused:
    """Hand the keys of these directions to the kernel, and if `wipe` is true, wipe them in this process.

    A refusal by the kernel is returned, not raised. Raises UsageError, before anything is done, for a connection that
    is closed or has a Stream, for wiped keys, and wherever a nonce would be used twice: if the kernel has keys of one
    of these directions, or if the keys or their sequence number are not this session's.
    """
    tried = "installing keys"
    directions = _ready(tried, connection, keys, directions)
    if (refused := _asked_before(keys, directions)) is not None:  # a refusal is false
        return refused
    before = Counters.read()
    taken: list[Direction] = []
    step = ATTACH
    try:
        if not ktls.attached(connection.socket):
            ktls.attach(connection.socket)
        for direction in directions:
            step = _step(direction)
            _set_keys(tried, connection, keys, direction)
            taken.append(direction)
            _limit_records(connection, keys, direction)
            if wipe:
                keys.of(direction).wipe()
    except OSError as error:
        number = error.errno or errno.EIO
        return Refused(step=step, reason=_reason(number), errno=number, directions=tuple(taken))
    return _installed(connection, keys, directions, before)


def install_linked(
    connection: Connection,
    keys: TrafficKeys,
    directions: Sequence[Direction] = BOTH,
    *,
    first: Buffer = b"",
    wipe: bool = True,
) -> Installed | Refused:
    """Install keys by one io_uring submission that links TCP_ULP, TLS_TX, TLS_RX and the first send.

    `first` is sent as the first record, which requires TX. Returns Refused if the kernel's io_uring has no setsockopt
    (it was added in 6.7); use `install` then. Raises UsageError if the connection has no ring, or a ring with fewer
    entries than there are operations, and where `install` does; PeerTimeoutError if the chain did not finish in time;
    and StreamError if the kernel took the keys but `first` could not be sent.
    """
    tried = "installing by linked operations"
    directions = _ready(tried, connection, keys, directions)
    _checks.instance(tried, "first", first, (bytes, bytearray, memoryview), "the contents of the first record")
    engine = connection.engine
    if not isinstance(engine, RingEngine):
        raise UsageError(tried, answered=f"the I/O engine is {engine.name}", remedy="Connect with io_engine='uring'.")
    if len(first) and Direction.TX not in directions:
        raise UsageError(tried, answered="a first send needs TX", remedy="Install TX as well, or send later.")
    answer = capabilities.uring_setsockopt()
    if capabilities.ulp() and not answer:
        return Refused(step="probing IORING_OP_URING_CMD", reason=Why.NO_RING_SETSOCKOPT, errno=answer.errno)
    if (asked := _asked_before(keys, directions)) is not None:  # a refusal is false
        return asked
    if Direction.TX in directions and _record_limit(keys):
        answered = "the peer accepts only smaller records"
        raise UsageError(tried, answered=answered, remedy="Use `install`, which tells the kernel before the first.")
    before = Counters.read()
    results = _submit(connection, keys, directions, first, tried)
    refused = _refused_step(results, directions)
    taken = directions if refused is None else refused.directions
    _settle(connection, keys, directions, taken, wipe=wipe)
    if refused is not None:
        return refused
    done = _installed(connection, keys, directions, before)
    if len(first):
        if results[-1] < 0:
            answered = f"the keys were taken, but the first send failed: {errno_name(-results[-1])}"
            raise StreamError(tried, answered=answered, remedy="Open a new session.")
        push_all(connection, engine.sender(connection.socket), first, results[-1])
    return done


def _ready(
    tried: str, connection: Connection, keys: TrafficKeys, directions: Sequence[Direction]
) -> tuple[Direction, ...]:
    """Return the directions without duplicates, if their keys may be installed on this connection now."""
    _checks.instance(tried, "connection", connection, Connection, "connect or accept makes one")
    _checks.instance(tried, "keys", keys, TrafficKeys, "export makes them")
    chosen = named(tried, directions)
    for direction in chosen:
        connection.ready(tried, _stage(direction))
    connection.ready(tried, STREAM)
    for direction in chosen:
        if ktls.installed(connection.socket, direction):
            answered = f"the kernel already has {direction.name} keys for this socket"
            remedy = "Keys are installed once, since a second time each nonce would be used again: make the Stream."
            raise UsageError(tried, answered=answered, remedy=remedy)
        _check_keys(tried, connection, keys.of(direction), direction)
    return chosen


def _check_keys(tried: str, connection: Connection, keys: DirectionKeys, direction: Direction) -> None:
    """Raise UsageError unless the next record of this direction is the one that these keys are for."""
    answered, remedy = "", "Install the keys that `export` returned for this connection."
    origin = keys.origin
    if keys.key.wiped:
        answered = f"the {direction.name} keys were wiped, by an earlier install or by wipe()"
        remedy = "Keys are installed once; a new session has new ones."
    elif origin and origin.handshake.connection is not connection:
        answered = f"the {direction.name} keys are of another connection, {origin.handshake.connection!r}"
    elif origin and origin.direction is not direction:
        answered = f"the {direction.name} keys are those of {origin.direction.name}"
    elif not keys.current:
        answered = f"the {direction.name} keys are for record {keys.sequence}, and the session has gone on since"
        remedy = "Export again, right before installing."
    if answered:
        raise UsageError(tried, answered=answered, remedy=remedy)


def _set_keys(tried: str, connection: Connection, keys: TrafficKeys, direction: Direction) -> None:
    """Give the kernel one direction's keys. OSError if it refuses; it may then be tried again."""
    connection.begin(tried, _stage(direction))
    packed = keys.of(direction).crypto_info().pack()
    try:
        ktls.set_keys(connection.socket, direction, packed)
    except OSError:
        connection.undo(_stage(direction))
        raise
    finally:
        packed[:] = bytes(len(packed))


def _submit(
    connection: Connection,
    keys: TrafficKeys,
    directions: tuple[Direction, ...],
    first: Buffer,
    tried: str,
) -> list[int]:
    """Run the chain and return the result of each operation."""
    engine = connection.engine
    assert isinstance(engine, RingEngine)  # noqa: S101 - looked at before
    for direction in directions:
        connection.begin(tried, _stage(direction))
    packed = [keys.of(direction).crypto_info().pack() for direction in directions]
    try:
        return transfer(engine.ring, _chain(connection, directions, packed, first), timeout=engine.timeout)
    except TimeoutError as error:
        answered = f"not done within {engine.timeout} s; what was installed is unknown"
        raise PeerTimeoutError(tried, answered=answered, remedy="Open a new session.") from error
    except OSError as error:
        _settle(connection, keys, directions, (), wipe=False)
        remedy = "Give the ring more entries than there are operations in the chain."
        raise UsageError(tried, answered=errno_name(error.errno or 0), remedy=remedy) from error
    finally:
        for info in packed:
            info[:] = bytes(len(info))


def _chain(
    connection: Connection, directions: tuple[Direction, ...], packed: list[bytearray], first: Buffer
) -> list[Operation]:
    """Return the operations. Each one starts after the previous one has succeeded."""
    fd = connection.socket.fileno()
    operations = [Operation.setsockopt(fd, socket.IPPROTO_TCP, ktls.TCP_ULP, ktls.ULP_NAME.encode(), linked=True)]
    for number, (direction, info) in enumerate(zip(directions, packed, strict=True), 1):
        more = number < len(directions) or len(first) > 0
        operations.append(Operation.setsockopt(fd, ktls.SOL_TLS, direction.value, info, linked=more))
    return [*operations, Operation.send(fd, first)] if len(first) else operations


def _refused_step(results: list[int], directions: tuple[Direction, ...]) -> Refused | None:
    """Return the refusal that the chain's results tell of, after which the rest was cancelled."""
    for at, (step, result) in enumerate(zip([ATTACH, *map(_step, directions)], results, strict=False)):
        if result < 0:
            return Refused(step=step, reason=_reason(-result), errno=-result, directions=directions[: max(0, at - 1)])
    return None


def _settle(
    connection: Connection,
    keys: TrafficKeys,
    directions: tuple[Direction, ...],
    taken: tuple[Direction, ...],
    *,
    wipe: bool,
) -> None:
    """Wipe the keys of the directions that the kernel has taken; the others may be tried again."""
    for direction in directions:
        if direction not in taken:
            connection.undo(_stage(direction))
        elif wipe:
            keys.of(direction).wipe()


def _asked_before(keys: TrafficKeys, directions: tuple[Direction, ...]) -> Refused | None:
    """Return the kernel's refusal on another socket, or None."""
    suite = keys.suite
    limited = Direction.TX in directions and _record_limit(keys) and capabilities.ulp()
    if limited and not (told := capabilities.max_payload()):
        return Refused(step=f"probing {LIMIT}", reason=Why.RECORDS_LIMITED, errno=told.errno)
    for direction in directions:
        answer = capabilities.accepts(suite.version.wire, suite.cipher.kernel_type, direction)
        if not answer:
            step = _step(direction) if capabilities.ulp() else ATTACH
            return Refused(step=f"probing {step}", reason=_reason(answer.errno), errno=answer.errno)
    return None


def _record_limit(keys: TrafficKeys) -> int | None:
    """Return how many bytes the peer lets a record of ours hold, if fewer than usual."""
    return keys.tx.origin.handshake.record_limit if keys.tx.origin else None


def _limit_records(connection: Connection, keys: TrafficKeys, direction: Direction) -> None:
    if direction is Direction.TX and (limit := _record_limit(keys)):
        ktls.set_max_payload(connection.socket, limit)


def _installed(
    connection: Connection, keys: TrafficKeys, directions: tuple[Direction, ...], before: Counters
) -> Installed:
    """Read back the proof."""
    kind = keys.suite.cipher.kernel_type
    sequence = {direction: ktls.sequence_number(connection.socket, direction, kind) for direction in directions}
    return Installed(suite=keys.suite, directions=directions, counters=Counters.read() - before, sequence=sequence)


def _stage(direction: Direction) -> str:
    return f"install of {direction.name}"


def _step(direction: Direction) -> str:
    return f"setsockopt(SOL_TLS, TLS_{direction.name})"


def _reason(number: int) -> Why:
    if not capabilities.ulp():
        return Why.NO_TLS_MODULE
    reasons = {errno.ENOENT: Why.CIPHER_REFUSED, errno.EINVAL: Why.VERSION_REFUSED, errno.ENOTCONN: Why.NOT_ESTABLISHED}
    return reasons.get(number, Why.KERNEL_REFUSED)
