"""What is asked: a method, a URL, headers and a body."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.http.bodies import Body
from ktlslab.http.urls import Url

Headers = tuple[tuple[str, str], ...]
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NOT_FOR_OTHERS = frozenset({"authorization", "cookie", "host"})  # headers that are meant for one server only
_OF_A_BODY = frozenset({"content-length", "content-type", "transfer-encoding", "expect", "content-encoding"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`headers` are the caller's; one without a value ("") removes what would be sent by itself."""

    method: str
    url: Url
    headers: Headers = ()
    body: Body | None = None

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again if its connection was lost (RFC 9110, 9.2.2)."""
        idempotent = self.method in {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
        return idempotent and (self.body is None or self.body.repeatable)

    def wire_headers(self) -> list[tuple[str, str]]:
        """Return all headers, Host first."""
        given = {name.lower() for name, _ in self.headers}
        own = [("Host", self.url.authority), ("User-Agent", "ktlslab"), ("Accept", "*/*")]
        own += [("Authorization", self.url.basic)] if self.url.basic else []
        if self.body is not None:
            size = self.body.size
            own.append(("Transfer-Encoding", "chunked") if size is None else ("Content-Length", str(size)))
        sent = [(name, value) for name, value in own if name.lower() not in given]
        hosts = [one for one in self.headers if one[0].lower() == "host" and one[1]]
        rest = [one for one in self.headers if one[0].lower() != "host" and one[1]]
        return [*hosts, *sent, *rest]

    def redirected(self, status: int, url: Url) -> Request:
        """Return the request that a redirect leads to: what was posted becomes a GET, as browsers and curl do."""
        headers = self.headers
        if url.origin != self.url.origin:
            headers = tuple(one for one in headers if one[0].lower() not in _NOT_FOR_OTHERS)
        elif self.url.credentials and not url.credentials:
            url = replace(url, credentials=self.url.credentials)
        method, body = self.method, self.body
        if (status == 303 and method != "HEAD") or (status in {301, 302} and method == "POST"):
            method, body = "GET", None
            headers = tuple(one for one in headers if one[0].lower() not in _OF_A_BODY)
        if body is not None and not body.repeatable:
            raise UsageError(
                f"following a redirect to {url}", answered="the body cannot be sent twice", remedy=f"Ask {url} itself."
            )
        return Request(method=method, url=url, headers=headers, body=body)


def headers_of(tried: str, given: Any) -> Headers:
    """Return headers given as a mapping or as pairs of strings."""
    pairs = given.items() if isinstance(given, Mapping) else given
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        _checks.refuse(tried, "headers", given, 'It takes a mapping of strings: {"Accept": "text/html"}.')
    found = []
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            _checks.refuse(tried, "headers", pair, 'It takes pairs of strings: ("Accept", "text/html").')
        found.append((pair[0], pair[1]))
    return tuple(found)
