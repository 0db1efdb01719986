"""A TLS server to hand off from, in this process, that records every byte that passed: the view from the other end.

It is Python's own `ssl` module over memory BIOs, and knows nothing of kTLS: what reaches it are bytes on a socket, and
it opens them or not. It answers one HTTP request per connection. Its certificate is made at the start and removed at
the end. For lessons and tests only.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ktlslab._closing import Closing
from ktlslab.certificates import make_certificates
from ktlslab.errors import UsageError
from ktlslab.tls.records import Record, RecordSplitter

if TYPE_CHECKING:
    from ktlslab.stages import Connection

T = TypeVar("T")
NAME = "localhost"
MAX_BODY_BYTES = 1 << 20
PAGE = b"The bytes of this page came through TLS records. Who made and who opened them is what the lesson is about.\n"


def answer_to(request: bytes) -> bytes:
    """Return the server's answer, head and body: the page, repeated to N bytes where the path is /N."""
    path = request.split(b" ", 2)[1][1:]
    size = min(int(path), MAX_BODY_BYTES) if path.isdigit() else len(PAGE)
    body = (PAGE * (size // len(PAGE) + 1))[:size]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


class Wire:
    """What passed on one connection, as the server saw it. `sent` and `received` are from the client's side."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.sent_bytes = bytearray()
        self.received_bytes = bytearray()

    @property
    def sent(self) -> list[Record]:
        """The whole records that the client sent."""
        return _split(self.sent_bytes)

    @property
    def received(self) -> list[Record]:
        """The whole records that the server sent."""
        return _split(self.received_bytes)


class DemoServer(Closing):
    """A running server; a context manager. `ca` is the PEM file to trust it by.

    `ciphers`: the suites of TLS 1.2 that it has, by OpenSSL's names; "" for the usual ones.
    """

    def __init__(self, ciphers: str = "") -> None:
        folder = Path(tempfile.mkdtemp(prefix="ktlslab-demo-"))
        self.ca = folder / "ca.pem"
        self._wires: dict[tuple[str, int], Wire] = {}
        self._context = _context(folder)
        if ciphers:
            self._context.set_ciphers(ciphers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.host = NAME
        self.port: int = self._listener.getsockname()[1]
        self._closer = weakref.finalize(self, _end, self._listener, self._open, folder)
        threading.Thread(
            target=_accept, args=(self._listener, self._context, self._wires, self._open), daemon=True
        ).start()

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}/"

    def wire(self, connection: Connection) -> Wire:
        """Return what passed on a client's connection, up to now; all of it, where the client has closed."""
        wire = self._wires.get(connection.local[:2])
        if wire is None:
            remedy = "Ask for a connection to this server."
            raise UsageError(f"looking for {connection!r}", answered="no such connection came here", remedy=remedy)
        if connection.socket.fileno() < 0:
            wire.ended.wait(5)
        return wire

    def close(self) -> None:
        self._closer()

    def __repr__(self) -> str:
        return f"DemoServer({self.url}, {'running' if self._closer.alive else 'closed'})"


def demo_server() -> DemoServer:
    """Start a server on a free port of the loopback interface."""
    return DemoServer()


def _accept(
    listener: socket.socket,
    context: ssl.SSLContext,
    wires: dict[tuple[str, int], Wire],
    opened: set[socket.socket],
) -> None:
    with contextlib.suppress(OSError):  # the listener was closed
        while True:
            sock, peer = listener.accept()
            wires[peer[:2]] = wire = Wire()
            opened.add(sock)
            threading.Thread(target=_serve, args=(sock, context, wire, opened), daemon=True).start()


def _serve(sock: socket.socket, context: ssl.SSLContext, wire: Wire, opened: set[socket.socket]) -> None:
    """Serve one connection: handshake, one request, one answer, close_notify."""
    end = _End(sock, context, wire)
    with sock, contextlib.suppress(OSError, ssl.SSLError):  # a client that leaves is no failure of the server's
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.until(end.tls.do_handshake)
        request = b""
        while b"\r\n\r\n" not in request:
            piece = end.until(lambda: end.tls.read(1 << 14))
            if not piece:
                return
            request += piece
        end.tls.write(answer_to(request))
        end.flush()
        end.until(end.tls.unwrap)  # sends close_notify, and waits for the client's
    opened.discard(sock)
    wire.ended.set()


class _End:
    """The server's end of one connection: the TLS library's state and the bytes to and from it."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, wire: Wire) -> None:
        self._sock, self._wire = sock, wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def until(self, action: Callable[[], T]) -> T:
        """Do what the library is asked for, carrying bytes for as long as it wants more."""
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self.flush()
                data = self._sock.recv(1 << 16)
                self._wire.sent_bytes += data
                if not data:
                    raise ConnectionResetError from None
                self._incoming.write(data)
            else:
                self.flush()
                return result

    def flush(self) -> None:
        if data := self._outgoing.read():
            self._wire.received_bytes += data
            self._sock.sendall(data)


def _end(listener: socket.socket, opened: set[socket.socket], folder: Path) -> None:
    for sock in (listener, *opened):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it
    listener.close()
    shutil.rmtree(folder, ignore_errors=True)


def _context(folder: Path) -> ssl.SSLContext:
    """Return a server's context with a new certificate; its key does not stay on disk."""
    files = make_certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    files.key.unlink()
    return context


def _split(data: bytearray) -> list[Record]:
    splitter = RecordSplitter()
    splitter.feed(bytes(data))
    return list(splitter)
