"""Our end as a server: it answers real clients, and notes what it saw of each connection."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ktlslab.errors import (
    HandshakeError,
    KeyUpdateError,
    KtlsLabError,
    RecordLayerUnavailableError,
    StreamError,
    TruncatedError,
)
from ktlslab.linux import capabilities, ktls, tcpinfo
from ktlslab.linux.ktls import Direction
from ktlslab.session import Session, accept_session
from ktlslab.stages.config import ServerConfig
from ktlslab.tls.suites import Suite
from tests.interop import stacks
from tests.interop.material import Material, body
from tests.interop.stacks import Asked, Client
from tests.interop.talking import AT_ONCE_S, TIMEOUT_S, Seen, check, prove, was_retried


@dataclass(kw_only=True)
class Scene:
    """A cell as our server plays it."""

    stack: Client
    feature: str
    material: Material
    suite: Suite
    layer: str
    engine: str
    seen: Seen = field(default_factory=Seen)
    errors: list[BaseException] = field(default_factory=list)
    resumed: list[bool] = field(default_factory=list)
    renewed: int = 0  # how often the peer's keys changed

    def serve(self, listener: socket.socket, config: ServerConfig) -> None:
        """Answer one connection."""
        with accept_session(
            listener, config, record_layer=self.layer, io_engine=self.engine, timeout=TIMEOUT_S
        ) as session:
            prove(session, self.suite, self.layer, self.engine)
            if self.feature == stacks.RETRY:
                check(was_retried(session), "there was no HelloRetryRequest")
            self.resumed.append(session.resumed)
            self.answer(session)

    def answer(self, session: Session) -> None:
        stream, data = session.stream, bytearray()
        while b"\r\n\r\n" not in data:
            piece = stream.recv()
            check(piece, "the client asked for nothing")
            data += piece
        head, _, rest = bytes(data).partition(b"\r\n\r\n")
        method, target, _ = head.decode().split("\r\n")[0].split(" ")
        if self.feature == stacks.BOTH_UPDATE:
            stream.update_keys(request_peer=True)
        said = body(int(target.rpartition("/")[2])) if method == "GET" else self.upload(session, head.decode(), rest)
        stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(said))
        if said:
            stream.send(said)
        self.finish(session)

    def upload(self, session: Session, head: str, rest: bytes) -> bytes:
        lines = (line.lower().partition(": ") for line in head.split("\r\n"))
        length = next(int(value) for name, _, value in lines if name == "content-length")
        if "expect: 100-continue" in head.lower():
            session.stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        whole = bytearray(length)
        whole[: len(rest)] = rest
        if length > len(rest):
            session.stream.recv_exactly_into(memoryview(whole)[len(rest) :])
        check(whole == body(length), "other bytes came")
        return f"{length} {hashlib.sha256(whole).hexdigest()}".encode()

    def finish(self, session: Session) -> None:
        """End the sending, see how the client ends its own, and close."""
        stream = session.stream
        stream.send_eof()
        ended = "close_notify"
        try:
            while stream.recv(1 << 18):
                pass
        except TruncatedError:
            ended = "no close_notify"
        except StreamError as error:
            if isinstance(error, KeyUpdateError):
                raise
            if not re.search("ECONNRESET|EPIPE", str(error)):
                raise
            ended = "reset"  # it had closed when our close_notify came
        if self.layer == "kernel":
            records = ktls.sequence_number(stream.connection.socket, Direction.TX, self.suite.cipher.kernel_type)
            check(records or stream.generations[Direction.TX], "the kernel made no record")
            self.seen.records = max(self.seen.records, records)
            self.renewed += stream.generations[Direction.RX]
        wait_for_acknowledgement(stream.connection.socket)
        began = time.monotonic()
        session.close()
        self.seen.add(ended, time.monotonic() - began)
        cut = self.feature == stacks.NO_NOTIFY or self.suite.version in self.stack.cuts
        wanted = {
            "reset",
            *(["no close_notify"] if cut else []),
            *(["close_notify"] if self.feature != stacks.NO_NOTIFY else []),
        }
        check(ended in wanted, f"it ended by {ended}")


def wait_for_acknowledgement(sock: socket.socket) -> None:
    """Wait until the client has everything, which some are slow to read. What then takes time has no reason."""
    until = time.monotonic() + TIMEOUT_S
    while tcpinfo.unacknowledged(sock) and tcpinfo.state(sock) != tcpinfo.CLOSED and time.monotonic() < until:
        time.sleep(0.005)


def config_for(feature: str, suite: Suite, material: Material) -> ServerConfig:
    groups = (stacks.RETRY_GROUP,) if feature == stacks.RETRY else None
    wants = feature in {stacks.CLIENT_CERTIFICATE, stacks.NO_CERTIFICATE}
    return ServerConfig(
        certificate=material.file("server.pem"),
        suites=(suite,),
        versions=(suite.version,),
        groups=groups,
        client_ca=material.ca if wants else None,
    )


@contextlib.contextmanager
def serving(scene: Scene, connections: int) -> Iterator[int]:
    """Give the port of our server, which ends after so many connections."""
    config = config_for(scene.feature, scene.suite, scene.material)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def loop() -> None:
            for _ in range(connections):
                try:
                    scene.serve(listener, config)
                except Exception as error:  # noqa: BLE001 - looked at by the cell
                    if over.is_set():
                        return
                    scene.errors.append(error)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
            thread.join(AT_ONCE_S)
        finally:
            over.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(TIMEOUT_S)


def play(scene: Scene, asked: Asked) -> Seen:
    """Play a cell: the client gets or sends every body."""
    feature, got, failed = scene.feature, {}, None
    sizes = asked.sizes[:1] if feature == stacks.NO_CERTIFICATE else asked.sizes
    with serving(scene, len(sizes)) as port:
        try:
            got = scene.stack.run(replace(asked, port=port, sizes=sizes))
        except (stacks.FailedError, http.client.HTTPException) as error:
            failed = error
    updates = feature in {stacks.PEER_UPDATES, stacks.BOTH_UPDATE}
    limited = feature == stacks.SMALL and scene.stack.limits
    if feature == stacks.NO_CERTIFICATE:
        check(re.search("alert|certificate", str(failed), re.IGNORECASE), f"the client says: {failed}")
        _failed_by(scene, HandshakeError)
    elif updates and scene.layer == "kernel" and not capabilities.rekey():
        _failed_by(scene, KeyUpdateError)
    elif limited and scene.layer == "kernel" and not capabilities.max_payload():
        _failed_by(scene, RecordLayerUnavailableError)
    else:
        for error in (*scene.errors, failed):
            if error:
                raise error
        _look_at(scene, got, sizes)
    return scene.seen


def _failed_by(scene: Scene, kind: type[KtlsLabError]) -> None:
    """Check that our end failed, and always by that kind of error."""
    check(scene.errors, f"there was no {kind.__name__}")
    for error in scene.errors:
        check(isinstance(error, kind), f"{type(error).__name__}: {error}")
        scene.seen.ended.add(type(error).__name__)


def _look_at(scene: Scene, got: Mapping[int, bytes], sizes: Sequence[int]) -> None:
    """Check what the client got, and what its feature asks for."""
    for size in sizes:
        want = body(size)
        if scene.feature in scene.stack.sends:
            want = f"{size} {hashlib.sha256(want).hexdigest()}".encode()
        check(got.get(size) == want, f"of {size} bytes the client got {len(got.get(size, b''))}, or others")
    check(scene.feature != stacks.RESUMED or any(scene.resumed), "no session was resumed")
    if scene.layer == "kernel":
        check(scene.feature != stacks.PEER_UPDATES or scene.renewed, "the client changed no keys")
        limited = scene.feature == stacks.SMALL and scene.stack.limits
        check(not limited or scene.seen.records > 3 * (sizes[-1] >> 14), f"only {scene.seen.records} records were sent")
