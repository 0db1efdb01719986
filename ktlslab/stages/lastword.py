"""Closing after an alert that is this end's last word, so that the peer hears it.

Closing a socket that holds unread bytes resets the connection, and a peer that is reset may lose what it has not read
yet: the reason why. So the sending is ended, and what the peer still sends is discarded until it closes, too.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time

DRAIN_S = 1.0  # how long a peer that has been told why may go on
_MAX_BYTES = 1 << 24
_CHUNK = 1 << 16


def let_it_be_heard(sock: socket.socket, timeout: float | None) -> None:
    """End the sending and discard what comes until the peer closes: for the time-out, DRAIN_S and 16 MiB at most."""
    seconds = DRAIN_S if timeout is None else min(timeout, DRAIN_S)
    poll, until, left = select.poll(), time.monotonic() + seconds, _MAX_BYTES
    with contextlib.suppress(OSError):  # it is gone already
        sock.shutdown(socket.SHUT_WR)
        poll.register(sock, select.POLLIN)
        while left > 0 and (wait := until - time.monotonic()) > 0 and poll.poll(wait * 1000):
            try:
                count = len(sock.recv(_CHUNK, socket.MSG_DONTWAIT))
            except BlockingIOError:  # part of a record, where the kernel decrypts
                time.sleep(0.001)
                continue
            if not count:
                return
            left -= count
