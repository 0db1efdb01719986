"""What a peer may send after the handshake besides data, where the kernel decrypts and OpenSSL does not see it.

| message | TLS 1.2, client | TLS 1.2, server | TLS 1.3, client | TLS 1.3, server |
|---|---|---|---|---|
| close_notify | clean end | clean end | clean end | clean end |
| user_canceled, no_renegotiation | ignored | ignored | ignored | ignored |
| another warning | ignored (RFC 5246, 7.2.2) | ignored | error (RFC 8446, 6) | error |
| fatal alert | error | error | error | error |
| HelloRequest | no_renegotiation | error | error | error |
| ClientHello | error | no_renegotiation | error | error |
| NewSessionTicket | error | error | kept | error |
| KeyUpdate | error | error | new keys | new keys |
| any other | error | error | error (no post-handshake authentication is offered) | error |

Each error but that of an alert is told to the peer by the alert unexpected_message. This is what OpenSSL does as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from ktlslab.errors import StreamError
from ktlslab.tls.alerts import AlertDescription, AlertLevel
from ktlslab.tls.records import ContentType, HandshakeType
from ktlslab.tls.suites import Version

if TYPE_CHECKING:
    from ktlslab.stages.handshaking import Handshake
    from ktlslab.tls.alerts import Alert

_MAX_IN_A_ROW = 5  # OpenSSL's MAX_WARN_ALERT_COUNT: what only costs time may not come for ever
_REFUSAL = bytes([AlertLevel.WARNING, AlertDescription.NO_RENEGOTIATION])


class Manners:
    """What may come, by version and role. Without a handshake, keys were installed by hand: tickets may come.

    `send_record` sends the refusal to renegotiate; a client that cannot send it may ignore the request instead
    (RFC 5246, 7.4.1.1).
    """

    def __init__(
        self, handshake: Handshake | None = None, send_record: Callable[[bytes, int], int] | None = None
    ) -> None:
        self._tls12 = handshake is not None and handshake.version is Version.TLS12
        self._client = handshake is None or handshake.role == "client"
        self._send_record = send_record
        self._warnings = 0
        self.tickets = self._client and not self._tls12
        self.renegotiation: HandshakeType | None = None
        if self._tls12:
            self.renegotiation = HandshakeType.HELLO_REQUEST if self._client else HandshakeType.CLIENT_HELLO

    def mere_warning(self, alert: Alert) -> bool:
        """Whether an alert that is not harmless by its name is only a warning."""
        if not self._tls12 or alert.level != AlertLevel.WARNING:
            return False
        self._count("warnings")
        return True

    def decline(self) -> None:
        """Answer a request for a new handshake by no_renegotiation."""
        self._count("requests for a new handshake")
        if self._client:
            with contextlib.suppress(OSError, StreamError):
                self._refuse()
        else:
            self._refuse()

    def _refuse(self) -> None:
        if self._send_record:
            self._send_record(_REFUSAL, ContentType.ALERT)

    def _count(self, what: str) -> None:
        self._warnings += 1
        if self._warnings >= _MAX_IN_A_ROW:
            raise StreamError("receiving", answered=f"the peer sent {self._warnings} {what}", remedy="Is it in order?")
