"""What the peer said before it closed: the alert that explains why a call failed.

A peer that gives up sends an alert and closes. If bytes of this end lie unread there, or come later, its TCP resets the
connection. The next call, mostly a send, fails by ECONNRESET or EPIPE, and only the alert says why. Linux keeps what
came before a reset. Kernel TLS reports the reset first, but only once, and a failed send has consumed that report.

Only a connection that TCP has given up is read from, since no receive waits there. The stream has failed by then: no
later receive would have got the data that came before the alert.
"""

from __future__ import annotations

import errno
import re
import socket
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ktlslab.errors import AlertError, KtlsLabError
from ktlslab.linux import tcpinfo
from ktlslab.tls.libraries import LibraryError

if TYPE_CHECKING:
    from ktlslab.stages.connection import Connection
    from ktlslab.stages.transfer.sides import Receiver

GONE = frozenset({errno.ECONNRESET, errno.EPIPE})
# Reasons of OpenSSL such as "unknown alert type" are its own.
_RECEIVED_ALERT = re.compile(r"\b(?:tls|tlsv1|tlsv13|sslv3) alert ([a-z ]+)")


def parting_alert(connection: Connection, receiver: Receiver, tried: str, heard: bytes = b"") -> AlertError | None:
    """Return the error for the alert that the peer sent before its TCP reset the connection, or None.

    `heard` is what was received already, for `Receiver.hear_out`.
    """
    sock = connection.socket
    if sock.fileno() < 0 or tcpinfo.state(sock) != tcpinfo.CLOSED:
        return None
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # where no call has failed yet
    try:
        receiver.hear_out(heard)
    except AlertError as error:
        return AlertError(tried, alert=error.alert, answered=error.answered)
    except (SSL.Error, LibraryError) as error:
        answered, alert = explained(error)
        return AlertError(tried, alert=alert, answered=answered) if alert else None
    except (OSError, KtlsLabError):  # nothing is left, or another thread is receiving
        pass
    return None


def explained(error: SSL.Error | LibraryError) -> tuple[str, str]:
    """Return what a library says of its failure, and the name of the peer's alert, "" if that was not the cause."""
    if isinstance(error, LibraryError):
        answered, alert = error.reason, error.alert
    else:
        reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
        answered = "; ".join(reason[2] for reason in reasons) or type(error).__name__
        # OpenSSL says "ssl/tls alert bad record mac" of a received alert; RFC 8446 calls it bad_record_mac.
        found = _RECEIVED_ALERT.search(answered)
        alert = found[1].replace(" ", "_") if found else ""
    return f"the peer sent the alert {alert}" if alert else answered, alert
