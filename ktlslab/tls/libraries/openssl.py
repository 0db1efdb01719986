"""OpenSSL as the library of a connection, through pyOpenSSL and two memory BIOs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ktlslab.tls import openssl
from ktlslab.tls.contexts import Noted, client_context, server_context
from ktlslab.tls.libraries import Buffer, LibraryError, Name
from ktlslab.tls.suites import Suite, Version
from ktlslab.tls.traffic import Traffic

if TYPE_CHECKING:
    from cryptography import x509

    from ktlslab.tls.contexts import ClientSide, ServerSide

_CHUNK = 1 << 14


class OpenSsl:
    """One connection. `connection` is pyOpenSSL's."""

    name: Name = "openssl"
    checks_names = False

    def __init__(self, connection: SSL.Connection) -> None:
        self.connection = connection
        self._noted = Noted()
        self.secrets = self._noted.secrets
        connection.set_app_data(self._noted)

    @classmethod
    def client(cls, config: ClientSide, name: str | None) -> OpenSsl:
        """Return a client that asks for the server `name` (ASCII; None: an address, which is not sent)."""
        connection = SSL.Connection(client_context(config), None)
        if name is not None:
            connection.set_tlsext_host_name(name.encode())
        if config.alpn:
            connection.set_alpn_protos([protocol.encode() for protocol in config.alpn])
        connection.set_connect_state()
        return cls(connection)

    @classmethod
    def server(cls, config: ServerSide) -> OpenSsl:
        connection = SSL.Connection(server_context(config), None)
        connection.set_accept_state()
        return cls(connection)

    def resume(self, session: object) -> None:
        """Offer an earlier session, before the handshake begins."""
        openssl.resume(self.connection, session)

    def advance(self) -> bool:
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            problems = self._noted.problems
            raise LibraryError(reason(error), problem=problems[0] if problems else 0) from error
        return True

    def feed(self, records: Buffer, /) -> None:
        self.connection.bio_write(records)

    def take(self) -> bytes:
        data = b""
        try:
            while True:
                data += self.connection.bio_read(_CHUNK)
        except SSL.WantReadError:
            return data

    def pending(self) -> int:
        return self.connection.pending()

    def shutdown(self) -> None:
        self.connection.shutdown()

    @functools.cached_property
    def traffic(self) -> Traffic:
        return Traffic(self.connection)

    @property
    def version(self) -> Version:
        return Version.of(self.connection.get_protocol_version_name())

    @property
    def suite(self) -> Suite | None:
        return Suite.from_openssl(self.suite_name)

    @property
    def suite_name(self) -> str:
        return self.connection.get_cipher_name() or "?"

    @property
    def alpn(self) -> str | None:
        return self.connection.get_alpn_proto_negotiated().decode() or None

    @property
    def server_name(self) -> str:
        # A client may send anything; it is only shown.
        return (self.connection.get_servername() or b"").decode("ascii", "backslashreplace")

    @property
    def resumed(self) -> bool:
        return openssl.resumed(self.connection)

    @property
    def certificate(self) -> x509.Certificate | None:
        return self.connection.get_peer_certificate(as_cryptography=True)

    @property
    def session(self) -> object | None:
        return self.connection.get_session()


def reason(error: SSL.Error) -> str:
    """Return OpenSSL's words for a failure."""
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(one[2] for one in reasons) or "OpenSSL gave no reason"
