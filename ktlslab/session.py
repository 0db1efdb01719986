"""A session: the stages run in order, with a fallback that says why.

Fallback changes who encrypts, never whether. Where the kernel cannot take over, the same connection goes on in
userspace behind the same `Stream`; where io_uring cannot be had, plain calls move the bytes. A certificate or protocol
failure is an error.
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
from typing import Any, Literal, TypeVar

from ktlslab._closing import Closing
from ktlslab._html import card
from ktlslab.certificates import make_certificates
from ktlslab.errors import SuiteUnsupportedError, UsageError
from ktlslab.linux import probe
from ktlslab.linux.counters import Counters
from ktlslab.linux.engines import EngineName
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Ring
from ktlslab.stages.accept import accept
from ktlslab.stages.config import ClientConfig, ServerConfig
from ktlslab.stages.connect import Connection, connect
from ktlslab.stages.export import export
from ktlslab.stages.handshake import Handshake, handshake
from ktlslab.stages.install import BOTH, Installed, Refused, Why, install
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
    """One line of a session's trace; times are nanoseconds of the monotonic clock."""

    stage: str
    start_ns: int
    duration_ns: int
    outcome: str


class Session(Closing):
    """An open session; a context manager. `stream` moves the bytes.

    `record_layer` and `io_engine` say what does the work, `why` what was given up for which reason (empty: nothing),
    `counters` what opening it changed in /proc/net/tls_stat.
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

    @property
    def record_layer(self) -> str:
        return self.stream.record_layer

    @property
    def io_engine(self) -> EngineName:
        return self.stream.connection.engine.name

    def close(self) -> None:
        self.stream.close()

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
    io_engine: EngineName = "uring",
    ring: Ring | None = None,
    timeout: float | None = 10.0,
) -> Session:
    """Connect, shake hands, and let the kernel take over as far as it can.

    `record_layer`: auto and kernel ask the kernel for both directions, kernel-tx and kernel-rx for one, userspace for
    none, plain does without TLS. Never fails because the kernel cannot: see `Session.why`. `timeout` in seconds bounds
    every wait. Raises what `connect` and `handshake` raise.
    """
    why, io_engine = _engine(record_layer, io_engine, ring)
    trace: list[TraceEntry] = []
    connection = _traced(
        trace, "connect", lambda: connect((host, port), io_engine=io_engine, ring=ring, timeout=timeout)
    )
    return _open(trace, why, connection, config, record_layer)


def accept_session(
    listener: socket.socket,
    config: ServerConfig,
    *,
    record_layer: RecordLayer = "auto",
    io_engine: EngineName = "uring",
    ring: Ring | None = None,
    timeout: float | None = 10.0,
) -> Session:
    """Do the same as a server: accept on a listening socket, shake hands, let the kernel take over."""
    why, io_engine = _engine(record_layer, io_engine, ring)
    trace: list[TraceEntry] = []
    connection = _traced(trace, "accept", lambda: accept(listener, io_engine=io_engine, ring=ring, timeout=timeout))
    return _open(trace, why, connection, config, record_layer)


def session_pair(
    *,
    record_layer: RecordLayer = "auto",
    io_engine: EngineName = "uring",
    suite: Suite | None = None,
    timeout: float | None = 10.0,
) -> tuple[Session, Session]:
    """Open a session between two ends in this process, over loopback: (client, server).

    The server's certificate is made on the spot and does not outlive the handshake.
    """
    suites = (suite,) if suite else None
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


def _engine(record_layer: str, io_engine: EngineName, ring: Ring | None) -> tuple[list[Why], EngineName]:
    """Check the arm that was asked for; give up io_uring where it is not to be had."""
    if record_layer not in (*DIRECTIONS, "plain", "userspace"):
        remedy = "Choose auto, kernel, kernel-tx, kernel-rx, userspace or plain."
        raise UsageError("opening a session", answered=f"no record layer {record_layer!r}", remedy=remedy)
    if io_engine == "uring" and ring is None and probe.io_uring():
        return [Why.NO_IO_URING], "syscall"
    return [], io_engine


def _open(
    trace: list[TraceEntry],
    why: list[Why],
    connection: Connection,
    config: ClientConfig | ServerConfig | None,
    record_layer: RecordLayer,
) -> Session:
    """Run the stages after the first, which are the same for both roles."""
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        finished = None
        taken: tuple[Direction, ...] = ()
        changed = Counters({})
        if record_layer != "plain":
            finished = _traced(trace, "handshake", lambda: handshake(connection, config))
            taken, changed = _take_over(trace, why, connection, finished, DIRECTIONS.get(record_layer, ()))
        stream = Stream(connection, finished, taken)
        undo.pop_all()
    return Session(stream, handshake=finished, why=tuple(why), trace=tuple(trace), counters=changed)


def _take_over(
    trace: list[TraceEntry],
    why: list[Why],
    connection: Connection,
    finished: Handshake,
    directions: tuple[Direction, ...],
) -> tuple[tuple[Direction, ...], Counters]:
    """Export and install: the directions that the kernel has now, and what its counters say of it."""
    nothing = (), Counters({})
    if not directions:
        return nothing
    try:
        keys = _traced(trace, "export", lambda: export(finished))
    except SuiteUnsupportedError:
        why.append(Why.SUITE_UNKNOWN)
        return nothing
    try:
        answer: Installed | Refused = _traced(trace, "install", lambda: install(connection, keys, directions))
    finally:
        keys.wipe()
    if isinstance(answer, Refused):
        why.append(answer.reason)
        return answer.directions, Counters({})
    return answer.directions, answer.counters


def _traced(trace: list[TraceEntry], stage: str, action: Callable[[], T]) -> T:
    """Run one stage and write it into the trace, whatever comes of it."""
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
