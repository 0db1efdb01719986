"""What a TLS library must give so that the kernel can take over its sessions, and the libraries that do.

* `openssl`: through pyOpenSSL, complete;
* `rustls`: through rtls, an extra. It lacks what rtls has no call for: see that module.

A `Library` is one end of one connection. It moves no bytes: what the peer sent is fed to it, and what it wants to send
is taken from it. `tls.unbuffered` makes a state machine of it, and counts the records. Its secrets come as lines of a
key log, which is all that a library need add for a handoff.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from ktlslab.tls.suites import Suite, Version

if TYPE_CHECKING:
    from cryptography import x509

    from ktlslab.tls.keylog import KeylogLine

Buffer = bytes | bytearray | memoryview
Name = Literal["openssl", "rustls"]


class LibraryError(Exception):
    """A library gave up. `reason` is its own word for why; `alert` is the peer's, if the peer gave up first.

    `problem` is what is wrong with the peer's certificate, by OpenSSL's number (x509_vfy.h), `UNNAMED` if it has none.
    With `WRONG_NAME`, `names` are those in the certificate, if the library has compared them itself.
    """

    def __init__(self, reason: str, *, alert: str = "", problem: int = 0, names: list[str] | None = None) -> None:
        self.reason, self.alert, self.problem, self.names = reason, alert, problem, names
        super().__init__(reason)


UNNAMED, AUTHORITY, WRONG_NAME = -1, 79, 62  # the last two: X509_V_ERR_INVALID_CA, X509_V_ERR_HOSTNAME_MISMATCH
RUSTLS_SUITES = (
    Suite.TLS_AES_128_GCM_SHA256,
    Suite.TLS_AES_256_GCM_SHA384,
    Suite.TLS_CHACHA20_POLY1305_SHA256,
    Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    Suite.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    Suite.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    Suite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    Suite.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    Suite.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
)


class Traffic(Protocol):
    """Application data of a connection whose handshake is over. `uncounted`: some of its records were not counted."""

    uncounted: bool

    def seal(self, data: Buffer) -> memoryview:
        """Return the records that carry `data`, valid until the next call."""

    def open_into(self, buffer: Buffer) -> int | None:
        """Fill `buffer` from the records fed. 0 means close_notify, or no room; None that bytes are missing."""

    def check_free(self) -> None:
        """Raise OSError EBUSY while another thread is in the library."""


class Library(Protocol):
    """One end of a TLS connection. LibraryError from whatever goes through the library."""

    name: Name
    checks_names: bool  # the server's name is compared with its certificate by the library itself
    secrets: dict[str, KeylogLine]
    connection: Any  # the library's own

    def advance(self) -> bool:
        """Go as far in the handshake as what was fed allows; return whether it is done."""

    def feed(self, records: Buffer, /) -> None:
        """Take what the peer sent."""

    def take(self) -> bytes:
        """Return what the library wants to send: messages of the handshake, or an alert."""

    def pending(self) -> int:
        """Return how many decrypted bytes wait to be read."""

    def shutdown(self) -> None:
        """Make close_notify: what the library then wants to send."""

    @property
    def traffic(self) -> Traffic: ...

    # What was agreed on

    @property
    def version(self) -> Version: ...
    @property
    def suite(self) -> Suite | None: ...
    @property
    def suite_name(self) -> str: ...
    @property
    def alpn(self) -> str | None: ...
    @property
    def server_name(self) -> str:
        """The name that the client asked for; "" if it is not known."""

    @property
    def resumed(self) -> bool:
        """Whether an earlier session was resumed or a PSK used, so that no certificate was sent."""

    @property
    def certificate(self) -> x509.Certificate | None:
        """The peer's certificate."""

    @property
    def session(self) -> object | None:
        """What a later connection can resume."""
