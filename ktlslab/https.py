"""An HTTPS client: h11 speaks HTTP/1.1, and a session moves its bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

import h11

from ktlslab import _checks
from ktlslab.errors import StreamError, UsageError
from ktlslab.session import RecordLayer, Session, open_session
from ktlslab.stages.config import ClientConfig
from ktlslab.stages.connection import EngineChoice

_AS_THEY_ARE = "%/:=&?~#+!$,;'@()*[]"  # not quoted: a URL's own characters, and the % of what is already quoted
_FORM = "Write https://HOST[:PORT]/PATH."


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An HTTP response. `session` is closed, but still says which record layer and I/O engine did the work."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    session: Session


def get(
    url: str,
    *,
    config: ClientConfig | None = None,
    record_layer: RecordLayer = "auto",
    io_engine: EngineChoice = "auto",
    timeout: float | None = 10.0,
) -> Response:
    """GET an https URL; redirects are not followed. Raises what `open_session` raises, and StreamError for bad HTTP."""
    tried = "getting a URL"
    _checks.text(tried, "url", url, "an https URL")
    _checks.optional(_checks.instance, tried, "config", config, ClientConfig)
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError as error:
        raise UsageError(f"getting {url!r}", answered=str(error), remedy=_FORM) from error
    if parts.scheme != "https" or not parts.hostname:
        raise UsageError(f"getting {url!r}", answered="this is not an https URL", remedy=_FORM)
    config = replace(config or ClientConfig(), alpn=("http/1.1",))
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_AS_THEY_ARE)
    with open_session(
        parts.hostname,
        port,
        config=config,
        record_layer=record_layer,
        io_engine=io_engine,
        timeout=timeout,
    ) as session:
        try:
            return _exchange(session, parts.netloc.rpartition("@")[2], target)
        except h11.LocalProtocolError as error:
            raise UsageError(f"getting {url!r}", answered=str(error), remedy=_FORM) from error
        except h11.RemoteProtocolError as error:
            raise StreamError(f"getting {url}", answered=f"the answer is not HTTP/1.1: {error}") from error


def _exchange(session: Session, host: str, target: str) -> Response:
    http = h11.Connection(h11.CLIENT)
    headers = [("host", host), ("user-agent", "ktlslab"), ("accept", "*/*"), ("connection", "close")]
    session.stream.send(http.send(h11.Request(method="GET", target=target, headers=headers)))
    http.send(h11.EndOfMessage())
    head: h11.Response | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(session.stream.recv())
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break
    if head is None:
        raise StreamError(f"getting {target} from {host}", answered="the connection ended before a response")
    return Response(
        status=head.status_code,
        reason=head.reason.decode("latin-1"),
        headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers),
        body=bytes(body),
        session=session,
    )
