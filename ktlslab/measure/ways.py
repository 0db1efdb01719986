"""Two ways to fetch over TLS with rustls and io_uring: ktlslab's first architecture, and the present one.

`before`: io_uring connects. Then rustls drives a duplicate of the descriptor with blocking calls and makes all records
in userspace, as `rustls::Stream` does; no byte of payload goes through the ring.
`now`: io_uring connects, and carries what rustls says in the handshake. The secrets are exported, the kernel gets the
keys by setsockopt(2), and io_uring sends and receives plain bytes which the kernel protects. Where it refuses, rustls
goes on with the records, and io_uring carries those.

`before` uses rtls' public interface alone. It is here to be looked at and measured: `http.Client` fetches.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ktlslab.linux.ring import Ring
from ktlslab.packages import extra
from ktlslab.stages import ClientConfig, Stream, connect, export, handshake, install

with extra("rustls"):
    import rtls

ROOM_BYTES = 1 << 16  # offered to one receive
BEFORE, NOW = "before", "now"
Stage = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to fetch: from which server, trusted by which PEM file, by which request; `size`: the answer's bytes."""

    host: str
    port: int
    ca: Path
    request: bytes
    size: int
    server_name: str = "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The answer, who made the records, and which I/O engine carried the payload."""

    answer: bytearray
    record_layer: str
    io_engine: str
    suite: str


class Way(Protocol):
    """`ring`: None makes one where io_uring is available. `stage` is called as each stage begins."""

    def __call__(self, asked: Asked, ring: Ring | None = None, stage: Stage = str) -> Fetched: ...


def before(asked: Asked, ring: Ring | None = None, stage: Stage = str) -> Fetched:
    """Fetch by a blocking rustls on a duplicate of the descriptor that io_uring has connected."""
    stage("connect")
    with connect(asked.host, asked.port, ring=ring) as connection:
        stage("handshake")
        context = rtls.SSLContext(rtls.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(str(asked.ca))
        duplicate = socket.socket(fileno=os.dup(connection.socket.fileno()))
        with context.wrap_socket(duplicate, server_hostname=asked.server_name, suppress_ragged_eofs=False) as tls:
            stage("transfer")
            tls.sendall(asked.request)
            answer = _filled(asked.size, tls.recv_into)
            suite = tls.cipher()
            stage("close")
    return Fetched(answer=answer, record_layer="userspace", io_engine="syscall", suite=suite[0] if suite else "?")


def now(asked: Asked, ring: Ring | None = None, stage: Stage = str) -> Fetched:
    """Fetch by the five stages."""
    stage("connect")
    with connect(asked.host, asked.port, ring=ring) as connection:
        stage("handshake")
        config = ClientConfig(ca=asked.ca, server_name=asked.server_name, library="rustls")
        finished = handshake(connection, config)
        stage("export")
        keys = export(finished)
        stage("install")
        answered = install(connection, keys)
        keys.wipe()
        stage("transfer")
        with Stream(connection, finished, answered.directions) as stream:
            stream.send(asked.request)
            answer = _filled(asked.size, stream.recv_into)
            stage("close")
    return Fetched(
        answer=answer,
        record_layer=stream.record_layer,
        io_engine=connection.engine.name,
        suite=finished.suite_name,
    )


WAYS: dict[str, Way] = {BEFORE: before, NOW: now}


def _filled(size: int, receive_into: Callable[[memoryview], int]) -> bytearray:
    """Return `size` received bytes, or fewer where the stream ends before.

    Not all room is offered at once: rtls clears as much for each receive.
    """
    answer = bytearray(size)
    rest = memoryview(answer)
    while rest and (got := receive_into(rest[:ROOM_BYTES])):
        rest = rest[got:]
    return answer[: size - len(rest)] if rest else answer
