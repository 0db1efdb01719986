"""A close that loses no data: close_notify, then FIN, then a wait until the peer closes.

Closing a socket that holds unread bytes (the session tickets of TLS 1.3 are enough) resets the connection, and data
that has not yet arrived is lost. So everything that the peer still sends is read and discarded first.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.tls.records import MAX_PLAINTEXT, ContentType

if TYPE_CHECKING:
    from ktlslab.stages.transfer.condition import Condition

LINGER_S = 1.0  # how long to wait for the peer to close


def farewell(condition: Condition) -> None:
    """Send close_notify and FIN, and wait until the peer closes. Errors are ignored: the peer may be gone."""
    sock = condition.connection.socket
    with contextlib.suppress(OSError, SSL.Error):
        if not condition.failure and condition.layers[Direction.TX] != "plain":
            condition.sender.close_notify()
        sock.shutdown(socket.SHUT_WR)
        if not condition.ended and not condition.failure:
            _linger(sock)


def _linger(sock: socket.socket) -> None:
    """Discard what the peer still sends, until it closes or LINGER_S seconds are over."""
    waste = bytearray(MAX_PLAINTEXT)
    deadline = time.monotonic() + LINGER_S
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        # With room for a record type, kTLS returns control records too.
        count, control, _, _ = sock.recvmsg_into([waste], ktls.RECORD_TYPE_SPACE)
        if not count or (control and control[0][2][0] == ContentType.ALERT):
            return
