"""What each end of a handshake offers and requires. `tls.libraries` turns it into the contexts of a TLS library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.packages import require
from ktlslab.tls import libraries
from ktlslab.tls.suites import Suite, Version

if TYPE_CHECKING:
    from ktlslab.tls.libraries.openssl import OpenSsl

T = TypeVar("T")

# OpenSSL's limits (PSK_MAX_PSK_LEN, PSK_MAX_IDENTITY_LEN in openssl/ssl.h), and a protocol name's (RFC 7301, 3.1).
_MAX_PSK_BYTES, _MAX_IDENTITY_BYTES, _MAX_PROTOCOL_BYTES = 512, 256, 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Psk:
    """An external pre-shared key (RFC 8446, 4.2.11). TLS 1.3 uses it with SHA-256 suites only."""

    identity: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        tried = "describing a pre-shared key"
        for name, value, most in (
            ("identity", _checks.text(tried, "identity", self.identity, "a name").encode(), _MAX_IDENTITY_BYTES),
            ("key", _checks.instance(tried, "key", self.key, bytes), _MAX_PSK_BYTES),
        ):
            if not 1 <= len(value) <= most:
                raise UsageError(tried, answered=f"`{name}` has {len(value)} bytes", remedy=f"It takes 1 to {most}.")


class Resumption:
    """An earlier session for a client to resume: `ClientConfig(resume=...)`. Secret, and opaque.

    In a resumed session the server sends no certificate; the one of the earlier session counts. `former` is the
    client's config of that session, which says how the certificate was checked.
    """

    __slots__ = ("_former", "_session", "server_name")

    def __init__(self, session: object, server_name: str, former: ClientConfig | None) -> None:
        self._session = session
        self._former = former
        self.server_name = server_name

    def offer(self, library: OpenSsl, config: ClientConfig) -> None:
        """Let a client offer this session before its handshake begins.

        UsageError if the client verifies certificates, and the earlier session did not or trusted other authorities.
        """
        former = self._former
        if config.verify and not (former and former.verify and former.ca == config.ca):
            answered = "that session did not check the server's certificate, or trusted other authorities"
            remedy = "Resume with the `verify` and `ca` of the earlier session, or open a new one."
            raise UsageError(f"resuming a session with {self.server_name}", answered=answered, remedy=remedy)
        library.resume(self._session)

    def reveal(self) -> bytes:
        """Return the session as bytes, from which `restored` makes it again: whoever has them can resume it.

        UsageError if OpenSSL cannot write it.
        """
        from ktlslab.tls import openssl  # noqa: PLC0415 - a config needs no pyOpenSSL

        try:
            return openssl.session_bytes(self._session)
        except ValueError as error:
            tried = f"writing a session with {self.server_name}"
            raise UsageError(tried, answered=str(error), remedy="Open a new session.") from error

    @classmethod
    def restored(cls, data: bytes, server_name: str, former: ClientConfig) -> Resumption:
        """Return the session of `reveal`. UsageError if the bytes are none."""
        from ktlslab.tls import openssl  # noqa: PLC0415 - as above

        try:
            return cls(openssl.session_of(data), server_name, former)
        except (ValueError, TypeError) as error:
            tried = f"restoring a session with {server_name}"
            raise UsageError(tried, answered=str(error), remedy="Open a new session.") from error

    def __repr__(self) -> str:
        return f"Resumption({self.server_name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What a client offers and requires.

    `server_name` (default: the host connected to) is sent as SNI and must be in the certificate. `ca` is a PEM file of
    trusted authorities; None means the system's. `suites` limits the offered suites, and so the versions. `groups` are
    the key exchange groups by OpenSSL's names, best first. `certificate` and `key` (PEM; None: in the same file)
    authenticate this client if the server asks. `resume` offers an earlier session, `psk` a pre-shared key. `library`
    does the handshake: openssl, or rustls (an extra), which has neither groups, `resume` nor `psk`.

    Each tuple may be given as a list or a single value, a suite or version by its name (`Suite.of`, `Version.of`), and
    a path as a string. Raises UsageError for invalid values.
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
    library: libraries.Name = "openssl"

    def __post_init__(self) -> None:
        tried = "configuring a TLS client"
        _settle(self, tried, ("certificate", "key", "ca"))
        _checks.optional(_checks.text, tried, "server_name", self.server_name, "a host's name")
        _checks.instance(tried, "verify", self.verify, bool)
        _checks.optional(_checks.instance, tried, "resume", self.resume, Resumption, "Stream.resumption() gives one")
        _known(self, tried, ("groups", "psk", "resume"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What a server presents and accepts.

    `certificate` is a PEM chain, `key` its key (None: in the same file); `ktlslab.make_certificates` makes temporary
    ones. `alpn` is in order of preference. With `client_ca`, a client must present a certificate of that authority.
    Connections accepted with equal configs share ticket keys, so a client may resume with any of them. `library` does
    the handshake: openssl, or rustls (an extra), which lacks `groups`, `client_ca` and `psk`, and resumes nothing.
    Lists, names and strings work as in `ClientConfig`.
    """

    certificate: Path
    key: Path | None = None
    versions: tuple[Version, ...] = (Version.TLS12, Version.TLS13)
    suites: tuple[Suite, ...] | None = None
    groups: tuple[str, ...] | None = None
    alpn: tuple[str, ...] = ()
    client_ca: Path | None = None
    psk: Psk | None = None
    library: libraries.Name = "openssl"

    def __post_init__(self) -> None:
        tried = "configuring a TLS server"
        _checks.path(tried, "certificate", self.certificate)
        _settle(self, tried, ("certificate", "key", "client_ca"))
        _known(self, tried, ("groups", "psk", "client_ca"))


def _settle(config: ClientConfig | ServerConfig, tried: str, paths: tuple[str, ...]) -> None:
    """Check the fields that both configs have, and convert them to the form that is used."""
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


def _known(config: ClientConfig | ServerConfig, tried: str, lacking: tuple[str, ...]) -> None:
    """Check that the library is known and installed, and has what the config asks for. `lacking`: what rustls has not.

    It is rtls that has no call for these. Nor can it choose among the suites of TLS 1.3.
    """
    _checks.word(tried, "library", config.library, get_args(libraries.Name))
    if config.library != "rustls":
        return
    require("rustls", "rtls")
    asked = [f"`{name}`" for name in lacking if getattr(config, name)]
    if config.suites is not None:
        asked += [suite.name for suite in config.suites if suite not in libraries.RUSTLS_SUITES]
        tls13 = {suite for suite in libraries.RUSTLS_SUITES if suite.version is Version.TLS13}
        if Version.TLS13 in config.versions and tls13 & set(config.suites) not in (set(), tls13):
            asked.append("some suites of TLS 1.3 without the others")
        if not any(suite.version in config.versions for suite in config.suites):
            asked.append("versions without suites")
    if asked:
        remedy = 'Leave it out, or let OpenSSL do the handshake: library="openssl".'
        raise UsageError(tried, answered=f"rustls, by rtls, has no {', no '.join(asked)}", remedy=remedy)


def _some(tried: str, name: str, value: Any, check: Callable[[str, str, Any], T]) -> tuple[T, ...] | None:
    return None if value is None else _checks.several(tried, name, value, check)


def _protocol(tried: str, name: str, value: Any) -> str:
    protocol = _checks.text(tried, name, value, "protocols such as h2")
    if len(protocol.encode()) > _MAX_PROTOCOL_BYTES:
        remedy = f"The name of a protocol has at most {_MAX_PROTOCOL_BYTES} bytes (RFC 7301)."
        raise UsageError(tried, answered=f"`{name}` holds a name of {len(protocol.encode())} bytes", remedy=remedy)
    return protocol
