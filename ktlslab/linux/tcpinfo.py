"""What TCP reports about a connection: struct tcp_info of linux/tcp.h, by getsockopt(TCP_INFO) (tcp(7))."""

from __future__ import annotations

import socket
import struct

CLOSED = 7  # TCP_CLOSE of include/net/tcp_states.h: TCP has given the connection up
_BYTES_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received
_BYTES_SENT = struct.Struct("=200xQQ")  # tcpi_bytes_sent, tcpi_bytes_retrans (kernel 4.19)


def state(sock: socket.socket) -> int:
    """Return the connection's state, a number of include/net/tcp_states.h."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def moved(sock: socket.socket) -> tuple[int, int]:
    """Return the bytes of payload (sent, received) since the connection was opened. Retransmissions do not count."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_SENT.size)
    sent, again = _BYTES_SENT.unpack(info)
    return sent - again, _BYTES_RECEIVED.unpack_from(info)[0]
