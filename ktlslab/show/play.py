"""KeyUpdate as a play: a client by ktlslab, a server by hand, and every record that is spoken.

    cast()             the two, over loopback, after a real handshake
    alone()            what a kernel that receives answers around a KeyUpdate, call by call

The server's keys are computed here, record by record (RFC 8446, 5.3 and 7.2), so what the client's record layer makes
can be opened only if both agree on the secret and on the number. The client's record layer is the kernel's where that
takes new keys, and OpenSSL's otherwise.
"""

from __future__ import annotations

import select
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ktlslab._closing import Closing
from ktlslab.certificates import make_certificates
from ktlslab.linux import capabilities
from ktlslab.linux.ktls import Direction
from ktlslab.promises.pair import Pair
from ktlslab.show.html import Lines, Picture, code, picture, table
from ktlslab.show.recordviews import holds
from ktlslab.stages import ClientConfig, ServerConfig, Stream, accept, connect, export, handshake, install
from ktlslab.stages.keys import traffic_secrets
from ktlslab.tls.keyschedule import next_traffic_secret, traffic_key
from ktlslab.tls.protect import open_record, seal
from ktlslab.tls.records import ContentType, HandshakeType, RecordSplitter
from ktlslab.tls.suites import Suite

if TYPE_CHECKING:
    from ktlslab.stages import Connection, Handshake

_SUITE = Suite.TLS_AES_128_GCM_SHA256
_TIMEOUT_S = 10.0
_QUIET_S = 0.2  # what has not arrived over loopback by then was not sent
_OURS, _THEIRS = "server → client", "client → server"


class _Way:
    """One direction's secret, and which keys and which number its next record has."""

    def __init__(self, secret: bytes, sequence: int) -> None:
        self._secret, self.number, self.updates = secret, sequence, 0

    @property
    def keys(self) -> tuple[bytes, bytes]:
        return traffic_key(self._secret, _SUITE)

    def update(self) -> None:
        self._secret, self.number, self.updates = next_traffic_secret(self._secret, _SUITE), 0, self.updates + 1


class Play(Closing):
    """A client's `Stream`, a server by hand, and the record of what was said; a context manager."""

    def __init__(self, client: Stream, server: Connection, ways: tuple[_Way, _Way]) -> None:
        self.client = client
        self._server, (self._sending, self._receiving) = server, ways
        self._splitter = RecordSplitter()
        self._lines: list[tuple[str, ...]] = []

    def server_says(self, data: bytes) -> Play:
        """Send one record of data under the server's present key."""
        return self._send(ContentType.APPLICATION_DATA, data)

    def server_updates(self, *, request: bool = False) -> Play:
        """Send a KeyUpdate under the present key, then take the next; `request` asks the client to change its own."""
        self._send(ContentType.HANDSHAKE, bytes([HandshakeType.KEY_UPDATE, 0, 0, 1, request]))
        self._sending.update()
        return self

    def server_hears(self) -> Play:
        """Open every record that the client has sent. ValueError where one does not open."""
        while _arrives(self._server.socket) and (data := self._server.socket.recv(1 << 15)):
            self._splitter.feed(data)
            for record in self._splitter:
                way = self._receiving
                kind, plain = open_record(_SUITE, *way.keys, way.number, record.raw)
                self._note(_THEIRS, way, kind, plain)
                if kind == ContentType.HANDSHAKE and plain[0] == HandshakeType.KEY_UPDATE:
                    way.update()
        return self

    def close(self) -> None:
        """Close both ends; the client's close_notify is not waited for."""
        self._server.close()
        self.client.connection.close()

    @property
    def closed(self) -> bool:
        return self._server.socket.fileno() < 0

    def _send(self, kind: int, plain: bytes) -> Play:
        way = self._sending
        self._server.socket.sendall(seal(_SUITE, *way.keys, way.number, kind, plain))
        self._note(_OURS, way, kind, plain)
        return self

    def _note(self, who: str, way: _Way, kind: int, plain: bytes) -> None:
        said = repr(plain.decode()) if kind == ContentType.APPLICATION_DATA else holds(kind, plain)
        if kind == ContentType.HANDSHAKE and plain[0] == HandshakeType.KEY_UPDATE:
            said = f"KeyUpdate, update_{'' if plain[-1] else 'not_'}requested"
        self._lines.append((str(len(self._lines) + 1), who, str(way.updates), str(way.number), said))
        way.number += 1

    def _repr_html_(self) -> str:
        return self._shown().html

    def __repr__(self) -> str:
        return self._shown().text

    def _shown(self) -> Picture:
        """Show every record so far, the changes of a key in colour, and what the client knows of its keys."""
        head = ("", "who", "secret", "number", "what the record holds")
        rows = [(*line[:4], code(line[4]) if line[4].startswith("Key") else line[4]) for line in self._lines]
        generations = self.client.generations
        where = ", ".join(f"{way.name} {count}" for way, count in generations.items())
        title = f"The play so far. The client's record layer: {self.client.record_layer}"
        if where:
            title += f"; key changes there so far: {where}"
        text = "\n".join([title] + [" | ".join(line) for line in self._lines])
        return picture(title, table(head, rows, numbers=(0, 2, 3)), text=text)


def cast(*, kernel: bool | None = None) -> Play:
    """Return a client and a server by hand, after a real handshake.

    `kernel`: whether the kernel makes the client's records; by default where it takes new keys. The errors are those of
    the stages.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ktlslab-play-") as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(1) as pool,
    ):
        files = make_certificates(Path(folder))
        config = ServerConfig(certificate=files.chain, key=files.key, suites=(_SUITE,))
        serving = pool.submit(_serve, listener, config)
        connection = connect("localhost", listener.getsockname()[1], io_engine="syscall", timeout=_TIMEOUT_S)
        shake = handshake(connection, ClientConfig(ca=files.ca, suites=(_SUITE,)))
        server, theirs = serving.result()
    taken: tuple[Direction, ...] = ()
    if capabilities.rekey() if kernel is None else kernel:
        keys = export(shake)
        answer = install(connection, keys)
        taken = tuple(answer.directions)
    stream = Stream(connection, shake, taken)
    sending, receiving = traffic_secrets(theirs)
    tickets = export(theirs).tx.sequence
    return Play(stream, server, (_Way(sending, tickets), _Way(receiving, 0)))


def _serve(listener: socket.socket, config: ServerConfig) -> tuple[Connection, Handshake]:
    """Accept one connection, and do its handshake by OpenSSL, which is not used again."""
    connection = accept(listener, io_engine="syscall", timeout=_TIMEOUT_S)
    return connection, handshake(connection, config)


def _arrives(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], _QUIET_S)[0])


# What is done, from Linux 6.14 on, and before it (net/tls/tls_main.c and tls_sw.c; tls.rst, "TLS 1.3 Key Updates").
_CALLS = (
    ("recv", "b'before'", "b'before'"),
    ("recv", "EIO", "EIO"),
    ("recvmsg, with room for a type", "type 22: 18 00 00 01 00", "type 22: 18 00 00 01 00"),
    ("recv", "EKEYEXPIRED", "EBADMSG"),
    ("setsockopt TLS_RX, the next key", "done", "EBUSY"),
    ("recv", "b'after'", "EBADMSG"),
)


def alone() -> Lines:
    """Return what this kernel answers around a KeyUpdate, beside what kernels from 6.14 on and older ones answer.

    The peer has sent "before", a KeyUpdate and "after" when the first call is made.
    """
    told = _asked() if capabilities.ulp() else ["no tls module"] * len(_CALLS)
    rows = [(call, answer, new, old) for answer, (call, new, old) in zip(told, _CALLS, strict=True)]
    caption = "On the wire: before, KeyUpdate, after. What the receiving kernel answers, one call after the other:"
    return Lines(head=("call", "this kernel", "Linux 6.14 or later", "older"), rows=rows, caption=caption)


def _asked() -> list[str]:
    with Pair(_SUITE, (Direction.RX,)) as pair:
        pair.peer.send(b"before")
        pair.peer.update_keys()
        pair.peer.send(b"after")
        pair.settled()
        answers = [pair.recv(64), pair.recv(64)]
        kind, message = pair.recv_typed(64)
        answers += [f"type {int(kind)}: {message.hex(' ')}", pair.recv_now(64)]
        answers += [pair.install(Direction.RX, generation=1), pair.recv_now(64)]
    return [answer if isinstance(answer, str) else repr(answer) for answer in answers]
