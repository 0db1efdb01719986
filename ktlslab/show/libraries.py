"""What differs between the two TLS libraries, OpenSSL and rustls: found by letting each do handshakes, here and now.

compared()      a table: what each library offers, how many records it makes of it, and who says what, when
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ktlslab.certificates import Certificates, make_certificates
from ktlslab.errors import KtlsLabError
from ktlslab.show.html import Lines, joined, plural
from ktlslab.show.recordviews import waiting
from ktlslab.stages import ClientConfig, Connection, Handshake, ServerConfig, accept, connect, export, handshake
from ktlslab.tls.alerts import ALERT_BYTES, Alert
from ktlslab.tls.libraries import RUSTLS_SUITES, Name
from ktlslab.tls.protect import open_record
from ktlslab.tls.records import ContentType, HandshakeType, Record
from ktlslab.tls.suites import Suite, Version

LIBRARIES: tuple[Name, ...] = get_args(Name)
_PATIENCE_S = 30.0
_ROOM = 1 << 16
# The groups of key exchange that may be met: IANA's registry "TLS Supported Groups" (RFC 8446, 4.2.7).
_GROUPS = {
    23: "P-256",
    24: "P-384",
    25: "P-521",
    29: "X25519",
    30: "X448",
    41: "curveSM2",
    256: "ffdhe2048",
    257: "ffdhe3072",
    258: "ffdhe4096",
    259: "ffdhe6144",
    260: "ffdhe8192",
    4587: "SecP256r1MLKEM768",
    4588: "X25519MLKEM768",
    4589: "SecP384r1MLKEM1024",
    4590: "curveSM2MLKEM768",
}
_GROUPS_EXTENSION, _SHARES_EXTENSION, _ECH_EXTENSION = 10, 51, 65037
_LIFETIME = slice(4, 8)  # of a session ticket, in its message


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A ClientHello: its size in bytes, how many suites and extensions it has, the groups and those with a key.

    `ech`: it has encrypted_client_hello, which may be a placeholder (IANA's registry "TLS ExtensionType Values").
    """

    size: int
    suites: int
    extensions: int
    groups: tuple[int, ...]
    shares: tuple[int, ...]
    ech: bool = False

    @classmethod
    def parse(cls, message: bytes) -> Hello:
        """Read a whole ClientHello, its header included (RFC 8446, 4.1.2)."""
        at = 4 + 2 + 32  # header, version, random
        at += 1 + message[at]  # session id
        suites, at = _number(message, at) // 2, at + 2 + _number(message, at)
        at += 1 + message[at] + 2  # compression methods, length of the extensions
        extensions: dict[int, bytes] = {}
        while at < len(message):
            size = _number(message, at + 2)
            extensions[_number(message, at)] = message[at + 4 : at + 4 + size]
            at += 4 + size
        groups, shares = extensions.get(_GROUPS_EXTENSION, b"")[2:], extensions.get(_SHARES_EXTENSION, b"")[2:]
        found, at = [], 0
        while at < len(shares):
            found.append(_number(shares, at))
            at += 4 + _number(shares, at + 2)
        return cls(
            size=len(message),
            suites=suites,
            extensions=len(extensions),
            groups=tuple(_number(groups, at) for at in range(0, len(groups), 2)),
            shares=tuple(found),
            ech=_ECH_EXTENSION in extensions,
        )


def compared() -> Lines:
    """Let each library be client and server of the other end's OpenSSL, in both versions, and set them side by side."""
    with tempfile.TemporaryDirectory(prefix="ktlslab-libraries-") as folder:
        files = make_certificates(Path(folder))
        (Path(folder) / "others").mkdir()
        strangers = make_certificates(Path(folder) / "others")
        columns = [_column(name, files, strangers) for name in LIBRARIES]
    rows = [(row, *(column[row] for column in columns)) for row in columns[0]]
    said = "The other end is OpenSSL. Both libraries are driven by the same stages, one record at a time."
    return Lines(head=("", *LIBRARIES), rows=rows, caption=said)


def _column(name: Name, files: Certificates, strangers: Certificates) -> dict[str, str]:
    found: dict[str, str] = {}
    for version in reversed(Version):
        with _met(files, version, client=name) as (shake, _, _):
            if version is Version.TLS13:
                hello = Hello.parse(_sent(shake)[0].payload)
                found["client: its hello, TLS 1.3 alone"] = (
                    f"{hello.size:,} bytes, {hello.suites} suites, {hello.extensions} extensions"
                    + ", one of them encrypted_client_hello" * hello.ech
                )
                found["client: groups, best first"] = _named(hello.groups)
                found["client: sends a key for"] = _named(hello.shares)
            found[f"client: records that it sends, {version.label}"] = _records(_sent(shake))
        with _met(files, version, server=name) as (shake, server, connection):
            found[f"server: records that it sends, {version.label}"] = _records(_sent(server))
            if version is Version.TLS13:
                found["server: session tickets, TLS 1.3"] = _tickets(shake, server, connection)
    found["client: suites of TLS 1.3 can be chosen one by one"] = (
        "yes" if name == "openssl" else "no, by rtls: all or none"
    )
    every = len(Suite)
    found["suites that it has and a kernel may take"] = (
        f"{every if name == 'openssl' else len(RUSTLS_SUITES)} of {every}"
    )
    found["client: an authority with another key"] = _failed(files, name, ca=strangers.ca)
    found["client: another name in the certificate"] = _failed(files, name, server_name="example.org")
    found["client: no version in common"] = _failed(files, name, versions=(Version.TLS12,))
    return found


@contextlib.contextmanager
def _met(
    files: Certificates, version: Version, *, client: Name = "openssl", server: Name = "openssl"
) -> Iterator[tuple[Handshake, Handshake, Connection]]:
    """Yield both handshakes of a connection over loopback, and the client's connection."""
    config = ServerConfig(certificate=files.chain, key=files.key, versions=(version,), library=server)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(1) as pool,
        contextlib.ExitStack() as undo,
    ):

        def serve() -> Handshake:
            return handshake(undo.enter_context(accept(listener, io_engine="syscall")), config)

        serving = pool.submit(serve)
        connection = undo.enter_context(connect("localhost", listener.getsockname()[1], io_engine="syscall"))
        shake = handshake(connection, ClientConfig(ca=files.ca, versions=(version,), library=client))
        yield shake, serving.result(_PATIENCE_S), connection


def _sent(shake: Handshake) -> list[Record]:
    return [record for direction, record in shake.machine.transcript if direction == "sent"]


def _records(found: Iterable[Record]) -> str:
    """Say of which records a flight consists, those in a row with the same type together."""
    short = {
        ContentType.CHANGE_CIPHER_SPEC: "change_cipher_spec",
        ContentType.HANDSHAKE: "handshake",
        ContentType.APPLICATION_DATA: "protected",
        ContentType.ALERT: "alert",
    }
    runs: list[tuple[str, list[int]]] = []
    for record in found:
        name = short.get(ContentType(record.header.content_type), "?")
        if not runs or runs[-1][0] != name:
            runs.append((name, []))
        runs[-1][1].append(len(record.payload))
    return ", ".join(
        name if sizes == [1] else f"{name} of {joined([f'{size:,}' for size in sizes])} bytes" for name, sizes in runs
    )


def _tickets(shake: Handshake, server: Handshake, connection: Connection) -> str:
    """Open what a server sent right after its handshake, and count its messages."""
    keys = export(shake).rx
    queued = waiting(connection, _PATIENCE_S)
    while len(queued) < server.machine.tx_records:
        queued = waiting(connection, _PATIENCE_S)
    messages = []
    for number, record in enumerate(queued, keys.sequence):
        _, plain = open_record(keys.suite, keys.key.reveal(), keys.write_iv.reveal(), number, record.raw)
        while plain:
            end = 4 + int.from_bytes(plain[1:4], "big")
            if plain[0] == HandshakeType.NEW_SESSION_TICKET:
                messages.append(plain[:end])
            plain = plain[end:]
    keys.wipe()
    lifetimes = {int.from_bytes(message[_LIFETIME], "big") // 3600 for message in messages}
    sizes = joined([f"{len(message):,}" for message in messages])
    hours = joined([str(hours) for hours in sorted(lifetimes)])
    return f"{len(messages)} in {plural(len(queued), 'record')}, of {sizes} bytes, valid for {hours} hours"


def _failed(files: Certificates, name: Name, **wrong: object) -> str:
    """Return who refused a handshake in which something is wrong, and by which alert."""
    versions = (Version.TLS13,) if "versions" in wrong else tuple(Version)
    config = ServerConfig(certificate=files.chain, key=files.key, versions=versions)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(_serve_wrongly, listener, config)
        options = {"ca": files.ca, "library": name, **wrong}
        error = "no error"
        with connect("localhost", listener.getsockname()[1], io_engine="syscall") as connection:
            try:
                handshake(connection, ClientConfig(**options))  # type: ignore[arg-type]
            except KtlsLabError as refusal:
                error = refusal.answered
        heard = serving.result(_PATIENCE_S)
    return f"this end: {error}; the server: {heard}"


def _serve_wrongly(listener: socket.socket, config: ServerConfig) -> str:
    """Return the alert that ended a server's handshake, in its words."""
    with accept(listener, io_engine="syscall") as connection:
        try:
            shake = handshake(connection, config)
        except KtlsLabError as refusal:
            return refusal.answered
        return _alert(shake, connection.socket)


def _alert(shake: Handshake, sock: socket.socket) -> str:
    """Return what a client says after a server's handshake: an alert, or nothing."""
    data = sock.recv(_ROOM)
    if not data:
        return "nothing, and the end of the connection"
    keys = export(shake).rx
    _, plain = open_record(keys.suite, keys.key.reveal(), keys.write_iv.reveal(), keys.sequence, data)
    return f"the alert {Alert.parse(plain)}" if len(plain) == ALERT_BYTES else f"{len(plain)} bytes"


def _named(groups: Iterable[int]) -> str:
    return ", ".join(_GROUPS.get(group, f"{group:#06x}") for group in groups) or "none"


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")
