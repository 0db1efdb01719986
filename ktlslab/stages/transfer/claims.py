"""What a Stream is told of its connection, checked with the kernel before anything is sent.

A direction that the kernel is wrongly thought to protect would carry clear text, and so would one that nobody protects
after a handshake. One that the kernel protects without the stream's knowledge would carry records within records. So
the kernel is asked once, by getsockopt(2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.stages.connection import HANDSHAKE, STREAM, Connection

if TYPE_CHECKING:
    from ktlslab.stages.handshaking import Handshake

_TRIED = "making a Stream"


def begin(connection: Any, handshake: Any, kernel: Any, record_limit: Any) -> None:
    """Begin the stage on this connection. UsageError for arguments that do not belong together, or are not so."""
    if not isinstance(connection, Connection):
        remedy = "Give what `connect` or `accept` returned."
        raise UsageError(_TRIED, answered=f"a {type(connection).__name__} is not a Connection", remedy=remedy)
    if connection.socket.fileno() < 0:
        answered = "the connection is closed"
        raise UsageError(_TRIED, answered=answered, remedy="Connect again; a Stream closes its connection when closed.")
    if handshake is not None and getattr(handshake, "connection", None) is not connection:
        remedy = "Give what `handshake(connection)` returned for this connection."
        raise UsageError(_TRIED, answered=f"{handshake!r} is not the handshake of this connection", remedy=remedy)
    if not isinstance(kernel, tuple) or not all(isinstance(direction, Direction) for direction in kernel):
        remedy = "Give a tuple of directions, such as `install(...).directions`."
        raise UsageError(_TRIED, answered=f"kernel is {kernel!r}", remedy=remedy)
    _checks.optional(_checks.whole, _TRIED, "record_limit", record_limit, 1)
    connection.ready(_TRIED)
    for direction in Direction:
        _check(connection, handshake, direction, claimed=direction in kernel)
    if handshake is None and connection.begun(HANDSHAKE) and (bare := [d.name for d in Direction if d not in kernel]):
        answered = f"a handshake was begun on this connection, and {' and '.join(bare)} would carry clear text"
        remedy = "Give what `handshake` returned as well; for plain bytes, connect without a handshake."
        raise UsageError(_TRIED, answered=answered, remedy=remedy)
    connection.begin(_TRIED, STREAM)


def _check(connection: Connection, handshake: Handshake | None, direction: Direction, *, claimed: bool) -> None:
    """Raise UsageError unless the kernel has keys exactly where that is claimed, and those of this session."""
    held = ktls.installed(connection.socket, direction)
    suite = handshake.suite if handshake else None
    if claimed and not held:
        answered = f"the kernel has no {direction.name} keys for this socket, which would carry clear text"
    elif held and not claimed:
        answered = f"the kernel has the {direction.name} keys of this socket, which `kernel` does not name"
    elif held and handshake and held != (suite and (suite.version.wire, suite.cipher.kernel_type)):
        answered = f"the {direction.name} keys that the kernel has are not those of {handshake!r}"
    else:
        return
    remedy = "Give the `directions` of what `install` returned, Installed or Refused."
    raise UsageError(_TRIED, answered=answered, remedy=remedy)
