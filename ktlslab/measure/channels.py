"""A measured connection with any record layer: the calls that a step repeats, bound once, and the proof of path.

Most arms are a ktlslab `Session`. In `userspace-rustls` rustls has OpenSSL's place and is called from Python: comparing
it with `userspace` compares the bindings as well. Two arms are OpenSSL's own. `stdlib-ssl` is Python's SSLSocket,
blocking, as in common use. `openssl-ktls` is the same with SSL_OP_ENABLE_KTLS, where OpenSSL itself passes its keys to
the kernel. The socket shows for which directions it did: Debian 12's OpenSSL 3.0 installs both for TLS 1.2, but only TX
for TLS 1.3.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ktlslab.errors import MachineError, MissingExtraError, RecordLayerUnavailableError, TruncatedError
from ktlslab.linux import ktls
from ktlslab.linux.counters import Counters
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer, Ring
from ktlslab.measure.peer import offered, set_up
from ktlslab.measure.plan import BLOCKING_ONLY, Cell
from ktlslab.packages import require
from ktlslab.runs import clocks
from ktlslab.session import Session, open_session
from ktlslab.stages import BOTH, ClientConfig, Why, connect
from ktlslab.tls.libraries import RUSTLS_SUITES, Name
from ktlslab.tls.records import MAX_PLAINTEXT
from ktlslab.tls.suites import Suite, Version

# Under the instruction clock the time of an idle machine jumps to the next timer. A peer that waits for the host's disk
# would time out at once, so there is no timeout.
TIMEOUT_S = None if clocks.current() == "instructions" else 60.0
OP_ENABLE_KTLS = 1 << 3  # ssl.OP_ENABLE_KTLS from Python 3.12 on
RUSTLS = "userspace-rustls"
_NAME = "localhost"  # the name in the peer's certificate, whatever its address
_VERSIONS = {Version.TLS12: ssl.TLSVersion.TLSv1_2, Version.TLS13: ssl.TLSVersion.TLSv1_3}
_TX, _RX = (Direction.TX,), (Direction.RX,)
_SESSION = {BOTH: "kernel", _TX: "kernel-tx", _RX: "kernel-rx"}
_OTHERWISE = {None: "plain", "openssl": "userspace", "rustls": RUSTLS}  # by the library of the handshake
_UNLIMITED = {"userspace", "kernel-rx", "stdlib-ssl", RUSTLS}
_OPENSSL = {BOTH: "openssl-ktls", _TX: "openssl-ktls"}


class LeftOut(MachineError):  # noqa: N818 - not a failure: the sweep continues without the arm and says why
    """This machine lacks something that the arm needs and that is optional: a sweep leaves the arm out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the peer listens, and the CA that signed its certificate."""

    plain: int
    secure: int
    ca: Path
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One open connection. `send` sends all, `receive` fills its buffer, `send_file` takes (file, offset, count).

    `kernel`: the directions for which the kernel has keys. `counters`: what opening it changed in /proc/net/tls_stat.
    `names`: the record layer's name, by the directions in which the kernel made records. `otherwise`: its name where
    the tls module is not on the socket.
    """

    socket: socket.socket
    send: Callable[[Buffer], object]
    send_many: Callable[[Sequence[Buffer]], object]
    send_file: Callable[[BinaryIO, int, int], object]
    receive: Callable[[Buffer], object]
    close: Callable[[], None]
    counters: Counters
    kernel: tuple[Direction, ...]
    cipher_type: int
    names: Mapping[tuple[Direction, ...], str]
    otherwise: str

    def records(self) -> dict[Direction, int]:
        """Read the kernel's sequence numbers, for the directions for which it has keys."""
        return {direction: ktls.sequence_number(self.socket, direction, self.cipher_type) for direction in self.kernel}

    def observed(self, moved: Mapping[Direction, int]) -> str:
        """Say who made the records, from what the kernel shows: its sequence numbers, tls_stat and the socket's ULP."""
        counted = {Direction.TX: "TlsTxSw", Direction.RX: "TlsRxSw"}
        directions = tuple(
            direction
            for direction in Direction
            if moved.get(direction, 0) > 0 and self.counters[counted[direction]] > 0
        )
        if directions:
            return self.names.get(directions, "none")
        # With the tls module on the socket, the kernel should have made records and did not. Without it, the peer's
        # port decides: one accepts only TLS, the other only plain TCP.
        return "none" if ktls.attached(self.socket) else self.otherwise


def open_channel(cell: Cell, ports: Ports, ring: Ring | None = None) -> Channel:
    """Open a channel. MachineError: the machine cannot do what the cell asks for; LeftOut: and need not."""
    refuse(cell)
    channel = _openssl(cell, ports) if cell.record_layer in BLOCKING_ONLY else _session(cell, ports, ring)
    with contextlib.ExitStack() as undo:
        undo.callback(channel.close)
        set_up(channel.socket)
        undo.pop_all()
    return channel


def refuse(cell: Cell) -> None:
    """Raise LeftOut where it is known beforehand that the arm is not available."""
    if cell.suite and Suite[cell.suite].openssl_name not in _offered():
        answered = f"the peer's {ssl.OPENSSL_VERSION} does not offer the suite"
        raise LeftOut(_tried(cell), answered=answered, remedy="Python 3.15 and later can add TLS 1.3 suites.")
    if cell.record_size < MAX_PLAINTEXT and cell.record_layer in _UNLIMITED:
        answered = "neither pyOpenSSL, rtls nor the standard library's ssl can limit the records that the library makes"
        remedy = "Use an arm in which the kernel makes the sent records, or plain."
        raise LeftOut(_tried(cell), answered=answered, remedy=remedy)
    if cell.record_layer == RUSTLS:
        if Suite[cell.suite] not in RUSTLS_SUITES:
            raise LeftOut(_tried(cell), answered="rustls does not have the suite", remedy="Choose another suite.")
        try:
            require("rustls", "rtls")
        except MissingExtraError as error:
            raise LeftOut(_tried(cell), answered=error.answered, remedy=error.remedy) from error


_offered = functools.cache(offered)


def _tried(cell: Cell) -> str:
    return f"opening {cell.session_name}"


def _session(cell: Cell, ports: Ports, ring: Ring | None) -> Channel:
    rustls = cell.record_layer == RUSTLS
    try:
        session = open_session(
            ports.address,
            ports.plain if cell.record_layer == "plain" else ports.secure,
            config=_config(cell, ports) if cell.suite else None,
            record_layer="userspace" if rustls else cell.record_layer,  # type: ignore[arg-type]  # the plan has checked it
            io_engine=cell.io_engine,  # type: ignore[arg-type]
            ring=ring,
            timeout=TIMEOUT_S,
        )
    except RecordLayerUnavailableError as error:
        raise unmet(cell, error) from error
    with contextlib.ExitStack() as undo:
        undo.callback(session.close)
        if rustls and session.suite_name != cell.suite:
            answered = f"rtls cannot choose a TLS 1.3 suite; the peer chose {session.suite_name}"
            raise LeftOut(_tried(cell), answered=answered, remedy="Measure that suite.")
        limit_records(session, cell)
        undo.pop_all()
    return channel_of(session)


def _config(cell: Cell, ports: Ports) -> ClientConfig:
    suite = Suite[cell.suite]
    if cell.record_layer == RUSTLS and suite.version is Version.TLS13:
        return ClientConfig(server_name=_NAME, ca=ports.ca, versions=(suite.version,), library="rustls")
    library: Name = "rustls" if cell.record_layer == RUSTLS else "openssl"
    return ClientConfig(server_name=_NAME, ca=ports.ca, suites=(suite,), library=library)


def limit_records(session: Session, cell: Cell) -> None:
    """Limit the records that a session's kernel makes to the cell's size. LeftOut where the kernel cannot."""
    if cell.record_size < MAX_PLAINTEXT and cell.suite:
        with _or_left_out(cell):
            session.stream.limit_records(cell.record_size)


def channel_of(session: Session) -> Channel:
    """Return the channel of an open session."""
    stream = session.stream
    return Channel(
        socket=stream.connection.socket,
        send=stream.send,
        send_many=stream.send_many,
        send_file=stream.sendfile,
        receive=stream.recv_exactly_into,
        close=session.close,
        counters=session.counters,
        kernel=tuple(direction for direction in Direction if stream.layers[direction] == "kernel"),
        cipher_type=session.suite.cipher.kernel_type if session.suite else 0,
        names=_SESSION,
        otherwise=_OTHERWISE[session.library],
    )


def unmet(cell: Cell, error: RecordLayerUnavailableError) -> MachineError:
    """Return the error for a kernel that did not take a cell's sessions: LeftOut where it only lacks the cipher."""
    remedy = "Measure in a guest: `--on newest` boots one; `ktlslab doctor` says what is missing."
    kind = LeftOut if error.why is Why.CIPHER_REFUSED else MachineError
    return kind(_tried(cell), answered=error.answered, remedy=remedy)


@contextlib.contextmanager
def _or_left_out(cell: Cell) -> Any:
    try:
        yield
    except MachineError as error:
        answered = f"this kernel cannot limit its records (TLS_TX_MAX_PAYLOAD_LEN): {error.answered}"
        raise LeftOut(_tried(cell), answered=answered, remedy="Newer kernels can.") from error


def _openssl(cell: Cell, ports: Ports) -> Channel:
    """Open Python's own SSLSocket, connected and with the same timeout as all others."""
    suite, by_kernel = Suite[cell.suite], cell.record_layer == "openssl-ktls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ports.ca)
    context.minimum_version = context.maximum_version = _VERSIONS[suite.version]
    if by_kernel:
        context.options |= OP_ENABLE_KTLS
    try:
        if suite.version is Version.TLS12:
            context.set_ciphers(suite.openssl_name)
        elif hasattr(context, "set_ciphersuites"):  # Python 3.15
            context.set_ciphersuites(suite.openssl_name)
    except ssl.SSLError as error:
        answered = f"{ssl.OPENSSL_VERSION} does not offer it ({error.reason})"
        raise LeftOut(_tried(cell), answered=answered) from error
    before = Counters.read()
    connection = connect(ports.address, ports.secure, io_engine="syscall", timeout=TIMEOUT_S)
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        sock = context.wrap_socket(connection.socket, server_hostname=_NAME)
        undo.callback(sock.close)
        counters = Counters.read() - before
        negotiated = sock.cipher()
        if negotiated is None or negotiated[0] != suite.openssl_name:
            answered = f"Python's ssl cannot choose a TLS 1.3 suite; it negotiated {negotiated}"
            raise LeftOut(_tried(cell), answered=answered, remedy="Python 3.15 can.")
        kernel = _installed(sock, suite) if by_kernel else ()
        if by_kernel and Direction.TX not in kernel:
            answered = f"{ssl.OPENSSL_VERSION} did not pass the records to the kernel"
            remedy = "This needs a kernel with the tls module and an OpenSSL built with enable-ktls."
            raise LeftOut(_tried(cell), answered=answered, remedy=remedy)
        if cell.record_size < MAX_PLAINTEXT:
            with _or_left_out(cell):
                _limit(sock, cell)
        undo.pop_all()
    return Channel(
        socket=sock,
        send=sock.sendall,
        send_many=_one_after_the_other(sock.sendall),
        send_file=_from(sock),
        receive=_filling(sock.recv_into),
        close=sock.close,
        counters=counters,
        kernel=kernel,
        cipher_type=suite.cipher.kernel_type,
        names=_OPENSSL,
        otherwise="stdlib-ssl",
    )


def _installed(sock: socket.socket, suite: Suite) -> tuple[Direction, ...]:
    """Return the directions for which OpenSSL has given the kernel keys, as the socket shows them."""
    found = []
    if ktls.attached(sock):
        for direction in Direction:
            with contextlib.suppress(OSError):
                ktls.get_keys(sock, direction, suite.cipher.kernel_type)
                found.append(direction)
    return tuple(found)


def _limit(sock: socket.socket, cell: Cell) -> None:
    try:
        ktls.set_max_payload(sock, cell.record_size)
    except OSError as error:
        raise MachineError(_tried(cell), answered=str(error)) from error


def _from(sock: ssl.SSLSocket) -> Callable[[BinaryIO, int, int], object]:
    """Return SSLSocket.sendfile from any offset: with offset 0 it would start at the file's current position."""

    def send_file(file: BinaryIO, offset: int, count: int) -> None:
        file.seek(offset)
        sock.sendfile(file, offset, count)

    return send_file


def _one_after_the_other(send: Callable[[Buffer], object]) -> Callable[[Sequence[Buffer]], object]:
    def send_many(buffers: Sequence[Buffer]) -> None:
        for data in buffers:
            send(data)

    return send_many


def _filling(receive_into: Callable[[Any], int]) -> Callable[[Buffer], object]:
    """Return a call that fills its buffer, with one `recv_into` where all of it has arrived."""

    def receive(buffer: Buffer) -> None:
        have = receive_into(buffer)
        size = len(buffer)
        while 0 < have < size:
            with memoryview(buffer) as whole, whole[have:] as rest:
                got = receive_into(rest)
            if not got:
                break
            have += got
        if have != size:
            raise TruncatedError("receiving by Python's ssl", answered=f"the peer closed after {have} of {size} bytes")

    return receive
