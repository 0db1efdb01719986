"""KeyUpdates that the peer requests (RFC 8446, 4.6.3), where the library receives and the kernel sends.

The library would answer a request with its next record. But the kernel sends, so it is the kernel's keys that must
change, and somebody must know of the request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ktlslab.tls.records import HEADER_BYTES

if TYPE_CHECKING:
    from ktlslab.linux.ring import Buffer
    from ktlslab.tls.unbuffered import UnbufferedConnection

# An encrypted KeyUpdate of TLS 1.3: 5 bytes of message, 1 of type, 16 of tag.
_KEY_UPDATE_BYTES = 22


class Requests:
    """Calls `asked` if the peer has requested a KeyUpdate."""

    def __init__(self, machine: UnbufferedConnection, asked: Callable[[], None]) -> None:
        self._machine, self._asked = machine, asked
        self._header, self._skip = b"", 0  # of the next record: the part of its header received, the bytes before it
        self._suspect = False  # a received record may be a KeyUpdate

    def took(self, wire: Buffer) -> None:
        """Find the record headers in the received bytes."""
        at, count = self._skip, len(wire)
        while at < count:
            header = self._header + wire[at : min(count, at + HEADER_BYTES - len(self._header))]
            at += len(header) - len(self._header)
            if len(header) < HEADER_BYTES:
                self._header, self._skip = bytes(header), 0
                return
            size = int.from_bytes(header[3:], "big")
            self._header = b""
            self._suspect |= size == _KEY_UPDATE_BYTES
            at += size
        self._skip = at - count

    def look(self) -> None:
        """Find out whether the library must answer a KeyUpdate, after it has read a record of that size.

        No library shows this until it writes. So it is made to write a byte, which is not sent because the kernel
        sends; its answer would precede that byte.
        """
        if not self._suspect:
            return
        self._suspect = False
        sealed = self._machine.traffic.seal(b"\0")
        if len(sealed) > HEADER_BYTES + int.from_bytes(sealed[3:5], "big"):
            self._asked()
