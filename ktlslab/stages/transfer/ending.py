"""A close that loses nothing: close_notify, then FIN, then a wait for the peer's end.

A socket that is closed with unread bytes in it (TLS 1.3's session tickets are enough) resets the connection, and what
had been sent but not yet arrived is lost. So what the peer still sends is read away first.
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

LINGER_S = 1.0  # how long the peer's end is waited for


def farewell(condition: Condition) -> None:
    """Tell the peer that this was all, and wait for its end. A peer that is gone needs no farewell."""
    sock = condition.connection.socket
    with contextlib.suppress(OSError, SSL.Error):
        if not condition.failure and condition.layers[Direction.TX] != "plain":
            condition.sender.close_notify()
        sock.shutdown(socket.SHUT_WR)
        if not condition.ended and not condition.failure:
            _linger(sock)


def _linger(sock: socket.socket) -> None:
    """Throw away what the peer still sends, up to its end or the time's."""
    waste = bytearray(MAX_PLAINTEXT)
    deadline = time.monotonic() + LINGER_S
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        # Room for a type, so that kTLS hands out control records too.
        count, control, _, _ = sock.recvmsg_into([waste], ktls.RECORD_TYPE_SPACE)
        if not count or (control and control[0][2][0] == ContentType.ALERT):
            return
