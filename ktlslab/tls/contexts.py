"""OpenSSL's contexts, made from what one end offers and requires. Needs pyOpenSSL.

The protocols below describe what an end offers; the configs of `ktlslab.stages` implement them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from OpenSSL import SSL

from ktlslab.errors import HandshakeError, UsageError

from . import openssl
from .keylog import KeylogLine
from .suites import CIPHERS, Suite, Version

_WIRE = {Version.TLS12: SSL.TLS1_2_VERSION, Version.TLS13: SSL.TLS1_3_VERSION}
# OpenSSL offers AES-CCM in TLS 1.3 only if it is named. ARIA and SM4 are left out: few kernels have them.
_TLS13_SUITES = tuple(suite for suite in Suite if suite.version is Version.TLS13 and suite.cipher in CIPHERS)


class PreSharedKey(Protocol):
    """An external pre-shared key (RFC 8446, 4.2.11)."""

    @property
    def identity(self) -> str: ...
    @property
    def key(self) -> bytes: ...


class Offer(Protocol):
    """What both kinds of ends have. Paths are PEM files."""

    @property
    def versions(self) -> Sequence[Version]: ...
    @property
    def suites(self) -> Sequence[Suite] | None: ...
    @property
    def groups(self) -> Sequence[str] | None: ...
    @property
    def alpn(self) -> Sequence[str]: ...
    @property
    def certificate(self) -> Path | None: ...
    @property
    def key(self) -> Path | None: ...
    @property
    def psk(self) -> PreSharedKey | None: ...


class ClientSide(Offer, Protocol):
    """What a client requires in addition."""

    @property
    def ca(self) -> Path | None: ...
    @property
    def verify(self) -> bool: ...


class ServerSide(Offer, Protocol):
    """What a server requires in addition. Hashable: equal ones get the same context."""

    @property
    def client_ca(self) -> Path | None: ...
    def __hash__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Noted:
    """What OpenSSL's callbacks report about one connection; attach it with `set_app_data`.

    The connections of a server share a context, so the callbacks find this object through the connection.
    """

    secrets: dict[str, KeylogLine] = field(default_factory=dict)
    problems: list[int] = field(default_factory=list)  # with the peer's certificate, by OpenSSL's number


def client_context(config: ClientSide) -> SSL.Context:
    """Return OpenSSL's context for a client. UsageError for unreadable files and unknown names."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    _common(context, config)
    if config.verify:
        context.set_verify(SSL.VERIFY_PEER, _note_problem)
    if config.certificate:
        _prove(context, config.certificate, config.key)
    if config.ca is None:
        context.set_default_verify_paths()
    else:
        _trust(context, config.ca)
    if config.psk:
        openssl.set_client_psk(context, config.psk.identity.encode(), config.psk.key)
    return context


def server_context(config: ServerSide) -> SSL.Context:
    """Return OpenSSL's context for a server. Equal configs get the same one, as long as their files do not change."""
    files = [path for path in (config.certificate, config.key, config.client_ca) if path]
    try:
        return _server_context(config, tuple(path.stat().st_mtime_ns for path in files))
    except OSError as error:
        answered = f"{error.filename}: {error.strerror}"
        raise UsageError("configuring a TLS server", answered=answered, remedy="Give a PEM file.") from error


@functools.lru_cache(maxsize=32)
def _server_context(config: ServerSide, _changed: tuple[int, ...]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _common(context, config)
    if config.certificate:
        _prove(context, config.certificate, config.key)
    context.set_session_id(b"ktlslab")  # without it OpenSSL resumes no sessions of clients with certificates
    if config.client_ca:
        _trust(context, config.client_ca)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _note_problem)
    if config.alpn:
        wanted = [protocol.encode() for protocol in config.alpn]

        def choose(_: SSL.Connection, offered: Sequence[bytes]) -> bytes:
            for protocol in wanted:
                if protocol in offered:
                    return protocol
            answered = f"the client offers {', '.join(p.decode(errors='replace') for p in offered)}"
            remedy = "Agree on an application protocol (ALPN) on both sides."
            raise HandshakeError("choosing an application protocol", answered=answered, remedy=remedy)

        context.set_alpn_select_callback(choose)
    if config.psk:
        openssl.set_server_psk(context, config.psk.identity.encode(), config.psk.key)
    return context


def _common(context: SSL.Context, config: Offer) -> None:
    """Limit the versions, suites and groups to those of the config."""
    tried = "configuring TLS"
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    context.set_keylog_callback(_note_secret)
    versions = config.versions
    if config.suites is not None:
        versions = tuple(v for v in versions if any(suite.version is v for suite in config.suites))
    if not versions:
        remedy = "Give at least one of TLS 1.2 and 1.3 and a suite that belongs to it."
        raise UsageError(tried, answered="no version is left to offer", remedy=remedy)
    context.set_min_proto_version(min(_WIRE[v] for v in versions))
    context.set_max_proto_version(max(_WIRE[v] for v in versions))
    offered = _TLS13_SUITES if config.suites is None else config.suites
    if tls13 := [s.openssl_name for s in offered if s.version is Version.TLS13]:
        context.set_tls13_ciphersuites(":".join(tls13).encode())
    if tls12 := [s.openssl_name for s in offered if s.version is Version.TLS12]:
        context.set_cipher_list(":".join(tls12).encode())
    if config.groups:
        try:
            openssl.set_groups(context, tuple(config.groups))
        except ValueError as error:
            raise UsageError(tried, answered=str(error), remedy="Try X25519, P-256 or P-384.") from error


def _note_secret(library: SSL.Connection, line: bytes) -> None:
    parsed = KeylogLine.parse(line)
    library.get_app_data().secrets[parsed.label] = parsed


def _note_problem(library: SSL.Connection, _certificate: object, number: int, _depth: int, ok: int) -> bool:
    if not ok:
        library.get_app_data().problems.append(number)
    return bool(ok)


def _prove(context: Any, certificate: Path, key: Path | None) -> None:
    for path, load in (
        (certificate, context.use_certificate_chain_file),
        (key or certificate, context.use_privatekey_file),
    ):
        try:
            load(str(path))
        except SSL.Error as error:
            answered = "no certificate or key could be read from it, or they do not belong together"
            raise UsageError(f"reading {path}", answered=answered, remedy="Give PEM files.") from error


def _trust(context: SSL.Context, ca: Path) -> None:
    try:
        context.load_verify_locations(str(ca))
    except SSL.Error as error:
        answered = "no certificate could be read from it" if ca.exists() else "there is no such file"
        raise UsageError(f"reading {ca}", answered=answered, remedy="Give a PEM file.") from error
