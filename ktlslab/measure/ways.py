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

ROOM_BYTES = 1 << 16  # of one receive
BEFORE, NOW = "before", "now"
Stage = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to fetch: from which server, trusted by which PEM file, by which bytes; `size` of the answer, None: all."""

    host: str
    port: int
    ca: Path
    request: bytes
    size: int | None = None
    server_name: str = "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The answer, who made the records, and which I/O engine carried the payload."""

    answer: bytes
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
        with context.wrap_socket(
            duplicate, server_hostname=asked.server_name, suppress_ragged_eofs=False
        ) as tls:  # a blocking handshake
            stage("transfer")
            tls.sendall(asked.request)
            answer = _received(lambda: tls.recv(ROOM_BYTES), asked.size)
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
            answer = _received(lambda: stream.recv(ROOM_BYTES), asked.size)
            stage("close")
    return Fetched(
        answer=answer,
        record_layer=stream.record_layer,
        io_engine=connection.engine.name,
        suite=finished.suite_name,
    )


WAYS: dict[str, Way] = {BEFORE: before, NOW: now}


def _received(receive: Callable[[], bytes], size: int | None) -> bytes:
    """Return what comes, up to `size` bytes, or all until the end."""
    parts: list[bytes] = []
    while size is None or sum(map(len, parts)) < size:
        if not (part := receive()):
            break
        parts.append(part)
    return b"".join(parts)
