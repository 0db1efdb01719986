"""A session as HTTP uses it, one request after the other, and what is kept of HTTP between two of them."""

from __future__ import annotations

import contextlib

from ktlslab.errors import KtlsLabError, PeerTimeoutError
from ktlslab.http.exchange import Exchange
from ktlslab.http.http1 import Http1Exchange
from ktlslab.http.http2 import ALPN, Http2, Http2Exchange
from ktlslab.http.limits import Allowance
from ktlslab.http.messages import Request
from ktlslab.linux.ktls import Direction
from ktlslab.session import Session

_LOOK_S = 0.001


class Channel:
    """`session`, and `http2` if that was agreed on in its handshake (ALPN). HTTP/1.1 keeps nothing."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.http2 = Http2() if session.alpn == ALPN else None

    def exchange(self, request: Request, allowance: Allowance) -> Exchange:
        if self.http2:
            return Http2Exchange(self.session, request, allowance, self.http2)
        return Http1Exchange(self.session, request, allowance)

    def alive(self) -> bool:
        """Whether another request may be sent: the server has neither closed nor said anything unasked."""
        connection = self.session.stream.connection
        connection.engine.limit(connection.socket, Direction.RX, _LOOK_S)
        try:
            data = self.session.stream.recv()  # what may come is a ticket, which is no data
        except PeerTimeoutError:
            return True
        except KtlsLabError:
            return False
        return bool(data) and self.http2 is not None and self.http2.quiet(data)

    def leave(self) -> None:
        """Close a session from which nothing more is wanted: what it was asked for has come, or has failed."""
        with contextlib.suppress(KtlsLabError):
            self.session.close(wait=False)
