"""Features of OpenSSL that pyOpenSSL has no methods for: groups, external PSKs, resumption.

These use pyOpenSSL's private names (`SSL._lib`, `SSL._ffi`, `Context._context`, `Connection._ssl`). Only this module
and `traffic` do so, and `tests/tls` fails if a new pyOpenSSL renames one.
"""
# ruff: noqa: SLF001 - see above

from __future__ import annotations

import hmac
from typing import Any

from OpenSSL import SSL

_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_lib: Any = SSL._lib  # type: ignore[attr-defined]
_RELEASE_BUFFERS = 0x10  # SSL_MODE_RELEASE_BUFFERS in openssl/ssl.h


def set_groups(context: Any, names: tuple[str, ...]) -> None:
    """Limit the key exchange to these groups, best first, by OpenSSL's names. ValueError if one is unknown."""
    joined = ":".join(names)
    if _lib.SSL_CTX_set1_curves_list(context._context, joined.encode()) != 1:
        _lib.ERR_clear_error()
        raise ValueError(f"OpenSSL does not know all of these groups: {joined}")


def set_client_psk(context: Any, identity: bytes, key: bytes) -> None:
    """Offer one external PSK (RFC 8446 4.2.11; RFC 4279 in TLS 1.2). TLS 1.3 uses it with SHA-256 suites only."""

    @_ffi.callback("unsigned int(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int)")  # type: ignore[untyped-decorator]
    def offer(_ssl: Any, _hint: Any, name: Any, name_room: int, into: Any, room: int) -> int:
        if len(identity) + 1 > name_room or len(key) > room:
            return 0
        _ffi.memmove(name, identity + b"\0", len(identity) + 1)
        _ffi.memmove(into, key, len(key))
        return len(key)

    context._ktlslab_psk = offer  # keeps the callback alive
    _lib.SSL_CTX_set_psk_client_callback(context._context, offer)


def set_server_psk(context: Any, identity: bytes, key: bytes) -> None:
    """Accept one external PSK from clients that send its identity and prove that they have the key."""

    @_ffi.callback("unsigned int(SSL *, const char *, unsigned char *, unsigned int)")  # type: ignore[untyped-decorator]
    def find(_ssl: Any, name: Any, into: Any, room: int) -> int:
        if name == _ffi.NULL or not hmac.compare_digest(_ffi.string(name), identity) or len(key) > room:
            return 0
        _ffi.memmove(into, key, len(key))
        return len(key)

    context._ktlslab_psk = find
    _lib.SSL_CTX_set_psk_server_callback(context._context, find)


def resume(connection: Any, session: Any) -> None:
    """Let a client offer an earlier session. pyOpenSSL's own method requires the same context object for both."""
    _lib.SSL_set_session(connection._ssl, session._session)


def resumed(connection: Any) -> bool:
    """Whether the handshake resumed a session or used a PSK, and so sent no certificate."""
    return bool(_lib.SSL_session_reused(connection._ssl))


def session_bytes(session: Any) -> bytes:
    """Return a session as OpenSSL writes it (i2d_SSL_SESSION(3)). It holds the secret that resumes it."""
    size = _lib.i2d_SSL_SESSION(session._session, _ffi.NULL)
    if size <= 0:
        _lib.ERR_clear_error()
        raise ValueError("OpenSSL cannot write this session")
    data = _ffi.new("unsigned char[]", size)
    _lib.i2d_SSL_SESSION(session._session, _ffi.new("unsigned char **", data))
    return bytes(_ffi.buffer(data))


def session_of(data: bytes) -> Any:
    """Return the session that `session_bytes` wrote. ValueError if OpenSSL cannot read it."""
    held = _ffi.new("unsigned char[]", data)
    found = _lib.d2i_SSL_SESSION(_ffi.NULL, _ffi.new("const unsigned char **", held), len(data))
    if found == _ffi.NULL:
        _lib.ERR_clear_error()
        raise ValueError("OpenSSL cannot read this session")
    session: Any = SSL.Session.__new__(SSL.Session)
    session._session = _ffi.gc(found, _lib.SSL_SESSION_free)
    return session


def addresses() -> dict[str, int]:
    """Return where OpenSSL's functions are in memory, for C code that calls them."""
    from cryptography.hazmat.bindings._rust import _openssl  # noqa: PLC0415 - where they can be taken the address of

    names = {
        "read": "SSL_read",
        "write": "SSL_write",
        "get_error": "SSL_get_error",
        "bio_read": "BIO_read",
        "bio_write": "BIO_write",
    }
    return {short: _address(_ffi.addressof(_openssl.lib, name)) for short, name in names.items()}


def memory_of(connection: Any) -> tuple[int, int, int]:
    """Return where the SSL and its two memory BIOs are, incoming and outgoing."""
    return _address(connection._ssl), _address(connection._into_ssl), _address(connection._from_ssl)


def release_buffers(connection: Any) -> None:
    """Let OpenSSL free a connection's record buffers while they are empty, as servers with many of them do."""
    _lib.SSL_set_mode(connection._ssl, _RELEASE_BUFFERS)


def _address(pointer: Any) -> int:
    return int(_ffi.cast("uintptr_t", pointer))
