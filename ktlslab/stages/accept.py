"""Stage 1 of the other end, accept: from a listening socket to a connected one, accepted through io_uring."""

from __future__ import annotations

import contextlib
import socket

from ktlslab.errors import ConnectError, PeerTimeoutError, errno_name
from ktlslab.linux.engines import EngineName
from ktlslab.linux.ring import Ring
from ktlslab.stages.connect import Connection, make_engine


def accept(
    listener: socket.socket,
    *,
    io_engine: EngineName = "uring",
    ring: Ring | None = None,
    timeout: float | None = 10.0,
) -> Connection:
    """Accept one connection on a listening TCP socket, such as `socket.create_server` makes.

    Arguments as for `connect`. Raises ConnectError, PeerTimeoutError (no one came), RingUnavailableError.
    """
    tried = f"accepting a connection on {listener.getsockname()[:2]}"
    with contextlib.ExitStack() as undo:
        engine = make_engine(io_engine, ring, timeout)
        undo.callback(engine.close)
        try:
            sock = engine.accept(listener)
        except TimeoutError as error:
            raise PeerTimeoutError(tried, answered=f"no one came within {timeout} s") from error
        except OSError as error:
            remedy = "Is the socket listening, and still open?"
            raise ConnectError(tried, answered=errno_name(error.errno or 0), remedy=remedy) from error
        undo.callback(sock.close)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer, local = sock.getpeername(), sock.getsockname()
        undo.pop_all()
    return Connection(host=peer[0], port=peer[1], peer=peer, local=local, socket=sock, engine=engine)
