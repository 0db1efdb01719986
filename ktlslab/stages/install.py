"""Stage 4, install: the kernel takes over the record layer.

Three setsockopt calls: attach the tls module (TCP_ULP), hand over TLS_TX, hand over TLS_RX. Each direction may go
alone. What the kernel would accept is found out on another socket first (`linux.probe`), so that a refusal leaves this
one as it was. A refusal is an answer, not an exception: `Refused` says which step, why and with which errno.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from ktlslab._html import card
from ktlslab.errors import errno_name
from ktlslab.linux import ktls, probe
from ktlslab.linux.counters import Counters
from ktlslab.linux.ktls import Direction

if TYPE_CHECKING:
    from ktlslab.stages.connect import Connection
    from ktlslab.stages.export import TrafficKeys
    from ktlslab.tls.suites import Suite

BOTH = (Direction.TX, Direction.RX)


class Why(Enum):
    """Why a session does not do what was asked of it. The value is a sentence for people."""

    NO_TLS_MODULE = "this kernel has no tls module"
    CIPHER_REFUSED = "this kernel's tls module has not this cipher"
    VERSION_REFUSED = "this kernel's tls module does not take this version and cipher"
    SUITE_UNKNOWN = "no kernel has a type for the suite that was negotiated"
    NOT_ESTABLISHED = "the connection is not established"
    KERNEL_REFUSED = "the kernel refused for another reason"
    NO_IO_URING = "io_uring is not to be had"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What the kernel accepted.

    The proof: `counters` is what changed in /proc/net/tls_stat, `sequence` the numbers that the kernel reads back.
    """

    suite: Suite
    directions: tuple[Direction, ...]
    counters: Counters = field(repr=False)
    sequence: dict[Direction, int]

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Installed({self.suite.name}, {' and '.join(way.name for way in self.directions)})"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [(f"{way.name} sequence number", n) for way, n in self.sequence.items()]
        rows += [(f"tls_stat {name}", f"+{value}") for name, value in self.counters.values.items()]
        return card(f"Installed: the kernel has {self.suite.name}", rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The kernel said no, at this step; the session is as good as before and can go on in userspace."""

    step: str
    reason: Why
    errno: int
    directions: tuple[Direction, ...] = ()  # what the kernel had taken before it refused: these cannot be given back

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"Refused({self.reason.name} at {self.step}: {errno_name(self.errno)})"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [("step", self.step), ("errno", errno_name(self.errno))]
        return card(f"Refused: {self.reason.value}", rows)


def install(
    connection: Connection, keys: TrafficKeys, directions: tuple[Direction, ...] = BOTH, *, wipe: bool = True
) -> Installed | Refused:
    """Hand the keys of these directions to the kernel; on success they are wiped from this process unless told not to.

    Raises nothing for what a kernel may refuse.
    """
    suite = keys.suite
    for way in directions:
        answer = probe.accepts(suite.version.wire, suite.cipher.kernel_type, way)
        if not answer:
            step = f"setsockopt(SOL_TLS, TLS_{way.name})" if probe.ulp() else "setsockopt(TCP_ULP)"
            return Refused(step=f"probing {step}", reason=_reason(answer.errno), errno=answer.errno)
    before = Counters.read()
    taken: list[Direction] = []
    step = "setsockopt(TCP_ULP)"
    try:
        if not ktls.attached(connection.socket):
            ktls.attach(connection.socket)
        for way in directions:
            step = f"setsockopt(SOL_TLS, TLS_{way.name})"
            side = keys.tx if way is Direction.TX else keys.rx
            packed = side.crypto_info().pack()
            try:
                ktls.set_keys(connection.socket, way, packed)
            finally:
                packed[:] = bytes(len(packed))
            taken.append(way)
    except OSError as error:
        number = error.errno or errno.EIO
        return Refused(step=step, reason=_reason(number), errno=number, directions=tuple(taken))
    for way in directions if wipe else ():
        (keys.tx if way is Direction.TX else keys.rx).wipe()
    read_back = {way: ktls.sequence_number(connection.socket, way, suite.cipher.kernel_type) for way in directions}
    return Installed(suite=suite, directions=directions, counters=Counters.read() - before, sequence=read_back)


def _reason(number: int) -> Why:
    if not probe.ulp():
        return Why.NO_TLS_MODULE
    reasons = {errno.ENOENT: Why.CIPHER_REFUSED, errno.EINVAL: Why.VERSION_REFUSED, errno.ENOTCONN: Why.NOT_ESTABLISHED}
    return reasons.get(number, Why.KERNEL_REFUSED)
