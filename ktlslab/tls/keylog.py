"""One line of a key log: how OpenSSL, NSS and others report a session's secrets for debugging (RFC 9850).

A line is ``LABEL CLIENT_RANDOM SECRET``, the last two in hexadecimal. TLS 1.3 libraries offer no other access to their
traffic secrets. So a handover to the kernel reads them here, and the library needs no change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# TLS 1.2: the secret is the master secret, 48 bytes.
CLIENT_RANDOM = "CLIENT_RANDOM"
# TLS 1.3 (RFC 8446 7.1): each as long as the suite's digest.
CLIENT_EARLY_TRAFFIC_SECRET = "CLIENT_EARLY_TRAFFIC_SECRET"  # noqa: S105 - a label, not a secret
CLIENT_HANDSHAKE_TRAFFIC_SECRET = "CLIENT_HANDSHAKE_TRAFFIC_SECRET"  # noqa: S105
SERVER_HANDSHAKE_TRAFFIC_SECRET = "SERVER_HANDSHAKE_TRAFFIC_SECRET"  # noqa: S105
CLIENT_TRAFFIC_SECRET_0 = "CLIENT_TRAFFIC_SECRET_0"  # noqa: S105
SERVER_TRAFFIC_SECRET_0 = "SERVER_TRAFFIC_SECRET_0"  # noqa: S105
EXPORTER_SECRET = "EXPORTER_SECRET"  # noqa: S105

# TLS 1.2 with RSA key exchange: OpenSSL also reports the premaster secret. It identifies that session by the first 8
# bytes of the encrypted premaster secret instead of the client random.
RSA = "RSA"

_HEX = "[0-9A-Fa-f]"
_LINE = re.compile(rf"([A-Z0-9_]+) ({_HEX}+) ((?:{_HEX}{{2}})+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeylogLine:
    """One secret: its `label`, the session's `client_random` (32 bytes of the ClientHello; for `RSA` 8), its bytes."""

    label: str
    client_random: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, line: str | bytes) -> KeylogLine:
        """Read one line, with or without its line end. Labels other than those above are kept.

        ValueError for anything else, comments and blank lines included. The message does not quote the line, which may
        hold a secret.
        """
        text = line.decode("ascii", "replace") if isinstance(line, bytes) else line
        found = _LINE.fullmatch(text.rstrip("\r\n"))
        if found is None or len(found[2]) != (16 if found[1] == RSA else 64):
            raise ValueError(f"not a key log line (LABEL, 64 hex digits, hex digits): {len(text)} characters")
        label, client_random, secret = found.groups()
        return cls(label=label, client_random=bytes.fromhex(client_random), secret=bytes.fromhex(secret))
