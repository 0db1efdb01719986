"""New keys during a session (KeyUpdate, RFC 8446 4.6.3), if the kernel makes the records.

Each direction changes its keys separately. Its sender announces the change in a last record under the old key; then
both ends use the next traffic secret (7.2) and sequence number 0. The kernel does not interpret handshake messages. It
returns a KeyUpdate to a receive that asks for record types, and then (6.14 and later) stops receiving until the same
setsockopt as before gives it the next key. Earlier kernels refuse the second setsockopt with EBUSY. That must be known
in advance, because the stream cannot continue once a KeyUpdate is sent. So another socket is tried first
(`linux.capabilities.rekey`).

The kernel checks nothing: a key set twice, or without a preceding KeyUpdate, breaks the stream. It enforces no limit
either, so ktlslab enforces the limit of RFC 8446 5.5 on what one key may protect, by the kernel's sequence number.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ktlslab.errors import KeyUpdateError, UsageError, errno_name
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
    """Return a KeyUpdate message (RFC 8446, 4.6.3)."""
    return bytes([HandshakeType.KEY_UPDATE, 0, 0, 1, UPDATE_REQUESTED if request_peer else UPDATE_NOT_REQUESTED])


class KeyUpdates:
    """The keys that follow the kernel's present ones, and how many times each direction has changed."""

    def __init__(self, connection: Connection, handshake: Handshake) -> None:
        assert handshake.suite is not None  # noqa: S101 - keys of an unknown suite are in no kernel
        self.suite = handshake.suite
        self.generation = dict.fromkeys(Direction, 0)
        self._connection = connection
        self._changing = threading.Lock()  # this end's sending keys
        self._next: dict[Direction, Secret] = {}
        if handshake.version is Version.TLS13:
            secrets = dict(zip((Direction.TX, Direction.RX), traffic_secrets(handshake), strict=True))
            self._next = {
                direction: Secret(next_traffic_secret(secret, self.suite)) for direction, secret in secrets.items()
            }

    def check(self, tried: str) -> None:
        """Raise KeyUpdateError if this session cannot change its keys. The session is not affected."""
        if not self._next:
            remedy = "Open a new session; TLS 1.3 can."
            raise KeyUpdateError(tried, answered="TLS 1.2 has no KeyUpdate", remedy=remedy)
        if not (answer := capabilities.rekey()):
            answered = f"this kernel does not take new keys on a socket that has keys ({errno_name(answer.errno)})"
            raise KeyUpdateError(tried, answered=answered, remedy="Use Linux 6.14 or later, or userspace TLS.")

    @contextlib.contextmanager
    def alone(self, tried: str) -> Iterator[None]:
        """Keep other threads from changing this end's sending keys meanwhile: UsageError in those."""
        if not self._changing.acquire(blocking=False):
            remedy = "Let one thread at a time send, and change the sending keys."
            raise UsageError(tried, answered="another thread is changing them", remedy=remedy)
        try:
            yield
        finally:
            self._changing.release()

    def install(self, direction: Direction, tried: str) -> None:
        """Give the kernel this direction's next keys. KeyUpdateError if it refuses; the direction is unusable then.

        Before the kernel is asked, the keys that follow take the place of these, so whatever interrupts this, none are
        installed twice.
        """
        secret = self._next[direction].reveal()
        key, write_iv = (Secret(part) for part in traffic_key(secret, self.suite))
        generation = self.generation[direction] + 1
        keys = DirectionKeys(suite=self.suite, key=key, write_iv=write_iv, sequence=0, generation=generation)
        self._next[direction].wipe()
        self._next[direction] = Secret(next_traffic_secret(secret, self.suite))
        self.generation[direction] = generation
        packed = keys.crypto_info().pack()
        try:
            ktls.set_keys(self._connection.socket, direction, packed)
        except OSError as error:
            answered = f"the kernel refused the new {direction.name} key: {errno_name(error.errno or 0)}"
            raise KeyUpdateError(tried, answered=answered, remedy="Open a new session.") from error
        finally:
            packed[:] = bytes(len(packed))
            keys.wipe()

    def records(self, direction: Direction) -> int:
        """Return how many records the kernel has encrypted or decrypted with the present key. OSError: it has none."""
        return ktls.sequence_number(self._connection.socket, direction, self.suite.cipher.kernel_type)

    def wipe(self) -> None:
        """Overwrite the secrets kept for the next keys."""
        for secret in self._next.values():
            secret.wipe()
