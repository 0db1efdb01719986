"""rustls as the library of a connection, through rtls (`pip install 'ktlslab[rustls]'`).

rtls has the interface of the standard library's `ssl`, over rustls' state machine. Only that machine tells whether
close_notify came, and gives the alert of a record that did not decrypt, so it is driven here itself: rtls' private
names `SSLContext._get_builder` and the connections that it builds. `tests/tls` fails if a new rtls renames one.

What rtls has no call for: a choice of TLS 1.3 suites (all three are offered), groups, pre-shared keys, resumption (nor
does it resume by itself), a server that asks for certificates, the name that a client asked a server for, and the
length of records. `check` in `libraries` refuses a config that asks for one of these.
"""
# ruff: noqa: SLF001 - see above

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cryptography import x509

from ktlslab.errors import UsageError
from ktlslab.packages import extra
from ktlslab.tls.alerts import AlertDescription
from ktlslab.tls.keylog import KeylogLine
from ktlslab.tls.libraries import AUTHORITY, RUSTLS_SUITES, UNNAMED, WRONG_NAME, Buffer, LibraryError, Name
from ktlslab.tls.suites import Suite, Version

with extra("rustls"):
    import rtls

if TYPE_CHECKING:
    from pathlib import Path

    from ktlslab.tls.contexts import ClientSide, Offer, ServerSide

_KEYLOG_BYTES = 1 << 14
_OPEN_BYTES = 1 << 16  # at once: rtls makes that much room first, and aborts where there is not so much memory
# rustls' words for what is wrong with a certificate, and OpenSSL's number for the same.
_PROBLEMS = (
    ("not valid yet", 9),
    ("certificate expired", 10),
    ("UnknownIssuer", 20),
    ("CaUsedAsEndEntity", AUTHORITY),
    ("not valid for name", WRONG_NAME),
    ("", UNNAMED),
)


class Rustls:
    """One connection. `connection` is rtls' state machine, typed in its `_rustls.pyi`."""

    name: Name = "rustls"
    checks_names = True
    server_name = ""
    resumed = False
    session = None

    def __init__(self, context: Any, build: Callable[[Any], Any]) -> None:
        self.secrets: dict[str, KeylogLine] = {}
        self.uncounted = False
        self._incoming = b""  # fed, and not yet taken by rustls
        # rtls writes the key log into a file only: one in memory, which no other process can open.
        self._keylog = os.memfd_create("keylog")
        self._closed = weakref.finalize(self, os.close, self._keylog)
        context.keylog_filename = f"/proc/self/fd/{self._keylog}"
        self.connection: Any = _told(build, context._get_builder())

    @classmethod
    def client(cls, config: ClientSide, name: str) -> Rustls:
        """Return a client for the server `name` (ASCII, or an address, which is not sent)."""
        context = _context(rtls.PROTOCOL_TLS_CLIENT, config)
        if not config.verify:
            context.verify_mode = rtls.CERT_NONE
        elif config.ca is None:
            context.load_default_certs()
        else:
            _trust(context, config.ca)
        return cls(context, lambda builder: builder.build_client_connection(name))

    @classmethod
    def server(cls, config: ServerSide) -> Rustls:
        context = _context(rtls.PROTOCOL_TLS_SERVER, config)
        return cls(context, lambda builder: builder.build_server_connection())

    def advance(self) -> bool:
        while self._incoming:
            used = _told(self.connection.read_tls, self._incoming)
            self._incoming = self._incoming[used:]
            _told(self.connection.process_new_packets)
            if not used:
                break
        if self.connection.is_handshaking():
            return False
        self._read_secrets()
        return True

    def _read_secrets(self) -> None:
        if self._closed.alive:
            for line in os.pread(self._keylog, _KEYLOG_BYTES, 0).splitlines():
                parsed = KeylogLine.parse(line)
                self.secrets[parsed.label] = parsed
            os.ftruncate(self._keylog, 0)  # rustls keeps it open
            self._closed()

    def feed(self, records: Buffer, /) -> None:
        self._incoming += bytes(records)

    def take(self) -> bytes:
        data = b""
        while self.connection.wants_write():
            data += self.connection.write_tls()
        return data

    def pending(self) -> int:
        return int(self.connection.pending())

    def shutdown(self) -> None:
        self.connection.send_close_notify()

    # Application data

    @property
    def traffic(self) -> Rustls:
        return self

    def check_free(self) -> None:
        """Do nothing: `stages.transfer.memory` lets one thread in at a time."""

    def seal(self, data: Buffer) -> memoryview:
        """Return the records that carry `data`."""
        plain = bytes(data)
        at, records = 0, bytearray()
        while at < len(plain):  # rustls takes as much as it would hold back, 64 KiB
            at += _told(self.connection.write_plaintext, plain[at:] if at else plain)
            records += self.take()
        return memoryview(records)

    def open_into(self, buffer: Buffer) -> int | None:
        """Fill `buffer` from the records fed. 0 means close_notify, or no room; None that bytes are missing."""
        with memoryview(buffer) as whole, whole.cast("B") as room:
            if room.readonly:
                raise TypeError("the buffer cannot be written to")
            if not len(room):
                return 0
            most = min(len(room), _OPEN_BYTES)
            plain = _told(self.connection.read_plaintext, most) if self.connection.pending() else b""
            if not plain:
                plain, self._incoming = _told(self.connection.decrypt_incoming, self._incoming, most)
            room[: len(plain)] = plain
        if plain or not self.connection.wants_read():
            return len(plain)
        return None

    # What was agreed on

    @property
    def version(self) -> Version:
        wire = self.connection.protocol_version()
        return next(version for version in Version if version.wire == wire)

    @property
    def suite(self) -> Suite | None:
        return next((suite for suite in Suite if suite.name == self.suite_name), None)

    @property
    def suite_name(self) -> str:
        return str(self.connection.negotiated_cipher_suite() or "?").replace("TLS13_", "TLS_")

    @property
    def alpn(self) -> str | None:
        return (self.connection.alpn_protocol() or b"").decode("ascii", "backslashreplace") or None

    @property
    def certificate(self) -> x509.Certificate | None:
        chain = self.connection.peer_certificates()
        return x509.load_der_x509_certificate(bytes(chain[0])) if chain else None


def _context(protocol: int, config: Offer) -> Any:
    """Return rtls' context for either end. UsageError for unreadable files."""
    context = rtls.SSLContext(protocol)
    builder = context._get_builder()
    offered = RUSTLS_SUITES if config.suites is None else config.suites
    versions = [version.wire for version in config.versions if any(suite.version is version for suite in offered)]
    builder.set_min_version(min(versions))
    builder.set_max_version(max(versions))
    builder.set_cipher_suites([suite.name for suite in offered if suite.version is Version.TLS12])
    if config.alpn:
        builder.set_alpn([name.encode() for name in config.alpn])
    if certificate := config.certificate:
        key = str(config.key or certificate)
        _read(certificate, lambda: context.load_cert_chain(str(certificate), key))
    return context


def _trust(context: Any, ca: Path) -> None:
    _read(ca, lambda: context.load_verify_locations(str(ca)))
    if not context._get_builder().root_cert_count():
        raise UsageError(f"reading {ca}", answered="no certificate could be read from it", remedy="Give a PEM file.")


def _read(path: Path, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ValueError) as error:  # rtls' own errors are OSErrors
        answered = f"rustls could not use it ({error})" if path.exists() else "there is no such file"
        raise UsageError(f"reading {path}", answered=answered, remedy="Give a PEM file.") from error


def _told(call: Callable[..., Any], *arguments: object) -> Any:
    """Call rustls. LibraryError if it gives up."""
    try:
        return call(*arguments)
    except rtls.SSLError as error:
        said = str(error.args[0])
        if isinstance(error, rtls.SSLCertVerificationError):
            said = said.partition(": ")[2] or said
            problem = next(number for words, number in _PROBLEMS if words in said)
            names = re.findall(r"(?:DnsName\(\"|IpAddress\()([^\")]+)", said)
            raise LibraryError(said, problem=problem, names=names) from error
        alert = re.fullmatch(r"received fatal alert: (\w+)", said)
        raise LibraryError(said, alert=_alert_name(alert[1]) if alert else "") from error


def _alert_name(words: str) -> str:
    """Return the RFCs' name of an alert: rustls writes BadRecordMac."""
    known = {description.name.replace("_", ""): description.name.lower() for description in AlertDescription}
    return known.get(words.upper(), words)
