"""Passing to the TLS library what the kernel received: session tickets, and KeyUpdates that the library must answer.

The kernel returns post-handshake messages to ktlslab. But only the library can turn a ticket into a session, because
the resumption secret never leaves it, and only the library can answer a KeyUpdate if it makes the records that this end
sends. Its receiving side is still where the kernel took over. So each message is encrypted again as the next record
that the library expects, and fed to it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ktlslab.stages.config import ClientConfig, Resumption
from ktlslab.stages.keys import traffic_secrets
from ktlslab.stages.transfer.memory import InMemory
from ktlslab.stages.transfer.userspace import Userspace
from ktlslab.tls.keyschedule import next_traffic_secret, traffic_key
from ktlslab.tls.protect import seal
from ktlslab.tls.records import ContentType, HandshakeType
from ktlslab.tls.suites import Version

if TYPE_CHECKING:
    from ktlslab.stages.connection import Connection
    from ktlslab.stages.handshaking import Handshake


class Library:
    """The TLS library of a handshake, after the kernel took its receiving keys."""

    def __init__(self, connection: Connection, handshake: Handshake) -> None:
        self._connection, self._handshake = connection, handshake
        self._secret = traffic_secrets(handshake)[1] if handshake.version is Version.TLS13 else b""
        self._sequence = handshake.machine.sequence_numbers[1]
        self._fed = 0

    @functools.cached_property
    def sender(self) -> Userspace | InMemory:
        """The sending side, if the library makes the records that this end sends; and what messages are fed to."""
        if self._handshake.machine.library.name == "rustls":
            return InMemory(self._connection, self._handshake)
        return Userspace(self._connection, self._handshake, alone=False)

    def told(self, message: bytes) -> None:
        """Feed one post-handshake message to the library."""
        suite = self._handshake.suite
        assert suite is not None  # noqa: S101 - the kernel has it
        key, write_iv = traffic_key(self._secret, suite)
        with self.sender.apart:
            self.sender.tell(seal(suite, key, write_iv, self._sequence, ContentType.HANDSHAKE, message))
            self._sequence += 1
        if message[0] == HandshakeType.KEY_UPDATE:
            self._secret, self._sequence = next_traffic_secret(self._secret, suite), 0

    def resumption(self, tickets: list[bytes]) -> Resumption | None:
        """Return what a later session can resume, from the received tickets; None if there is none yet."""
        for ticket in tickets[self._fed :]:
            self.told(ticket)
        self._fed = len(tickets)
        return resumption(self._handshake)


def resumption(handshake: Handshake) -> Resumption | None:
    """Return the library's own session for resumption; None if it gives none, in TLS 1.3 until a ticket has arrived."""
    session = handshake.machine.library.session
    former = handshake.config if isinstance(handshake.config, ClientConfig) else None
    return Resumption(session, handshake.server_name, former) if session else None
