"""A session: the stages run in order, with a fallback that says why.

Fallback changes who encrypts, never whether. If the kernel cannot take over, the same connection continues in userspace
behind the same `Stream`, unless the caller required the kernel. If io_uring is not available, blocking system calls
move the bytes. A certificate or protocol failure is an error.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from ktlslab import _checks
from ktlslab._closing import Closing
from ktlslab._html import card
from ktlslab.certificates import make_certificates
from ktlslab.errors import RecordLayerUnavailableError, SuiteUnsupportedError, errno_name
from ktlslab.linux.counters import Counters
from ktlslab.linux.engines import EngineName
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Ring
from ktlslab.stages.bound import Bound
from ktlslab.stages.config import ClientConfig, ServerConfig
from ktlslab.stages.connection import Connection, EngineChoice, accept, connect
from ktlslab.stages.handshaking import Handshake, handshake
from ktlslab.stages.installation import Installed, Refused, Why, install
from ktlslab.stages.keys import BOTH, export
from ktlslab.stages.transfer import Stream
from ktlslab.tls.suites import Suite

RecordLayer = Literal["auto", "plain", "userspace", "kernel", "kernel-tx", "kernel-rx"]
DIRECTIONS: dict[str, tuple[Direction, ...]] = {
    "auto": BOTH,
    "kernel": BOTH,
    "kernel-tx": (Direction.TX,),
    "kernel-rx": (Direction.RX,),
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEntry:
    """One line of a session's trace. Times are in nanoseconds of the monotonic clock."""

    stage: str
    start_ns: int
    duration_ns: int
    outcome: str


class Session(Closing):
    """An open session; a context manager. `stream` moves the bytes.

    `record_layer` and `io_engine` say what does the work. `why` holds the reason for each fallback; it is empty if
    there was none. `counters` holds the changes in /proc/net/tls_stat that opening the session caused.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        handshake: Handshake | None,
        why: tuple[Why, ...],
        trace: tuple[TraceEntry, ...],
        counters: Counters,
    ) -> None:
        self.stream = stream
        self.why = why
        self.trace = trace
        self.counters = counters
        self.handshake = handshake  # None: a plain session
        self.resumed = bool(handshake and handshake.resumed)
        self.version = handshake.version if handshake else None
        self.suite_name = handshake.suite_name if handshake else None
        self.suite = handshake.suite if handshake else None
        self.alpn = handshake.alpn if handshake else None
        self.library = handshake.machine.library.name if handshake else None  # of the handshake

    @property
    def record_layer(self) -> str:
        return self.stream.record_layer

    @property
    def io_engine(self) -> EngineName:
        return self.stream.connection.engine.name

    def close(self, *, wait: bool = True) -> None:
        """Close the stream: see `Stream.close`."""
        self.stream.close(wait=wait)

    def __repr__(self) -> str:
        given_up = f", because {' and '.join(why.value for why in self.why)}" if self.why else ""
        return f"Session({self.stream.connection.target}, {self.record_layer}+{self.io_engine}{given_up})"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [("record layer", self.record_layer), ("I/O engine", self.io_engine)]
        rows += [("because", why.value) for why in self.why]
        rows += [(step.stage, f"{step.duration_ns / 1e6:.2f} ms: {step.outcome}") for step in self.trace]
        return card(f"Session with {self.stream.connection.target}", rows)


def open_session(
    host: str,
    port: int = 443,
    *,
    config: ClientConfig | None = None,
    record_layer: RecordLayer = "auto",
    io_engine: EngineChoice = "auto",
    ring: Ring | None = None,
    timeout: float | None = 10.0,
    connect_timeout: float | None = None,
) -> Session:
    """Connect, do the TLS handshake, and let the kernel take over.

    `record_layer`: auto asks the kernel for both directions. If the kernel refuses, the session continues in userspace
    and `Session.why` gives the reason. The other values are requirements: kernel needs both directions, kernel-tx and
    kernel-rx one, userspace none; plain uses no TLS. `io_engine`: auto uses io_uring if it is available, and
    `Session.why` says if it is not; uring requires it. `timeout` in seconds bounds each later call on the session, and
    `connect_timeout` (default: the same) the opening as a whole.

    Raises what `connect` and `handshake` raise, and RecordLayerUnavailableError if the kernel does not meet a
    requirement.
    """
    _checks.word("opening a session", "record_layer", record_layer, get_args(RecordLayer))
    trace: list[TraceEntry] = []
    timeout = _checks.seconds("opening a session", "timeout", timeout)
    opening = _checks.seconds("opening a session", "connect_timeout", connect_timeout) or timeout
    began = time.monotonic()
    connection = _traced(trace, "connect", lambda: connect(host, port, io_engine=io_engine, ring=ring, timeout=opening))
    with Bound(connection, Direction.RX, began):
        return _open(trace, connection, config, record_layer, io_engine=io_engine, timeout=timeout)


def accept_session(
    listener: socket.socket,
    config: ServerConfig,
    *,
    record_layer: RecordLayer = "auto",
    io_engine: EngineChoice = "auto",
    ring: Ring | None = None,
    timeout: float | None = 10.0,
) -> Session:
    """Accept a connection on a listening socket, do the handshake as a server, and let the kernel take over.

    `config` is the server's; the other arguments, and the errors, are those of `open_session`.
    """
    tried = "accepting a session"
    _checks.word(tried, "record_layer", record_layer, get_args(RecordLayer))
    _checks.instance(tried, "config", config, ServerConfig, "what the server presents")
    trace: list[TraceEntry] = []
    connection = _traced(trace, "accept", lambda: accept(listener, io_engine=io_engine, ring=ring, timeout=timeout))
    return _open(trace, connection, config, record_layer, io_engine=io_engine, timeout=timeout)


def session_pair(
    *,
    record_layer: RecordLayer = "auto",
    io_engine: EngineChoice = "auto",
    suite: Suite | str | None = None,
    timeout: float | None = 10.0,
) -> tuple[Session, Session]:
    """Open a session over loopback between two ends in this process; return (client, server).

    The server's certificate is temporary: its files are deleted after the handshake.
    """
    suites = None if suite is None else (Suite.of(suite),)
    options: dict[str, Any] = {"record_layer": record_layer, "io_engine": io_engine, "timeout": timeout}
    with (
        tempfile.TemporaryDirectory(prefix="ktlslab-pair-") as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(1) as pool,
        contextlib.ExitStack() as undo,
    ):
        files = make_certificates(Path(folder))
        server = ServerConfig(certificate=files.chain, key=files.key, suites=suites)
        accepting = pool.submit(accept_session, listener, server, **options)
        undo.callback(listener.close)  # before the pool waits for its thread
        client = open_session(
            "localhost", listener.getsockname()[1], config=ClientConfig(ca=files.ca, suites=suites), **options
        )
        undo.callback(client.close)
        answer = accepting.result()
        undo.pop_all()
    return client, answer


def _open(
    trace: list[TraceEntry],
    connection: Connection,
    config: ClientConfig | ServerConfig | None,
    record_layer: RecordLayer,
    *,
    io_engine: EngineChoice,
    timeout: float | None,
) -> Session:
    """Run the stages that follow the first. They are the same for both roles."""
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        finished = None
        taken: tuple[Direction, ...] = ()
        changed = Counters({})
        why = [Why.NO_IO_URING] if io_engine == "auto" and connection.engine.name != "uring" else []
        if record_layer != "plain":
            finished = _traced(trace, "handshake", lambda: handshake(connection, config))
        if finished and record_layer in DIRECTIONS:
            answer = _take_over(trace, connection, finished, DIRECTIONS[record_layer])
            if not isinstance(answer, Installed):
                reason = answer.reason if isinstance(answer, Refused) else answer
                if record_layer != "auto":
                    if reason is Why.NOT_ESTABLISHED:
                        _hear(connection, finished)  # it is what went wrong, and not the kernel
                    raise _unmet(connection, record_layer, answer, reason)
                why.append(reason)
            if not isinstance(answer, Why):
                taken = answer.directions
            if isinstance(answer, Installed):
                changed = answer.counters
        connection.engine.timeout = timeout
        for direction in Direction:
            connection.engine.limit(connection.socket, direction, None)
        stream = Stream(connection, finished, taken)
        undo.pop_all()
    return Session(stream, handshake=finished, why=tuple(why), trace=tuple(trace), counters=changed)


def _take_over(
    trace: list[TraceEntry], connection: Connection, finished: Handshake, directions: tuple[Direction, ...]
) -> Installed | Refused | Why:
    """Export and install. Return the kernel's answer, or the reason why it could not be asked."""
    try:
        keys = _traced(trace, "export", lambda: export(finished))
    except SuiteUnsupportedError:
        return Why.SUITE_UNKNOWN
    try:
        return _traced(trace, "install", lambda: install(connection, keys, directions))
    finally:
        keys.wipe()


def _hear(connection: Connection, finished: Handshake) -> None:
    """Raise the error by which the peer ended the session before the kernel was asked, such as its alert."""
    Stream(connection, finished).recv()


def _unmet(
    connection: Connection, record_layer: RecordLayer, answer: Refused | Why, reason: Why
) -> RecordLayerUnavailableError:
    """Return the error for a requirement that the kernel did not meet."""
    refused = answer if isinstance(answer, Refused) else None
    number = f": {refused.step} answered {errno_name(refused.errno)}" if refused is not None else ""
    remedy = (
        'record_layer="auto" continues in userspace instead; `ktlslab doctor` says what is missing; '
        "`--on newest` runs in a guest whose kernel has kTLS."
    )
    tried = f"opening a session with {connection.target}, record_layer={record_layer!r}"
    return RecordLayerUnavailableError(
        tried, why=reason, refused=refused, answered=f"{reason.value}{number}", remedy=remedy
    )


def _traced(trace: list[TraceEntry], stage: str, action: Callable[[], T]) -> T:
    """Run one stage and add it to the trace, whether it succeeds or fails."""
    start = time.perf_counter_ns()
    outcome = "failed"
    try:
        result = action()
        outcome = repr(result)
        return result
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
        raise
    finally:
        trace.append(
            TraceEntry(stage=stage, start_ns=start, duration_ns=time.perf_counter_ns() - start, outcome=outcome)
        )
