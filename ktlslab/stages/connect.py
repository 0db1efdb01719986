"""Stage 1, connect: from a host and a port to a connected TCP socket, connected through io_uring.

The socket stays blocking and both ends of the later stages share it: the handshake's driver, the kernel's keys, the
transfer. Nagle's algorithm is switched off, in every arm alike.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import Any

from ktlslab._closing import Closing
from ktlslab._html import card
from ktlslab.errors import ConnectError, PeerTimeoutError, UnknownHostError, UsageError, errno_name
from ktlslab.linux.engines import Engine, EngineName, RingEngine, SyscallEngine
from ktlslab.linux.ring import Ring

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection(Closing):
    """A connected TCP socket and the engine that moves its bytes. A context manager: leaving it closes both."""

    host: str
    port: int
    peer: tuple[Any, ...]
    local: tuple[Any, ...]
    socket: socket.socket
    engine: Engine

    @property
    def target(self) -> str:
        return f"{self.host}:{self.port}"

    def close(self) -> None:
        self.socket.close()
        self.engine.close()

    def __repr__(self) -> str:
        state = "closed" if self.socket.fileno() < 0 else f"fd {self.socket.fileno()}"
        return f"Connection({self.target} at {self.peer[0]}, {state}, {self.engine.name})"

    def _repr_html_(self) -> str:
        rows = [("peer", f"{self.peer[0]} port {self.peer[1]}"), ("local", f"{self.local[0]} port {self.local[1]}")]
        rows += [("descriptor", str(self.socket.fileno())), ("I/O engine", self.engine.name)]
        return card(f"Connection to {self.target}", rows)


def connect(
    address: Address, *, io_engine: EngineName = "uring", ring: Ring | None = None, timeout: float | None = 10.0
) -> Connection:
    """Connect to (host, port), trying each of the host's addresses in turn.

    `timeout` in seconds bounds this and every later wait on the connection; None waits for ever. A `ring` that is
    passed in is used and left open. Raises UnknownHostError, ConnectError, PeerTimeoutError, RingUnavailableError.
    """
    host, port = address
    if not 0 < port < 65536:
        raise UsageError(f"connecting to {host}", answered=f"{port} is no port", remedy="Ports are 1 to 65535.")
    tried = f"connecting to {host}:{port}"
    with contextlib.ExitStack() as undo:
        engine = make_engine(io_engine, ring, timeout)
        undo.callback(engine.close)
        failure: OSError | None = None
        for family, kind, protocol, _, sockaddr in _resolve(host, port):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                engine.connect(sock, sockaddr)
            except OSError as error:
                sock.close()
                failure = error
                continue
            except BaseException:
                sock.close()
                raise
            undo.pop_all()
            peer, local = sock.getpeername(), sock.getsockname()
            return Connection(host=host, port=port, peer=peer, local=local, socket=sock, engine=engine)
    if isinstance(failure, TimeoutError):
        remedy = "Is the host up, and does a firewall drop the packets? A longer timeout may do."
        raise PeerTimeoutError(tried, answered=f"no answer within {timeout} s", remedy=remedy) from failure
    answered = errno_name(failure.errno or 0) if failure else "no address"
    raise ConnectError(tried, answered=answered, remedy="Does a server listen there?") from failure


def make_engine(io_engine: EngineName, ring: Ring | None, timeout: float | None) -> Engine:
    """Return the engine of that name. RingUnavailableError where io_uring cannot be had."""
    if io_engine == "uring":
        return RingEngine(ring, timeout)
    if io_engine == "syscall":
        return SyscallEngine(timeout)
    raise UsageError("choosing an I/O engine", answered=f"there is no {io_engine!r}", remedy="Choose uring or syscall.")


def _resolve(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        answered = getattr(error, "strerror", None) or str(error)
        remedy = "Check the spelling, and that this machine's name resolution works."
        raise UnknownHostError(f"looking up {host!r}", answered=answered, remedy=remedy) from error
