"""What either end of a handshake brings and insists on. `tls.contexts` makes OpenSSL's contexts of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.tls import openssl
from ktlslab.tls.suites import Suite, Version

if TYPE_CHECKING:
    from OpenSSL import SSL

T = TypeVar("T")

# Of OpenSSL (PSK_MAX_PSK_LEN, PSK_MAX_IDENTITY_LEN in openssl/ssl.h), and of a protocol's name (RFC 7301, 3.1).
_MAX_PSK_BYTES, _MAX_IDENTITY_BYTES, _MAX_PROTOCOL_BYTES = 512, 256, 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Psk:
    """A key agreed on beforehand (RFC 8446, 4.2.11). In TLS 1.3 it goes with suites of SHA-256."""

    identity: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        tried = "describing a key agreed on beforehand"
        for name, value, most in (
            ("identity", _checks.text(tried, "identity", self.identity, "a name").encode(), _MAX_IDENTITY_BYTES),
            ("key", _checks.instance(tried, "key", self.key, bytes), _MAX_PSK_BYTES),
        ):
            if not 1 <= len(value) <= most:
                raise UsageError(tried, answered=f"`{name}` has {len(value)} bytes", remedy=f"It takes 1 to {most}.")


class Resumption:
    """A former session that a client may take up again: give it as `ClientConfig(resume=...)`. Secret, and opaque.

    A server that is resumed with shows no certificate: what it showed in the former session counts. So it matters what
    the client of that one insisted on, its `former` config.
    """

    __slots__ = ("_former", "_session", "server_name")

    def __init__(self, session: SSL.Session, server_name: str, former: ClientConfig | None) -> None:
        self._session = session
        self._former = former
        self.server_name = server_name

    def offer(self, library: SSL.Connection, config: ClientConfig) -> None:
        """Let a client that has not begun its handshake offer this session.

        UsageError where it insists on a certificate, and the former session did not, or trusted other authorities.
        """
        former = self._former
        if config.verify and not (former and former.verify and former.ca == config.ca):
            answered = "in that session the server's certificate was not checked, or against other authorities"
            remedy = "Resume with the `verify` and `ca` of the former session, or open a new one."
            raise UsageError(f"resuming a session with {self.server_name}", answered=answered, remedy=remedy)
        openssl.resume(library, self._session)

    def __repr__(self) -> str:
        return f"Resumption({self.server_name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What a client asks for and insists on.

    `server_name` (default: the host connected to) goes into SNI and must be in the certificate. `ca` is a PEM file of
    trusted authorities, None the system's. `suites` limits the offer, and with it the versions. `groups` are the key
    exchanges by OpenSSL's names, best first. `certificate` and `key` (PEM; None: in the same file) prove this client
    where the server asks. `resume` offers a former session, `psk` a key agreed on beforehand.

    A list, or a single one, may stand for each tuple, a name for a suite or version (`Suite.of`, `Version.of`), a
    string for a path. UsageError for what makes no sense.
    """

    server_name: str | None = None
    ca: Path | None = None
    verify: bool = True
    versions: tuple[Version, ...] = (Version.TLS12, Version.TLS13)
    suites: tuple[Suite, ...] | None = None
    groups: tuple[str, ...] | None = None
    alpn: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    resume: Resumption | None = None
    psk: Psk | None = None

    def __post_init__(self) -> None:
        tried = "configuring a TLS client"
        _settle(self, tried, ("certificate", "key", "ca"))
        _checks.optional(_checks.text, tried, "server_name", self.server_name, "a host's name")
        _checks.instance(tried, "verify", self.verify, bool)
        _checks.optional(_checks.instance, tried, "resume", self.resume, Resumption, "Stream.resumption() gives one")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What a server shows and agrees to.

    `certificate` is a PEM chain, `key` its key (None: in the same file); `ktlslab.make_certificates` makes throw-away
    ones. `alpn` best first. With `client_ca` a client must show a certificate of that authority. Connections accepted
    with an equal config share ticket keys, so that a client may resume with another of them. Lists, names and strings
    as in `ClientConfig`.
    """

    certificate: Path
    key: Path | None = None
    versions: tuple[Version, ...] = (Version.TLS12, Version.TLS13)
    suites: tuple[Suite, ...] | None = None
    groups: tuple[str, ...] | None = None
    alpn: tuple[str, ...] = ()
    client_ca: Path | None = None
    psk: Psk | None = None

    def __post_init__(self) -> None:
        tried = "configuring a TLS server"
        _checks.path(tried, "certificate", self.certificate)
        _settle(self, tried, ("certificate", "key", "client_ca"))


def _settle(config: ClientConfig | ServerConfig, tried: str, paths: tuple[str, ...]) -> None:
    """Check what both have in common, and put it into the form that is used."""
    settled: dict[str, Any] = {
        "versions": _checks.several(tried, "versions", config.versions, lambda *given: Version.of(given[-1])),
        "suites": _some(tried, "suites", config.suites, lambda *given: Suite.of(given[-1])),
        "groups": _some(tried, "groups", config.groups, _checks.text),
        "alpn": _checks.several(tried, "alpn", config.alpn, _protocol),
        **{name: _checks.optional(_checks.path, tried, name, getattr(config, name)) for name in paths},
    }
    _checks.optional(_checks.instance, tried, "psk", config.psk, Psk)
    for name, value in settled.items():
        object.__setattr__(config, name, value)  # frozen for everyone else


def _some(tried: str, name: str, value: Any, check: Callable[[str, str, Any], T]) -> tuple[T, ...] | None:
    return None if value is None else _checks.several(tried, name, value, check)


def _protocol(tried: str, name: str, value: Any) -> str:
    protocol = _checks.text(tried, name, value, "protocols such as h2")
    if len(protocol.encode()) > _MAX_PROTOCOL_BYTES:
        remedy = f"A protocol's name has at most {_MAX_PROTOCOL_BYTES} bytes (RFC 7301)."
        raise UsageError(tried, answered=f"`{name}` holds a name of {len(protocol.encode())}", remedy=remedy)
    return protocol
