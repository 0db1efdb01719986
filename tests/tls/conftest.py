"""A whole TLS connection in memory, made by OpenSSL, with everything that an observer of wire and key log would have.

`openssl_pair` is the oracle of these tests: another implementation makes what it sends and checks what it accepts. It
uses nothing of ktlslab except the names of suites.
"""

from __future__ import annotations

from base64 import encodebytes
from dataclasses import dataclass, field
from fractions import Fraction
from math import factorial
from typing import TYPE_CHECKING

import pytest
import trustme
from OpenSSL import SSL

from ktlslab.tls import KeylogLine, Record, RecordSplitter, Suite, Version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(kw_only=True)
class Side:
    """One end; `wire` splits what this end makes, `sent` keeps it."""

    connection: SSL.Connection
    wire: RecordSplitter = field(default_factory=RecordSplitter)
    sent: list[Record] = field(default_factory=list)

    def flush(self) -> list[bytes]:
        """Return the records that this end has just made, without passing them on."""
        while True:
            try:
                self.wire.feed(self.connection.bio_read(2**16))
            except SSL.WantReadError:
                made = list(self.wire)
                self.sent += made
                return [record.raw for record in made]

    def give(self, *records: bytes) -> None:
        """Put records into this end's input."""
        for record in records:
            self.connection.bio_write(record)


@dataclass(kw_only=True)
class Pair:
    """Both ends after the handshake, with nothing in flight except what tests send."""

    client: Side
    server: Side
    secrets: dict[str, KeylogLine]
    after_handshake: list[bytes]
    """What the server sent once its handshake was over: TLS 1.3's session tickets. Not yet given to the client."""


def _ffdhe2048_pem() -> bytes:
    """Return the group of RFC 7919 A.1 as PEM, from the formula that defines it there."""
    e = sum((Fraction(1, factorial(i)) for i in range(400)), Fraction(0))
    prime = 2**2048 - 2**1984 + (int(2**1918 * e) + 560316) * 2**64 - 1
    # DER by hand, SEQUENCE { INTEGER prime, INTEGER 2 }: `cryptography` is dropping finite fields.
    der = b"\x02\x82\x01\x01" + prime.to_bytes(257, "big") + b"\x02\x01\x02"
    der = b"\x30\x82" + len(der).to_bytes(2, "big") + der
    return b"-----BEGIN DH PARAMETERS-----\n" + encodebytes(der) + b"-----END DH PARAMETERS-----\n"


@pytest.fixture(scope="session")
def server_contexts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Suite], SSL.Context]:
    """Return a maker of server contexts; the certificates, which are slow to make, are made once."""
    authority = trustme.CA()
    certificates = {
        "ECDSA": authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA),
        "RSA": authority.issue_cert("localhost", key_type=trustme.KeyType.RSA),
    }
    group: Path = tmp_path_factory.mktemp("dh") / "ffdhe2048.pem"
    group.write_bytes(_ffdhe2048_pem())

    def make(suite: Suite) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        needs_ecdsa = suite.version is Version.TLS13 or "_ECDSA_" in suite.name
        certificates["ECDSA" if needs_ecdsa else "RSA"].configure_cert(context)
        context.load_tmp_dh(str(group))
        return context

    return make


@pytest.fixture
def openssl_pair(server_contexts: Callable[[Suite], SSL.Context]) -> Callable[[Suite], Pair]:
    def connect(suite: Suite) -> Pair:
        secrets: dict[str, KeylogLine] = {}

        def keep(_connection: SSL.Connection, line: bytes) -> None:
            parsed = KeylogLine.parse(line)
            secrets[parsed.label] = parsed

        contexts = SSL.Context(SSL.TLS_METHOD), server_contexts(suite)
        for context in contexts:
            _only(context, suite)
        contexts[0].set_keylog_callback(keep)
        client, server = (Side(connection=SSL.Connection(context)) for context in contexts)
        client.connection.set_connect_state()
        server.connection.set_accept_state()
        last_of_server = _shake_hands(client, server)
        assert client.connection.get_cipher_name() == suite.openssl_name
        return Pair(client=client, server=server, secrets=secrets, after_handshake=last_of_server)

    return connect


def _only(context: SSL.Context, suite: Suite) -> None:
    if suite.version is Version.TLS13:
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(suite.openssl_name.encode())
    else:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(suite.openssl_name.encode())


def _shake_hands(client: Side, server: Side) -> list[bytes]:
    """Drive the handshake until both ends are done; return what the server sent after the client was done."""
    for _ in range(10):
        client_done = _step(client)
        server.give(*client.flush())
        server_done = _step(server)
        flight = server.flush()
        if client_done and server_done:
            return flight
        client.give(*flight)
    pytest.fail("the handshake does not end")


def _step(side: Side) -> bool:
    try:
        side.connection.do_handshake()
    except SSL.WantReadError:
        return False
    return True
