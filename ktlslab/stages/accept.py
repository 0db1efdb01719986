"""Stage 1 of the other end, accept: from a listening socket to a connected one, accepted through io_uring."""

from __future__ import annotations

import contextlib
import socket

from ktlslab import _checks
from ktlslab.errors import ConnectError, PeerTimeoutError, UsageError, errno_name
from ktlslab.linux.ring import Ring
from ktlslab.stages.connect import Connection, EngineChoice, make_engine


def accept(
    listener: socket.socket,
    *,
    io_engine: EngineChoice = "auto",
    ring: Ring | None = None,
    timeout: float | None = 10.0,
) -> Connection:
    """Accept one connection on a listening TCP socket, such as `socket.create_server` makes.

    Arguments as for `connect`. Raises ConnectError, PeerTimeoutError (no one came), RingUnavailableError,
    UsageError.
    """
    look_at_listener(listener)
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


def look_at_listener(listener: socket.socket) -> None:
    """Refuse what is no open socket of TCP's."""
    tried, remedy = "accepting a connection", 'Make one: socket.create_server(("127.0.0.1", 0)).'
    _checks.instance(tried, "listener", listener, socket.socket, "socket.create_server makes one")
    if listener.fileno() < 0:
        raise UsageError(tried, answered="the listening socket was closed before", remedy=remedy)
    if listener.family not in {socket.AF_INET, socket.AF_INET6} or listener.type != socket.SOCK_STREAM:
        raise UsageError(tried, answered="`listener` is no TCP socket", remedy=remedy)
