"""Telling the TLS library what the kernel received: tickets to resume with, a KeyUpdate that it is to answer.

The kernel hands post-handshake messages to us, while the library alone can make a session of a ticket (the resumption
secret never leaves it), and answers a KeyUpdate where it makes the records that we send. Its receiving side still
stands where the kernel took over. So each message is protected once more, as the library expects its next record, and
fed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ktlslab.stages.config import ClientConfig, Resumption
from ktlslab.stages.keys import traffic_secrets
from ktlslab.tls.keyschedule import next_traffic_secret, traffic_key
from ktlslab.tls.protect import seal
from ktlslab.tls.records import ContentType, HandshakeType
from ktlslab.tls.suites import Version

if TYPE_CHECKING:
    from ktlslab.stages.handshaking import Handshake


class Library:
    """The library behind a handshake, whose receiving keys the kernel has by now."""

    def __init__(self, handshake: Handshake) -> None:
        self._handshake = handshake
        self._secret = traffic_secrets(handshake)[1] if handshake.version is Version.TLS13 else b""
        self._sequence = handshake.machine.sequence_numbers[1]
        self._fed = 0

    def told(self, message: bytes) -> None:
        """Let the library take in one post-handshake message."""
        suite, machine = self._handshake.suite, self._handshake.machine
        assert suite is not None  # noqa: S101 - the kernel has it
        key, write_iv = traffic_key(self._secret, suite)
        machine.library.bio_write(seal(suite, key, write_iv, self._sequence, ContentType.HANDSHAKE, message))
        self._sequence += 1
        with contextlib.suppress(SSL.WantReadError):
            machine.library.recv(1)
        if message[0] == HandshakeType.KEY_UPDATE:
            self._secret, self._sequence = next_traffic_secret(self._secret, suite), 0

    def resumption(self, tickets: list[bytes]) -> Resumption | None:
        """Return what a later session can resume, made of the tickets that came; None where there is nothing yet."""
        for ticket in tickets[self._fed :]:
            self.told(ticket)
        self._fed = len(tickets)
        return resumption(self._handshake)


def resumption(handshake: Handshake) -> Resumption | None:
    """Return what the library itself has to resume with. TLS 1.3 has nothing before a ticket came."""
    session = handshake.machine.library.get_session()
    former = handshake.config if isinstance(handshake.config, ClientConfig) else None
    return Resumption(session, handshake.server_name, former) if session else None
