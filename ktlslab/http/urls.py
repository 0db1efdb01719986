"""What an https URL says (RFC 3986), also one as people type it: without a scheme, with spaces, in any script."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

import idna

from ktlslab import _checks
from ktlslab.errors import SchemeError, UrlError

HTTPS_PORT = 443
_AS_THEY_ARE = "%/:=&?~#+!$,;'@()*[]"  # not quoted: a URL's own characters, and the % of what is already quoted
_FORM = "Write https://HOST[:PORT]/PATH."


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """An https URL. `host` and `target` (path and query) are ASCII, as sent; `credentials` are USER:PASSWORD."""

    host: str
    port: int
    target: str
    credentials: str = ""

    @classmethod
    def of(cls, text: str) -> Url:
        """Read a URL; without "://" it is one of https. UrlError, or SchemeError for another scheme."""
        given = _checks.instance("reading a URL", "url", text, str, "an https URL").strip()
        tried = f"reading the URL {given!r}"
        try:
            parts = urlsplit(given if "://" in given else f"https://{given}")
            port = HTTPS_PORT if parts.port is None else parts.port
            name = unquote(parts.hostname or "")
        except ValueError as error:
            raise UrlError(tried, answered=str(error), remedy=_FORM) from error
        if parts.scheme.lower() != "https":
            remedy = f"Only https is spoken here. {_FORM}"
            raise SchemeError(tried, answered=f"the scheme is {parts.scheme!r}", remedy=remedy)
        if not 1 <= port <= 65535:
            raise UrlError(tried, answered=f"there is no port {port}", remedy=_FORM)
        if not given.isprintable():
            raise UrlError(tried, answered="it holds control characters", remedy=_FORM)
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
        query = f"?{parts.query}" if parts.query else ""
        return cls(
            host=_host(tried, name),
            port=port,
            target=quote(f"{parts.path or '/'}{query}", safe=_AS_THEY_ARE),
            credentials=f"{unquote(user)}:{unquote(password)}" if user else "",
        )

    @property
    def authority(self) -> str:
        """What the Host header says: the port only if it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def file_name(self) -> str:
        """The last part of the path, as a file may be named; "" if it ends with a slash."""
        name = unquote(self.target.partition("?")[0].rpartition("/")[2])
        return "" if name in {".", ".."} or "/" in name or "\0" in name else name

    @property
    def basic(self) -> str:
        """The Authorization header that the credentials make (RFC 7617); "" without any."""
        return f"Basic {base64.b64encode(self.credentials.encode()).decode()}" if self.credentials else ""

    def join(self, location: str) -> Url:
        """Return the URL that a redirect from this one leads to."""
        return Url.of(urljoin(str(self), quote(location.strip(), safe=_AS_THEY_ARE)))

    def __str__(self) -> str:
        return f"https://{self.authority}{self.target}"


def _host(tried: str, name: str) -> str:
    """Return a host's name as DNS has it: international ones by IDNA 2008 as browsers take it (UTS 46)."""
    if not name:
        raise UrlError(tried, answered="it names no host", remedy=_FORM)
    if ":" in name:
        try:
            ipaddress.IPv6Address(name.partition("%")[0])
        except ValueError as error:
            raise UrlError(tried, answered=str(error), remedy=_FORM) from error
        return name
    if name.isascii():
        if bad := sorted(set(name) & set(' "#%/<>?@[\\]^`{|}')):
            raise UrlError(tried, answered=f"a host's name holds no {bad[0]!r}", remedy=_FORM)
        return name.lower()
    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError as error:
        raise UrlError(tried, answered=f"{name!r} is no name of a host: {error}", remedy=_FORM) from error
