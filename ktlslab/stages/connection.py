"""Stage 1: from a host and a port, or from a listening socket, to a connected TCP socket.

The socket stays blocking, and all later stages use it. Nagle's algorithm is off in every arm.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ktlslab import _checks
from ktlslab._closing import Closing
from ktlslab._html import card
from ktlslab.errors import ConnectError, PeerTimeoutError, UsageError, errno_name
from ktlslab.linux import capabilities, forks
from ktlslab.linux.engines import Engine, RingEngine, SyscallEngine
from ktlslab.linux.ring import Ring
from ktlslab.stages.addresses import connect_to_one, resolve

# `auto` uses io_uring if it is available; `uring` requires it.
EngineChoice = Literal["auto", "uring", "syscall"]
HANDSHAKE, STREAM = "handshake", "Stream"  # stages


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection(Closing):
    """A connected TCP socket and its I/O engine. A context manager: leaving it closes both."""

    host: str
    port: int
    peer: tuple[Any, ...]
    local: tuple[Any, ...]
    socket: socket.socket
    engine: Engine
    # Each stage that has begun, and the process in which it did; a list of its own for each, to tell who was first.
    _begun: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def ready(self, tried: str, stage: str = "") -> None:
        """Raise UsageError on a closed connection, and for a stage that has already begun on this one.

        The same in a forked process for a connection on which the parent has begun: a second user of a session's state
        would protect two records with one nonce.
        """
        if self.closed:
            answered, remedy = "this connection is closed", "Run the stages inside its `with` block."
            raise UsageError(tried, answered=answered, remedy=remedy)
        for owner in {process for (process,) in self._begun.copy().values()} - {os.getpid()}:
            remedy = "Go on there, or connect again here."
            raise UsageError(tried, answered=forks.belongs("the session", owner), remedy=remedy)
        if stage in self._begun:
            raise self._repeated(tried, stage)

    def begin(self, tried: str, stage: str) -> None:
        """Record that a stage begins on this connection. Raises what `ready` raises.

        Of two threads that begin the same, one gets through.
        """
        self.ready(tried, stage)
        mine = [os.getpid()]
        if self._begun.setdefault(stage, mine) is not mine:
            raise self._repeated(tried, stage)

    def begun(self, stage: str) -> bool:
        """Whether a stage has begun on this connection."""
        return stage in self._begun

    def undo(self, stage: str) -> None:
        """Record that a stage that began had no effect, so that it may be tried again."""
        del self._begun[stage]

    @staticmethod
    def _repeated(tried: str, stage: str) -> UsageError:
        remedy = "Connect again: a connection goes through each stage once."
        return UsageError(tried, answered=f"{stage} was already called on this connection", remedy=remedy)

    @property
    def closed(self) -> bool:
        return self.socket.fileno() < 0

    @property
    def target(self) -> str:
        return f"{self.host}:{self.port}"

    def close(self) -> None:
        self.socket.close()
        self.engine.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd {self.socket.fileno()}"
        return f"Connection({self.target} at {self.peer[0]}, {state}, {self.engine.name})"

    def _repr_html_(self) -> str:
        rows = [("peer", f"{self.peer[0]} port {self.peer[1]}"), ("local", f"{self.local[0]} port {self.local[1]}")]
        rows += [("descriptor", str(self.socket.fileno())), ("I/O engine", self.engine.name)]
        return card(f"Connection to {self.target}", rows)


def connect(
    host: str,
    port: int = 443,
    *,
    io_engine: EngineChoice = "auto",
    ring: Ring | None = None,
    timeout: float | None = 10.0,
) -> Connection:
    """Connect to a host's port, by the first of the host's addresses that answers (RFC 8305).

    `io_engine`: auto uses io_uring if it is available, uring requires it. `timeout` in seconds bounds this call, and
    each later one on the connection, as a whole; None waits for ever. A `ring` passed in is used, and is not closed
    with the connection. Raises UnknownHostError, ConnectError, PeerTimeoutError, RingUnavailableError, UsageError.
    """
    _look_at_host(host)
    _checks.whole(f"connecting to {host}", "port", port, 1, 65535)
    tried = f"connecting to {host}:{port}"
    with contextlib.ExitStack() as undo:
        engine = make_engine(io_engine, ring, timeout)
        undo.callback(engine.close)
        began = time.monotonic()
        addresses = resolve(host, port, timeout)
        try:
            sock = connect_to_one(engine, addresses, began)
        except TimeoutError as error:
            remedy = "Is the host up, or does a firewall drop the packets? A longer timeout may help."
            raise PeerTimeoutError(tried, answered=f"no answer within {timeout} s", remedy=remedy) from error
        except OSError as error:
            answered = errno_name(error.errno or 0)
            raise ConnectError(tried, answered=answered, remedy="Does a server listen there?") from error
        undo.pop_all()
        peer, local = sock.getpeername(), sock.getsockname()
        return Connection(host=host, port=port, peer=peer, local=local, socket=sock, engine=engine)


def accept(
    listener: socket.socket,
    *,
    io_engine: EngineChoice = "auto",
    ring: Ring | None = None,
    timeout: float | None = 10.0,
) -> Connection:
    """Accept one connection on a listening TCP socket, such as `socket.create_server` makes.

    Arguments as for `connect`. Raises ConnectError, PeerTimeoutError (no client connected), RingUnavailableError,
    UsageError.
    """
    _look_at_listener(listener)
    tried = f"accepting a connection on {listener.getsockname()[:2]}"
    with contextlib.ExitStack() as undo:
        engine = make_engine(io_engine, ring, timeout)
        undo.callback(engine.close)
        try:
            sock = engine.accept(listener)
        except TimeoutError as error:
            raise PeerTimeoutError(tried, answered=f"no client connected within {timeout} s") from error
        except OSError as error:
            remedy = "Is the socket listening, and still open?"
            raise ConnectError(tried, answered=errno_name(error.errno or 0), remedy=remedy) from error
        undo.callback(sock.close)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer, local = sock.getpeername(), sock.getsockname()
        undo.pop_all()
    return Connection(host=peer[0], port=peer[1], peer=peer, local=local, socket=sock, engine=engine)


def make_engine(io_engine: EngineChoice, ring: Ring | None, timeout: float | None) -> Engine:
    """Return the engine of that name. RingUnavailableError if io_uring is required but not available."""
    tried = "choosing an I/O engine"
    _checks.word(tried, "io_engine", io_engine, get_args(EngineChoice))
    timeout = _checks.seconds(tried, "timeout", timeout)
    _checks.optional(_checks.instance, tried, "ring", ring, Ring)
    if io_engine == "syscall" or (io_engine == "auto" and ring is None and not capabilities.io_uring()):
        return SyscallEngine(timeout)
    return RingEngine(ring, timeout)


def _look_at_host(host: str) -> None:
    """Raise UsageError unless this is a host name or an address; the common mistake is HOST:PORT in one string."""
    tried, remedy = "connecting", 'Give the host and the port separately: connect("localhost", 443).'
    if not isinstance(host, str):
        _checks.refuse(tried, "host", host, remedy)
    if "\0" in host:
        raise UsageError(tried, answered=f"there is no host {host!r}", remedy=remedy)
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise UsageError(f"connecting to {host}", answered="this is not a host name", remedy=remedy) from None


def _look_at_listener(listener: socket.socket) -> None:
    """Raise UsageError unless this is an open TCP socket."""
    tried, remedy = "accepting a connection", 'Make one: socket.create_server(("127.0.0.1", 0)).'
    _checks.instance(tried, "listener", listener, socket.socket, "socket.create_server makes one")
    if listener.fileno() < 0:
        raise UsageError(tried, answered="the listening socket is closed", remedy=remedy)
    if listener.family not in {socket.AF_INET, socket.AF_INET6} or listener.type != socket.SOCK_STREAM:
        raise UsageError(tried, answered="`listener` is not a TCP socket", remedy=remedy)
