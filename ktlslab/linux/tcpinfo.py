"""What TCP reports about a connection: struct tcp_info of linux/tcp.h, by getsockopt(TCP_INFO) (tcp(7))."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios

# States of include/net/tcp_states.h. CLOSED: TCP has given the connection up, or both ends have closed it. The others:
# this end has sent FIN (TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_TIME_WAIT, TCP_LAST_ACK, TCP_CLOSING).
CLOSED = 7
SENDING_OVER = frozenset({4, 5, 6, CLOSED, 9, 11})
_BYTES_ACKED = struct.Struct("=120xQ")  # tcpi_bytes_acked
_BYTES_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received
_NOT_SENT = struct.Struct("=144xI")  # tcpi_notsent_bytes (kernel 4.6)
_BYTES_SENT = struct.Struct("=200xQQ")  # tcpi_bytes_sent, tcpi_bytes_retrans (kernel 4.19)


def state(sock: socket.socket) -> int:
    """Return the connection's state, a number of include/net/tcp_states.h."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def unacknowledged(sock: socket.socket) -> int:
    """Return how many bytes the peer's TCP has not acknowledged yet, a FIN counting as one (SIOCOUTQ, tcp(7))."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def acknowledged(sock: socket.socket) -> int:
    """Return how many bytes the peer's TCP has acknowledged since the connection was opened, a SYN counting as one.

    Unlike `unacknowledged`, this stays true after a reset.
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    acked: int = _BYTES_ACKED.unpack(info)[0]
    return acked


def moved(sock: socket.socket) -> tuple[int, int]:
    """Return the bytes of payload (sent, received) since the connection was opened.

    Those that TCP has taken and not yet sent count as sent; retransmissions do not count.
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_SENT.size)
    sent, again = _BYTES_SENT.unpack(info)
    return sent - again + _NOT_SENT.unpack_from(info)[0], _BYTES_RECEIVED.unpack_from(info)[0]
