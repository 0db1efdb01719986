"""Alerts: the two bytes by which a TLS peer closes the connection, or says why it fails (RFC 8446 6).

They matter most after the handover. The kernel returns an alert to the reader as a control record and does not act on
it, so the reader must distinguish a clean end (close_notify) from a truncation and from an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

ALERT_BYTES = 2


class AlertLevel(IntEnum):
    WARNING = 1
    FATAL = 2


class AlertDescription(IntEnum):
    """IANA's "TLS Alerts" registry: RFC 8446 6, and those that only RFC 5246 7.2 or earlier versions have."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    DECRYPTION_FAILED = 21  # before TLS 1.3
    RECORD_OVERFLOW = 22
    DECOMPRESSION_FAILURE = 30  # before TLS 1.3
    HANDSHAKE_FAILURE = 40
    NO_CERTIFICATE = 41  # SSL 3.0
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    EXPORT_RESTRICTION = 60  # TLS 1.0
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100  # before TLS 1.3
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    CERTIFICATE_UNOBTAINABLE = 111  # before TLS 1.3
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    BAD_CERTIFICATE_HASH_VALUE = 114  # before TLS 1.3
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


# After these the connection continues or has ended cleanly. All others, unknown ones included, are errors at any level
# (RFC 8446 6 and 6.1; no_renegotiation: RFC 5246 7.2.2).
_HARMLESS = frozenset(
    {AlertDescription.CLOSE_NOTIFY, AlertDescription.USER_CANCELED, AlertDescription.NO_RENEGOTIATION}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert. A level or description without a name is kept as a number."""

    level: int
    description: int

    @classmethod
    def parse(cls, data: bytes) -> Alert:
        """Read an alert's two bytes. ValueError if there are not two; unknown numbers are allowed."""
        if len(data) != ALERT_BYTES:
            raise ValueError(f"an alert has {ALERT_BYTES} bytes, not {len(data)}")
        return cls(level=data[0], description=data[1])

    def encode(self) -> bytes:
        """Return the two bytes on the wire. ValueError if a number does not fit a byte."""
        return bytes((self.level, self.description))

    @property
    def level_name(self) -> str:
        return AlertLevel(self.level).name.lower() if self.level in set(AlertLevel) else f"unknown({self.level})"

    @property
    def name(self) -> str:
        """The description's name in the RFCs, or ``unknown(200)`` if it has none."""
        if self.description in set(AlertDescription):
            return AlertDescription(self.description).name.lower()
        return f"unknown({self.description})"

    @property
    def is_close_notify(self) -> bool:
        """Whether the peer closed its direction cleanly. The level is ignored (RFC 8446 6)."""
        return self.description == AlertDescription.CLOSE_NOTIFY

    @property
    def fatal(self) -> bool:
        """Whether the alert ends the connection, by its level or, at any level, by RFC 8446 6."""
        return not self.is_close_notify and (self.level == AlertLevel.FATAL or self.description not in _HARMLESS)

    def __str__(self) -> str:
        return f"{self.level_name} {self.name}"
