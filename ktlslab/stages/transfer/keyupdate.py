"""New keys in the middle of a session (KeyUpdate, RFC 8446 4.6.3), with the kernel making the records.

Each direction changes for itself: its sender says so in a last record under the old key, and both ends move on to the
next traffic secret (7.2), sequence number 0. The kernel reads no handshake message. It hands a KeyUpdate to whoever
asks for record types, then (6.14 and later) holds the receiver until it is given the next key by the same setsockopt
as before. Kernels before that refuse the second setsockopt with EBUSY, and there it must be known beforehand: once the
KeyUpdate has left, the stream cannot go on. So it is tried on another socket first (`linux.capabilities.rekey`).

The kernel checks nothing: a key set twice, or without a KeyUpdate before it, ends the stream. Nor does it count, so the
limit of RFC 8446 5.5 on what one key may protect is kept here, by the kernel's own sequence number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab.errors import KeyUpdateError, errno_name
from ktlslab.linux import capabilities, ktls
from ktlslab.linux.ktls import Direction
from ktlslab.stages.keys import DirectionKeys, Secret, traffic_secrets
from ktlslab.tls.keyschedule import next_traffic_secret, traffic_key
from ktlslab.tls.records import HandshakeType
from ktlslab.tls.suites import Version

if TYPE_CHECKING:
    from ktlslab.stages.connection import Connection
    from ktlslab.stages.handshaking import Handshake

UPDATE_NOT_REQUESTED, UPDATE_REQUESTED = 0, 1


def key_update(*, request_peer: bool) -> bytes:
    """Return the message (RFC 8446, 4.6.3)."""
    return bytes([HandshakeType.KEY_UPDATE, 0, 0, 1, UPDATE_REQUESTED if request_peer else UPDATE_NOT_REQUESTED])


class KeyUpdates:
    """The keys that follow those which the kernel has, and how many times each direction has changed."""

    def __init__(self, connection: Connection, handshake: Handshake) -> None:
        assert handshake.suite is not None  # noqa: S101 - keys of an unknown suite are in no kernel
        self.suite = handshake.suite
        self.generation = dict.fromkeys(Direction, 0)
        self._connection = connection
        self._next: dict[Direction, Secret] = {}
        if handshake.version is Version.TLS13:
            secrets = dict(zip((Direction.TX, Direction.RX), traffic_secrets(handshake), strict=True))
            self._next = {
                direction: Secret(next_traffic_secret(secret, self.suite)) for direction, secret in secrets.items()
            }

    def check(self, tried: str) -> None:
        """Raise KeyUpdateError where this session cannot change its keys; nothing has happened then."""
        if not self._next:
            remedy = "Open a new session; TLS 1.3 can."
            raise KeyUpdateError(tried, answered="TLS 1.2 has no KeyUpdate", remedy=remedy)
        if not (answer := capabilities.rekey()):
            answered = f"this kernel does not take new keys on a socket that has keys ({errno_name(answer.errno)})"
            raise KeyUpdateError(tried, answered=answered, remedy="Linux 6.14 and later do; else userspace TLS.")

    def install(self, direction: Direction, tried: str) -> None:
        """Give the kernel this direction's next keys. KeyUpdateError: it refused, and the direction is lost."""
        secret = self._next[direction].reveal()
        key, write_iv = (Secret(part) for part in traffic_key(secret, self.suite))
        generation = self.generation[direction] + 1
        keys = DirectionKeys(suite=self.suite, key=key, write_iv=write_iv, sequence=0, generation=generation)
        packed = keys.crypto_info().pack()
        try:
            ktls.set_keys(self._connection.socket, direction, packed)
        except OSError as error:
            answered = f"the kernel refused the new {direction.name} key: {errno_name(error.errno or 0)}"
            raise KeyUpdateError(tried, answered=answered, remedy="Open a new session.") from error
        finally:
            packed[:] = bytes(len(packed))
            keys.wipe()
        self._next[direction].wipe()
        self._next[direction] = Secret(next_traffic_secret(secret, self.suite))
        self.generation[direction] = generation

    def records(self, direction: Direction) -> int:
        """How many records the kernel has protected, or opened, under the present key. OSError: it is not in there."""
        return ktls.sequence_number(self._connection.socket, direction, self.suite.cipher.kernel_type)

    def wipe(self) -> None:
        """Overwrite the secrets that were kept for later."""
        for secret in self._next.values():
            secret.wipe()
