"""Stage 2, handshake: TLS in userspace, as a client or a server. It reads no byte past the end of the handshake.

The state machine (`ktlslab.tls.unbuffered`) decides what to do, and the loop in `handshake` moves the bytes. It reads
the five-byte header of a record, then exactly that record, so everything after the handshake stays in the socket for
the next reader. The peer's certificate and name are verified before the last flight is sent; a failure there is an
error, never a fallback.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Never

from cryptography import x509

from ktlslab import _checks
from ktlslab._html import card
from ktlslab.errors import CertificateError, HandshakeError, NotTlsError, PeerTimeoutError, UsageError, errno_name
from ktlslab.linux import tcpinfo
from ktlslab.linux.ktls import Direction
from ktlslab.linux.views import Rest
from ktlslab.stages.bound import Bound
from ktlslab.stages.config import ClientConfig, ServerConfig
from ktlslab.stages.connection import HANDSHAKE, Connection
from ktlslab.stages.lastword import let_it_be_heard
from ktlslab.tls.alerts import ALERT_BYTES, Alert
from ktlslab.tls.keylog import KeylogLine
from ktlslab.tls.libraries import AUTHORITY, UNNAMED, WRONG_NAME, Library, LibraryError
from ktlslab.tls.libraries.openssl import OpenSsl
from ktlslab.tls.records import (
    HEADER_BYTES,
    ContentType,
    HandshakeType,
    RecordHeader,
    describe,
    max_fragment_length,
)
from ktlslab.tls.suites import Suite, Version
from ktlslab.tls.unbuffered import State, UnbufferedConnection

Role = Literal["client", "server"]
_MAX_NAMES = 5  # of a certificate, in a message
# The common verification errors by OpenSSL's number (x509_vfy.h): what is wrong, and what to do.
_PROBLEMS = {
    9: ("the certificate is not valid yet", "Check this machine's clock."),
    10: ("the certificate has expired", "The server's operator must renew it; check this machine's clock."),
    18: ("the certificate is self-signed", "Trust it with ca=FILE (--ca FILE) if it is yours."),
    19: ("the chain ends in a self-signed certificate that is not trusted", "Trust it with ca=FILE (--ca FILE)."),
    20: ("the issuer is not trusted", "Name the authority's PEM file with ca=FILE (--ca FILE)."),
    AUTHORITY: (
        "the certificate is an authority's, not a server's",
        "The server needs one that an authority issued to it.",
    ),
    21: ("the chain is incomplete", "The server must send its intermediate certificates."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """A finished and verified handshake. `machine` is the TLS library, just before the first application data."""

    connection: Connection = field(repr=False)
    machine: UnbufferedConnection = field(repr=False)
    version: Version
    suite: Suite | None  # None: no kernel supports the negotiated suite
    suite_name: str
    server_name: str
    alpn: str | None
    secrets: dict[str, KeylogLine] = field(repr=False)
    role: Role = "client"
    resumed: bool = False  # from an earlier session, or with a PSK
    config: ClientConfig | ServerConfig = field(default_factory=ClientConfig, repr=False)

    @property
    def record_limit(self) -> int | None:
        """How many bytes of payload the peer lets this end put into a record, if it asked for fewer than 16,384.

        By max_fragment_length (RFC 6066), which OpenSSL grants as a server and does not ask for as a client, and rustls
        neither. Both know nothing of record_size_limit (RFC 8449), which is thus never agreed on.
        """
        asked = (r.payload for way, r in self.machine.transcript if way == "received")
        first = next((max_fragment_length(p) for p in asked if p[:1] == bytes([HandshakeType.CLIENT_HELLO])), None)
        return first if self.role == "server" and self.machine.library.name == "openssl" else None

    def __repr__(self) -> str:
        return f"Handshake({self.server_name}, {self.version.label}, {self.suite_name}, by {self.machine.library.name})"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [("version", self.version.label), ("cipher suite", self.suite_name)]
        rows += [("TLS library", self.machine.library.name), ("this end", self.role)]
        rows += [("application protocol", self.alpn or "none agreed")]
        rows += [("resumed", "yes: no certificate was sent")] if self.resumed else []
        rows += [(f"{direction} record", describe(record)) for direction, record in self.machine.transcript]
        return card(f"Handshake with {self.server_name}", rows)


def handshake(connection: Connection, config: ClientConfig | ServerConfig | None = None) -> Handshake:
    """Do the TLS handshake on a new connection: as a server if `config` is a ServerConfig, otherwise as a client.

    Raises CertificateError, NotTlsError, HandshakeError, PeerTimeoutError, UsageError.
    """
    config = ClientConfig() if config is None else config
    _checks.instance("TLS handshake", "connection", connection, Connection, "connect or accept makes one")
    tried = f"TLS handshake on {connection.target}"
    _checks.instance(tried, "config", config, (ClientConfig, ServerConfig))
    if isinstance(config, ServerConfig):
        role: Role = "server"
        name = connection.host
        library, verified = _server(config), True  # a client's certificate has no name to check
    else:
        role = "client"
        name = config.server_name or connection.host
        library = _client(config, name)
        verified = not config.verify or library.checks_names
    connection.begin(tried, HANDSHAKE)
    machine = UnbufferedConnection(library, server=role == "server")
    tried = f"TLS handshake with {name} at {connection.target}"
    psk = config.psk is not None
    with Bound(connection, Direction.RX):  # one time-out for all
        while machine.state is not State.WRITE_TRAFFIC:
            if machine.finished and not verified:
                _verify_name(machine.library, name, tried, psk=psk)
                verified = True
            match machine.state:
                case State.ENCODE_TLS_DATA:
                    outgoing = machine.encode()
                case State.TRANSMIT_TLS_DATA:
                    _transmit(connection, machine, outgoing, name, tried)
                case State.BLOCKED_HANDSHAKE:
                    record = _read_record(connection, tried)
                    try:
                        machine.feed(record)
                    except LibraryError as error:
                        _give_up(connection, machine, error, name, tried)
                    except HandshakeError:  # from one of our callbacks, such as the choice of a protocol
                        _send_alert(connection, machine, tried)
                        raise
    if not verified:
        _verify_name(machine.library, name, tried, psk=psk)
    suite = library.suite
    return Handshake(
        connection=connection,
        machine=machine,
        version=machine.version,
        suite=suite,
        suite_name=suite.name if suite else library.suite_name,
        server_name=name if role == "client" else library.server_name,
        role=role,
        resumed=library.resumed,
        config=config,
        alpn=library.alpn,
        secrets=library.secrets,
    )


def _client(config: ClientConfig, name: str) -> Library:
    asked = name
    if not _is_ip(name):
        try:
            asked = name.encode("idna").decode()
        except UnicodeError as error:
            remedy = "Give the name that the server's certificate holds."
            raise UsageError(f"asking for the server {name!r}", answered=str(error), remedy=remedy) from error
    if config.library == "rustls":
        from ktlslab.tls.libraries.rustls import Rustls  # noqa: PLC0415 - an extra

        return Rustls.client(config, asked)
    library = OpenSsl.client(config, None if _is_ip(name) else asked)
    if config.resume:
        config.resume.offer(library, config)
    return library


def _server(config: ServerConfig) -> Library:
    if config.library == "rustls":
        from ktlslab.tls.libraries.rustls import Rustls  # noqa: PLC0415 - an extra

        return Rustls.server(config)
    return OpenSsl.server(config)


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _verify_name(library: Library, name: str, tried: str, *, psk: bool) -> None:
    """Check the server's name by RFC 9525 (service-identity), before the client's last flight is sent.

    A server that accepts the client's PSK has authenticated itself by that and sends no certificate.
    """
    from service_identity import CertificateError as Unacceptable  # noqa: PLC0415 - 60 ms that plain TCP need not pay
    from service_identity import VerificationError  # noqa: PLC0415
    from service_identity.cryptography import (  # noqa: PLC0415
        verify_certificate_hostname,
        verify_certificate_ip_address,
    )

    certificate = library.certificate
    if psk and certificate is None and (library.resumed or "PSK" in library.suite_name):
        return
    try:
        if certificate is None:
            raise CertificateError(tried, answered="the server sent no certificate", remedy="Is it the right server?")
        if _is_ip(name):
            verify_certificate_ip_address(certificate, name)
        else:
            verify_certificate_hostname(certificate, name)
    except (VerificationError, Unacceptable) as error:
        assert certificate is not None  # noqa: S101 - for the type checker: it was looked into
        raise _wrong_name(tried, name, _names(certificate)) from error


def _wrong_name(tried: str, name: str, names: Sequence[str]) -> CertificateError:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    listed = f"{', '.join(names[:_MAX_NAMES])}{more}" if names else "no host at all"
    remedy = f"It is for {listed}: connect to such a name, or give it as server_name."
    return CertificateError(tried, answered=f"the certificate is not for {name!r}", remedy=remedy)


def _names(certificate: x509.Certificate) -> list[str]:
    """Return the host names and addresses of a certificate."""
    with contextlib.suppress(x509.ExtensionNotFound, ValueError):
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [*held.get_values_for_type(x509.DNSName), *map(str, held.get_values_for_type(x509.IPAddress))]
    return []


def _send_all(connection: Connection, data: bytes, tried: str) -> None:
    view = memoryview(data)
    try:
        with Bound(connection, Direction.TX) as bound:
            while view:
                bound.check()
                view = view[connection.engine.send(connection.socket, view) :]
    except TimeoutError as error:
        raise _no_answer(connection, tried) from error
    except OSError as error:
        raise _broken(error.errno or 0, tried) from error


def _read_record(connection: Connection, tried: str) -> bytes:
    """Read exactly one record."""
    header = _read_exactly(connection, HEADER_BYTES, tried)
    try:
        length = RecordHeader.parse(header).length
    except ValueError as error:
        remedy = "Is this a TLS port? The server answers in clear text."
        answered = f"the answer is not a TLS record ({header!r})"
        raise NotTlsError(tried, answered=answered, remedy=remedy) from error
    return header + _read_exactly(connection, length, tried)


def _read_exactly(connection: Connection, count: int, tried: str) -> bytes:
    data = bytearray(count)
    have = 0
    while have < count:
        try:
            with Bound(connection, Direction.RX) as bound, Rest(data, have) as rest:
                bound.check()
                got = connection.engine.recv_into(connection.socket, rest)
        except TimeoutError as error:
            raise _no_answer(connection, tried) from error
        except OSError as error:
            raise _broken(error.errno or 0, tried) from error
        if not got:
            remedy = "Is this a TLS port, and does the server accept this version and suite?"
            raise HandshakeError(tried, answered="the peer closed the connection", remedy=remedy)
        have += got
    return bytes(data)


def _no_answer(connection: Connection, tried: str) -> PeerTimeoutError:
    answered = f"no answer within {connection.engine.timeout} s"
    return PeerTimeoutError(tried, answered=answered, remedy="Does the port speak TLS? A longer timeout may help.")


def _broken(number: int, tried: str) -> HandshakeError:
    remedy = "Does the server accept this version and suite?"
    return HandshakeError(tried, answered=errno_name(number), remedy=remedy)


def _send_alert(connection: Connection, machine: UnbufferedConnection, tried: str) -> None:
    """Try to send the library's alert, if it made one, and let the peer read it before the connection ends."""
    if alert := machine.encode():
        with contextlib.suppress(HandshakeError, PeerTimeoutError):
            _send_all(connection, alert, tried)
            let_it_be_heard(connection.socket, connection.engine.timeout)


def _transmit(connection: Connection, machine: UnbufferedConnection, data: bytes, name: str, tried: str) -> None:
    try:
        _send_all(connection, data, tried)
    except HandshakeError:
        _hear_out(connection, machine, name, tried)
        raise
    machine.transmitted()


def _hear_out(connection: Connection, machine: UnbufferedConnection, name: str, tried: str) -> None:
    """Raise the error for the alert that the peer sent before its TCP reset the connection, if it did."""
    if tcpinfo.state(connection.socket) != tcpinfo.CLOSED:  # a receive could wait
        return
    while not machine.finished:
        try:
            record = _read_record(connection, tried)
        except (HandshakeError, PeerTimeoutError):  # nothing is left
            return
        try:
            machine.feed(record)
        except LibraryError as error:
            if "alert" not in error.reason:
                return
            _give_up(connection, machine, error, name, tried)


def _give_up(
    connection: Connection, machine: UnbufferedConnection, error: LibraryError, name: str, tried: str
) -> Never:
    """Send the alert and raise the failure with a message for people."""
    _send_alert(connection, machine, tried)
    if error.problem == WRONG_NAME and error.names is not None:
        raise _wrong_name(tried, name, error.names) from error
    if error.problem:
        answered, remedy = _PROBLEMS.get(error.problem) or _unnamed(error)
        raise CertificateError(tried, answered=answered, remedy=remedy) from error
    answered, said = error.reason, error.alert
    who, last = machine.transcript[-1] if machine.transcript else ("", None)
    if last and last.header.content_type == ContentType.ALERT and len(last.payload) == ALERT_BYTES:
        if who == "received":
            said = str(Alert.parse(last.payload))
        else:
            answered = f"{answered}; this end sent the alert {Alert.parse(last.payload)}"
    if said:
        answered = f"the peer sent the alert {said}"
        raise HandshakeError(tried, answered=answered, remedy="Try other versions or suites.") from error
    if "did not return a certificate" in answered:
        remedy = "The client must give one: ClientConfig(certificate=..., key=...)."
        raise CertificateError(tried, answered=answered, remedy=remedy) from error
    raise HandshakeError(tried, answered=answered, remedy="Try other versions or suites.") from error


def _unnamed(error: LibraryError) -> tuple[str, str]:
    """Return what is wrong with a certificate, and what to do, where it is not in the table."""
    if error.problem == UNNAMED:
        return f"the certificate was not accepted ({error.reason})", "Is it the right server, and its whole chain?"
    return f"the certificate was not accepted (X509_V_ERR {error.problem})", "See openssl-verify(1)."
