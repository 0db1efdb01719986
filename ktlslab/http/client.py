"""`Client`: requests over connections that are kept, and redirects that are followed if wanted."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ktlslab import _checks
from ktlslab._closing import Closing
from ktlslab.errors import (
    ConnectError,
    PeerTimeoutError,
    RedirectError,
    StreamError,
    UsageError,
)
from ktlslab.http.bodies import body_of
from ktlslab.http.channel import Channel
from ktlslab.http.exchange import Exchange
from ktlslab.http.limits import Allowance, Limits
from ktlslab.http.messages import REDIRECTS, Request, headers_of
from ktlslab.http.proxies import refuse_proxy
from ktlslab.http.response import Response
from ktlslab.http.sessions import SessionFile
from ktlslab.http.urls import Url
from ktlslab.session import RecordLayer, open_session
from ktlslab.stages.config import ClientConfig
from ktlslab.stages.connection import EngineChoice

Origin = tuple[str, int]
_MAX_WASTE_BYTES = 1 << 20  # of the body of a redirect, read to keep its connection
_PROTOCOLS = {"auto": ("h2", "http/1.1"), "1.1": ("http/1.1",)}  # offered by ALPN


class Client(Closing):
    """Sends requests, and keeps a connection to each server for the next one. A context manager; for one thread.

    `config`, `record_layer` and `io_engine` are those of `open_session`. `timeout` in seconds bounds a request as a
    whole, with its redirects and the reading of its body (None: no bound); `connect_timeout` the opening of a
    connection, name look-up and handshake included; `stall_timeout` how long less than a byte a second may come.
    `resolve` maps (host, port) to addresses that are used instead of asking DNS. `proxies="ignore"`: connect directly
    even if the environment names a proxy; `no_proxy` are hosts for which it does not count, in place of the variable's.
    `http="1.1"` does not offer HTTP/2, of whose frames the kernel knows nothing: only a body of HTTP/1.1 goes from
    socket to file, or from file to socket, without passing through Python. `sessions` is a file from which TLS
    sessions are resumed, and into which they go: see `http.sessions`.
    """

    def __init__(
        self,
        *,
        config: ClientConfig | None = None,
        record_layer: RecordLayer = "auto",
        io_engine: EngineChoice = "auto",
        timeout: float | None = None,
        connect_timeout: float | None = 10.0,
        stall_timeout: float | None = 60.0,
        stall_bytes: float = 1.0,
        resolve: Mapping[Origin, tuple[str, ...]] | None = None,
        proxies: Literal["refuse", "ignore"] = "refuse",
        no_proxy: str | None = None,
        http: Literal["auto", "1.1"] = "auto",
        sessions: str | Path | None = None,
    ) -> None:
        tried = "making a Client"
        _checks.word(tried, "http", http, list(_PROTOCOLS))
        _checks.optional(_checks.instance, tried, "config", config, ClientConfig)
        _checks.word(tried, "proxies", proxies, ["refuse", "ignore"])
        self.limits = Limits(
            whole_s=_checks.seconds(tried, "timeout", timeout),
            connect_s=_checks.seconds(tried, "connect_timeout", connect_timeout),
            stall_s=_checks.seconds(tried, "stall_timeout", stall_timeout),
            stall_bytes=_checks.number(tried, "stall_bytes", stall_bytes, 0, 1e12),
        )
        self._config = replace(config or ClientConfig(), alpn=_PROTOCOLS[http])
        file = _checks.optional(_checks.path, tried, "sessions", sessions)
        self.sessions = SessionFile(file, self._config) if file else None
        self._record_layer, self._io_engine = record_layer, io_engine
        self._resolve = dict(_checks.instance(tried, "resolve", resolve or {}, dict))
        self._proxies, self._no_proxy = proxies, _checks.optional(_checks.instance, tried, "no_proxy", no_proxy, str)
        self._idle: dict[Origin, Channel] = {}
        self._closed = False

    def get(self, url: str, **options: Any) -> Response:
        """Send a GET: see `request`."""
        return self.request("GET", url, **options)

    def post(self, url: str, body: Any = b"", **options: Any) -> Response:
        """Send a POST: see `request`."""
        return self.request("POST", url, body=body, **options)

    def request(
        self,
        method: str,
        url: str | Url,
        *,
        headers: Any = (),
        body: Any = None,
        redirects: int = 0,
        stream: bool = False,
    ) -> Response:
        """Send a request and return the answer, with its body read; with `stream`, as soon as its head has come.

        `headers` are a mapping or pairs; a value "" leaves out a header that would be sent by itself. `body` is bytes,
        a string, a file opened for reading (sent by sendfile(2) if the kernel encrypts), or pieces of bytes. Up to
        `redirects` redirects are followed; without any, they are answers like others.

        Raises what `open_session` does, HttpError and its kinds, PeerTimeoutError, UsageError.
        """
        tried = "sending a request"
        if self._closed:
            raise UsageError(tried, answered="this client is closed", remedy="Make a new one.")
        _checks.text(tried, "method", method, "a method such as GET")
        _checks.whole(tried, "redirects", redirects)
        _checks.instance(tried, "stream", stream, bool)
        target = url if isinstance(url, Url) else Url.of(url)
        request = Request(method=method, url=target, headers=headers_of(tried, headers), body=body_of(tried, body))
        allowance = Allowance(self.limits, target.authority)
        history: list[Response] = []
        while True:
            answer = self._one(request, allowance, tuple(history))
            location = answer.header("location")
            if answer.status not in REDIRECTS or not location or not redirects:
                break
            if len(history) == redirects:
                answer.close()
                answered = f"{answer.url} redirects once more, to {location}, after {redirects} redirects"
                raise RedirectError(f"{method} {target}", answered=answered, remedy="Allow more.")
            self._waste(answer)
            history.append(answer)
            request = request.redirected(answer.status, request.url.join(location))
        if not stream:
            _ = answer.body
        return answer

    def _one(self, request: Request, allowance: Allowance, history: tuple[Response, ...]) -> Response:
        """Send one request; once more, on a new connection, if a kept one is closed or the server has not begun."""
        channel = self._kept(request.url.origin)
        times: dict[str, float] = {}
        kept, again, http1 = channel is not None, True, False
        while True:
            if channel is None:
                channel, times = self._open(request.url, allowance, http1=http1)
            exchange = channel.exchange(request, allowance)
            try:
                exchange.send()
                times["sent"] = allowance.passed()
                head = exchange.head()
                break
            except BaseException as error:
                exchange.guard.end()
                channel.leave()
                lost = kept and isinstance(error, StreamError) and not exchange.answered and request.repeatable
                refused = exchange.refused and (request.body is None or request.body.repeatable)
                if not again or not (lost or refused):
                    raise
                channel, kept, again, http1 = None, False, False, exchange.http1_wanted
        times["first byte"] = exchange.first_byte_s - allowance.began
        give_back = functools.partial(self._take_back, channel)
        return Response(exchange, head, history, times=times, new_connection=not kept, give_back=give_back)

    def _open(self, url: Url, allowance: Allowance, *, http1: bool) -> tuple[Channel, dict[str, float]]:
        if self._proxies == "refuse":
            refuse_proxy(url.host, self._no_proxy)
        config = replace(self._config, server_name=self._config.server_name or url.host)
        if http1:
            config = replace(config, alpn=_PROTOCOLS["1.1"])
        if self.sessions and config.resume is None:
            config = replace(config, resume=self.sessions.take(url.origin))
        addresses = self._resolve.get(url.origin) or (url.host,)
        for number, address in enumerate(addresses, 1):
            passed = allowance.passed()
            try:
                session = open_session(
                    address,
                    url.port,
                    config=config,
                    record_layer=self._record_layer,
                    io_engine=self._io_engine,
                    timeout=allowance.each(),
                    connect_timeout=allowance.opening(),
                )
            except (ConnectError, PeerTimeoutError):
                if number == len(addresses):
                    raise
            else:
                break
        times = {"begun": passed}
        for step in session.trace:
            passed += step.duration_ns / 1e9
            times[step.stage] = passed
        return Channel(session), times

    # Connections that are kept

    def _kept(self, origin: Origin) -> Channel | None:
        """Return a connection to this server that is still alive and has said nothing unasked."""
        channel = self._idle.pop(origin, None)
        if channel is None or channel.alive():
            return channel
        self._leave(origin, channel)
        return None

    def _leave(self, origin: Origin, channel: Channel) -> None:
        """Close a connection, and keep its TLS session."""
        session = channel.session.stream.resumption() if self.sessions else None
        channel.leave()
        if self.sessions:
            self.sessions.keep(origin, session)

    def _take_back(self, channel: Channel, exchange: Exchange) -> None:
        """Keep the connection of an exchange, or close it."""
        exchange.guard.end()
        origin = exchange.request.url.origin
        if exchange.done and not self._closed and origin not in self._idle:
            self._idle[origin] = channel
        else:
            self._leave(origin, channel)

    @staticmethod
    def _waste(answer: Response) -> None:
        """Read the body of a redirect, so that its connection can be kept, unless it is long."""
        with answer:
            size = 0
            for piece in answer:
                size += len(piece)
                if size > _MAX_WASTE_BYTES:
                    return

    def close(self) -> None:
        """Close all connections that are kept; one whose answer is being read is closed with that."""
        self._closed = True
        while self._idle:
            self._leave(*self._idle.popitem())


def request(
    method: str,
    url: str,
    *,
    headers: Any = (),
    body: Any = None,
    redirects: int = 0,
    stream: bool = False,
    **options: Any,
) -> Response:
    """Send one request to an https URL by a `Client(**options)` of its own, which is closed with the answer.

    Arguments, answer and errors are those of `Client` and `Client.request`.
    """
    try:
        client = Client(**options)
    except TypeError as error:
        remedy = "The options are those of Client."
        raise UsageError("sending a request", answered=str(error), remedy=remedy) from error
    try:
        answer = client.request(method, url, headers=headers, body=body, redirects=redirects, stream=stream)
    finally:
        client.close()
    return answer


def get(url: str, **options: Any) -> Response:
    """GET an https URL: see `request`."""
    return request("GET", url, **options)


def post(url: str, body: Any = b"", **options: Any) -> Response:
    """POST a body to an https URL: see `request`."""
    return request("POST", url, body=body, **options)
