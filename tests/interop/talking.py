"""Our end as a client: one connection for each body, and what is seen of its bytes, its records and its end."""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ktlslab.errors import AlertError, HandshakeError, KeyUpdateError, StreamError, TruncatedError
from ktlslab.linux import capabilities, ktls
from ktlslab.linux.ktls import Direction
from ktlslab.session import Session, open_session
from ktlslab.stages.config import ClientConfig
from ktlslab.tls.records import HandshakeType
from ktlslab.tls.suites import Suite, Version
from tests.interop import stacks
from tests.interop.material import body, digits, lines
from tests.interop.stacks import Server, Setup, Started

TIMEOUT_S = 30.0
AT_ONCE_S = 1.0  # an end that takes longer has waited for something; on these slow machines nothing else takes so long
# The random of a ServerHello that is a HelloRetryRequest (RFC 8446, 4.1.3).
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


class WrongError(Exception):
    """Something was not as it must be."""


def check(right: object, said: str) -> None:
    if not right:
        raise WrongError(said)


@dataclass(kw_only=True)
class Seen:
    """What a cell showed: how its connections ended, tickets, received records, and the longest end in seconds."""

    ended: set[str] = field(default_factory=set)
    tickets: int = 0
    records: int = 0
    end_s: float = 0.0

    def add(self, ended: str, seconds: float) -> None:
        self.ended.add(ended)
        self.end_s = max(self.end_s, seconds)
        check(seconds < AT_ONCE_S, f"the end took {seconds:.1f} s")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A cell as our client plays it."""

    stack: Server
    setup: Setup
    started: Started
    suite: Suite
    layer: str
    engine: str
    seen: Seen = field(default_factory=Seen)

    @property
    def feature(self) -> str:
        return self.setup.feature

    @property
    def cannot(self) -> bool:
        """Whether keys are to change, and this kernel takes no new ones."""
        changes = self.feature in {stacks.PEER_UPDATES, stacks.BOTH_UPDATE}
        return changes and self.layer == "kernel" and not capabilities.rekey()

    def path(self, size: int) -> str:
        return f"{self.setup.material.www if self.stack.absolute else ''}/{size}"

    def open(self, **options: object) -> Session:
        """Open a session, and prove its record layer."""
        material = self.setup.material
        config = ClientConfig(ca=material.ca, suites=(self.suite,), versions=(self.suite.version,), alpn=("http/1.1",))
        if self.feature == stacks.RETRY:
            config = replace(config, groups=self.stack.groups)
        if self.feature == stacks.CLIENT_CERTIFICATE:
            config = replace(config, certificate=material.file("client.pem"))
        session = open_session(
            "localhost",
            self.setup.port,
            config=replace(config, **options),
            record_layer=self.layer,
            io_engine=self.engine,
            timeout=TIMEOUT_S,
        )
        prove(session, self.suite, self.layer, self.engine)
        if self.feature == stacks.RETRY:
            check(was_retried(session), "there was no HelloRetryRequest")
        return session

    def begin(self, session: Session, request: bytes) -> None:
        if self.feature == stacks.BOTH_UPDATE:
            session.stream.update_keys(request_peer=True)
        if request:
            session.stream.send(request)

    def note(self, session: Session) -> None:
        """Note how many records came, and that the kernel opened them."""
        if self.layer == "kernel":
            records = received_records(session)
            check(records or session.stream.generations[Direction.RX], "the kernel opened no record")
            self.seen.records = max(self.seen.records, records)
            self.seen.tickets = max(self.seen.tickets, len(session.stream.tickets))


def prove(session: Session, suite: Suite, layer: str, engine: str) -> None:
    """Check who makes the records: what the session says, and what the kernel's counters and socket options show."""
    got = (session.record_layer, session.io_engine, session.suite)
    check(got == (layer, engine, suite), f"the session is {got}")
    taken = {name for name in ("TlsTxSw", "TlsRxSw") if session.counters[name]}
    sock = session.stream.connection.socket
    wanted = {"TlsTxSw", "TlsRxSw"} if layer == "kernel" else set()
    check(wanted <= taken, f"the kernel's counters show {taken or 'nothing'}")
    for direction in Direction:
        there = ktls.installed(sock, direction) if wanted else None
        check(not wanted or there == (suite.version.wire, suite.cipher.kernel_type), f"the socket says {there}")
    check(wanted or not ktls.attached(sock), "the socket is the kernel's")


def received_records(session: Session) -> int:
    cipher = session.suite.cipher.kernel_type
    return ktls.sequence_number(session.stream.connection.socket, Direction.RX, cipher)


def was_retried(session: Session) -> bool:
    hello = bytes([HandshakeType.SERVER_HELLO])
    payloads = (record.payload for _, record in session.handshake.machine.transcript)
    return any(payload[:1] == hello and RETRY_RANDOM in payload[:64] for payload in payloads)


def to_the_end(scene: Scene, session: Session, *, until: int | None = None) -> bytes:
    """Return all bytes to the end, note how that came, and close; `until`: only so many bytes, and the end is ours."""
    stream, data = session.stream, bytearray()
    last = time.monotonic()
    ended = "close_notify"
    try:
        while piece := stream.recv(1 << 18):
            data += piece
            last = time.monotonic()
            if until is not None and len(data) >= until:
                stream.send_eof()
    except TruncatedError:
        ended = "no close_notify"
    if data or ended == "close_notify":
        scene.note(session)
    session.close()
    scene.seen.add(ended, time.monotonic() - last)
    if scene.feature == stacks.NO_CERTIFICATE:
        return bytes(data)
    wanted = "close_notify" if scene.stack.notifies(scene.feature, scene.suite.version) else "no close_notify"
    check(ended == wanted, f"it ended by {ended}")
    return bytes(data)


class _Socket(io.BytesIO):
    def makefile(self, _mode: str) -> _Socket:
        return self


def parsed(answer: bytes) -> tuple[int, bytes]:
    """Return the status and the body of an answer that is complete."""
    response = http.client.HTTPResponse(_Socket(answer))
    response.begin()
    return response.status, response.read()


def request(path: str, *, method: str = "GET", length: int | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"Content-Length: {length}"] if length is not None else []
    return "\r\n".join([*lines, "", ""]).encode()


def get(scene: Scene, size: int, **options: object) -> Session:
    with scene.open(**options) as session:
        scene.begin(session, request(scene.path(size)))
        status, came = parsed(to_the_end(scene, session))
    check(status == 200, f"the status is {status}")
    check(came == body(size), f"of {size} bytes {len(came)} came, or others")
    return session


def post(scene: Scene, size: int) -> None:
    with scene.open() as session:
        scene.begin(session, request("/upload", method="POST", length=size))
        if size:
            session.stream.send(body(size))
        status, came = parsed(to_the_end(scene, session))
    check((status, came) == (200, str(size).encode() + b" " + digest(body(size))), f"{status}: {came[:80]!r}")


def digest(data: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(data).hexdigest().encode()


def echo(scene: Scene, size: int, **options: object) -> Session:
    """Send a text by lines, each of which comes back before the next one goes."""
    with scene.open(**options) as session:
        scene.begin(session, b"")
        for line in lines(size):
            session.stream.send(line)
            back = bytearray(len(line))
            session.stream.recv_exactly_into(back)
            check(back == line, "another line came back")
        session.stream.send_eof()
        rest = to_the_end(scene, session)
    check(not rest, f"{len(rest)} bytes more came")
    return session


def interactive(scene: Scene, size: int) -> None:
    """Let a server send what its standard input says, and change its keys where that is a command."""
    text, stdin = digits(min(size, 1 << 17)), scene.started.process.stdin
    with scene.open() as session:
        for command in (b"k\n", b"K\n"):
            stdin.write(command)
            stdin.flush()
            if scene.cannot:
                check(not session.stream.recv(), "data came")
            time.sleep(0.2)  # or it would read the command and the text at once
            if text:
                stdin.write(text)
                stdin.flush()
                came = bytearray()
                while len(came) < len(text):
                    piece = session.stream.recv(1 << 18)
                    check(piece, "it ended early")
                    came += piece
                check(bytes(came) == text, "other bytes came")
            session.stream.send(b"thanks\n")
        if scene.layer == "kernel" and text:
            check(session.stream.generations == {Direction.TX: 1, Direction.RX: 2}, f"{session.stream.generations}")
        session.stream.send_eof()
        to_the_end(scene, session)


def resumed(scene: Scene, size: int) -> None:
    talk = echo if scene.stack.echoes else get
    first = talk(scene, min(size, 1))
    ticket = first.stream.resumption()
    check(ticket, "no ticket came")
    again = talk(scene, size, resume=ticket)
    check(again.resumed, "the session was not resumed")


def refused(scene: Scene, _size: int) -> None:
    """Give no certificate to a server that wants one: it says so by an alert, named as its own, or by a status."""
    began = time.monotonic()
    try:
        with scene.open() as session:
            session.stream.send(request(scene.path(1)))
            answer = to_the_end(scene, session)
    except (AlertError, HandshakeError) as error:
        how = "alert" if "the peer sent the alert" in str(error) else "close"
        check(how in scene.stack.refuses, f"{type(error).__name__}: {error}")
        scene.seen.ended.add(type(error).__name__)
    except StreamError as error:
        how = "close" if isinstance(error, TruncatedError) else "reset"
        check(how in scene.stack.refuses, f"{type(error).__name__}: {error}")
        scene.seen.ended.add(type(error).__name__)
    else:
        how = str(parsed(answer)[0]) if answer else "close"
        check(how in scene.stack.refuses, f"it answered by {how}")
    check(time.monotonic() - began < 5 * AT_ONCE_S, "it took long")


def play(scene: Scene) -> Seen:
    """Play a cell: every body, and what its feature asks for. Raises WrongError, or the error that came."""
    feature = scene.feature
    act: Callable[[Scene, int], object] = echo if scene.stack.echoes else get
    if feature == stacks.PEER_UPDATES and scene.stack.name == "openssl s_server":
        act = interactive
    act = {stacks.UPLOAD: post, stacks.NO_CERTIFICATE: refused}.get(feature, act)
    if feature in {stacks.RESUMED, stacks.EARLY}:
        act = resumed
    sizes = scene.stack.sizes[:1] if feature == stacks.NO_CERTIFICATE else scene.stack.sizes
    for size in sizes:
        try:
            act(scene, size)
        except KeyUpdateError:
            if not scene.cannot:
                raise
            scene.seen.ended.add("KeyUpdateError")
    if scene.cannot:
        check("KeyUpdateError" in scene.seen.ended, "a kernel that takes no new keys took some")
    if scene.setup.tickets is not None and scene.layer == "kernel" and scene.suite.version is Version.TLS13:
        check(scene.seen.tickets == scene.setup.tickets, f"{scene.seen.tickets} tickets came")
    if feature == stacks.SMALL and scene.layer == "kernel":
        check(scene.seen.records > 3 * (scene.stack.sizes[-1] >> 14), f"only {scene.seen.records} records came")
    return scene.seen
