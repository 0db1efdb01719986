"""One request and its answer on a session. h11 keeps the rules of HTTP/1.1; this moves the bytes.

A body of known length leaves h11 as soon as what it holds is taken: the rest goes straight from the session to its
destination, into a file by splice(2) if the kernel decrypts.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import h11

from ktlslab.errors import (
    HttpError,
    IncompleteError,
    NoAnswerError,
    PeerTimeoutError,
    StreamError,
    TruncatedError,
    UsageError,
)
from ktlslab.http.bodies import FilePart
from ktlslab.http.limits import Allowance, Guard
from ktlslab.http.messages import Headers, Request
from ktlslab.linux.ktls import Direction
from ktlslab.session import Session

MAX_HEAD_BYTES = 1 << 18  # of all heads of an answer, also those before the last; curl takes 300 KB
_RECEIVE_BYTES = 1 << 16
_EXPECT_BYTES = 1 << 20  # a body of more is sent once the server has said that it wants it, or a second has passed
_EXPECT_S = 1.0
_LOOK_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What comes before the body. `length` is the body's, if it is known; `raw` the head as it came."""

    status: int
    reason: str
    headers: Headers
    http_version: str
    length: int | None
    raw: bytes


class Exchange:
    """Runs once: `send`, `head`, then `pieces` or `into`. `done` says that the session may be used again."""

    def __init__(self, session: Session, request: Request, allowance: Allowance) -> None:
        self.session, self.request, self.allowance = session, request, allowance
        self.answered = False  # at least a byte of the answer has come
        self.done = False
        self.sent_bytes = self.head_bytes = self.body_bytes = 0
        self.first_byte_s = 0.0
        self.guard = Guard(session, allowance)
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._tried = f"{request.method} {request.url}"
        self._head: Head | None = None
        self._raw = bytearray()
        self._sent = False
        self._early: Any = None
        self.sent_headers: list[str] = []

    def send(self) -> None:
        """Send the request. UsageError for headers and methods that HTTP does not allow."""
        request = self.request
        headers = request.wire_headers()
        expect = request.body is not None and (request.body.size is None or request.body.size > _EXPECT_BYTES)
        if expect and not any(name.lower() == "expect" for name, _ in request.headers):
            headers.append(("Expect", "100-continue"))
        self.sent_headers = [f"{name}: {value}" for name, value in headers]
        try:
            encoded = [(name.encode("ascii"), value.encode()) for name, value in headers]
            event = h11.Request(method=request.method, target=request.url.target, headers=encoded)
            self._push(self._http.send(event))
        except (h11.LocalProtocolError, UnicodeError) as error:
            raise UsageError(self._tried, answered=str(error), remedy="Check the method and the headers.") from error
        if expect and not self._wanted():
            return
        if request.body is not None and not self._send_body():
            return
        self._push(self._http.send(h11.EndOfMessage()) or b"")
        self._sent = True

    def _send_body(self) -> bool:
        """Send the body; whether all of it was wanted."""
        assert self.request.body is not None  # noqa: S101 - asked before
        for piece in self.request.body.pieces():
            if self._answered_early():
                return False
            data: Any = piece  # a FilePart, too, which h11 passes on as it is
            parts: Any = self._http.send_with_data_passthrough(h11.Data(data=data))
            for part in parts:
                if isinstance(part, FilePart):
                    self._send_file(part)
                else:
                    self._push(part)
        return True

    def _send_file(self, part: FilePart) -> None:
        self.allowance.bound(self.session)
        moved = self.session.stream.sendfile(part.file, part.offset, part.count)
        self._count_sent(moved)
        if moved != part.count:
            answered = "the file became shorter while it was sent"
            raise UsageError(self._tried, answered=answered, remedy="Send a file that nobody changes.")

    def _push(self, data: bytes | None) -> None:
        if data:
            self.allowance.bound(self.session)
            self.session.stream.send(data)
            self._count_sent(len(data))

    def _count_sent(self, count: int) -> None:
        self.sent_bytes += count
        self.allowance.moved(count)

    def _wanted(self) -> bool:
        """Wait for "100 Continue" for a second at most; whether the body is to be sent."""
        until = time.monotonic() + _EXPECT_S
        connection = self.session.stream.connection
        while (left := until - time.monotonic()) > 0:
            event = self._http.next_event()
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 100:
                    return True
            elif event is h11.NEED_DATA:
                connection.engine.limit(connection.socket, Direction.RX, min(left, self.allowance.left() or left))
                with contextlib.suppress(PeerTimeoutError):
                    self._feed(self.session.stream.recv(_RECEIVE_BYTES))
                connection.engine.limit(connection.socket, Direction.RX, None)
            else:
                self._early = event
                return False
        return True

    def _answered_early(self) -> bool:
        """Whether the server answers before it has everything: it refuses the body, and will soon stop reading it."""
        connection = self.session.stream.connection
        poll = select.poll()
        poll.register(connection.socket, select.POLLIN)
        if not poll.poll(0):
            return False
        connection.engine.limit(connection.socket, Direction.RX, _LOOK_S)
        try:
            self._feed(self.session.stream.recv(_RECEIVE_BYTES))
        except PeerTimeoutError:  # it was a session ticket
            return False
        finally:
            connection.engine.limit(connection.socket, Direction.RX, None)
        return True

    # The answer

    def head(self) -> Head:
        """Return the final answer's head."""
        self.allowance.renew()
        try:
            while not isinstance(event := self._next_event(), h11.Response):
                if isinstance(event, h11.InformationalResponse):
                    if event.status_code == 101:
                        raise HttpError(self._tried, answered="the server switches to another protocol unasked")
                    continue
                if event is not h11.NEED_DATA:
                    raise NoAnswerError(self._tried, answered="the connection ended before a response")
                self._receive()
        except h11.RemoteProtocolError as error:
            if not self._raw:
                raise NoAnswerError(self._tried, answered="the connection ended before a response") from error
            raise self._no_http(error) from error
        finally:
            self.allowance.renew()
        self.head_bytes = len(self._raw) - len(self._http.trailing_data[0])
        if self.head_bytes > MAX_HEAD_BYTES:
            raise HttpError(self._tried, answered=f"the head of the answer has {self.head_bytes} bytes")
        self._head = self._read_head(event)
        self._raw = bytearray()
        return self._head

    def _read_head(self, event: Any) -> Head:
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers.raw_items())
        names = {name.lower(): value for name, value in headers}
        bare = self.request.method == "HEAD" or event.status_code in {204, 304}
        length = 0 if bare else None
        if not bare and "transfer-encoding" not in names and "content-length" in names:
            length = int(dict(event.headers)[b"content-length"])
        return Head(
            status=event.status_code,
            reason=event.reason.decode("latin-1"),
            headers=headers,
            http_version=event.http_version.decode(),
            length=length,
            raw=bytes(self._raw[: self.head_bytes]),
        )

    def _next_event(self) -> Any:
        if self._early is not None:
            event, self._early = self._early, None
            return event
        return self._http.next_event()

    def _receive(self) -> None:
        """Receive something of the head."""
        try:
            data = self._recv(_RECEIVE_BYTES)
        except TruncatedError as error:
            if not self._raw:
                answered = "the connection ended before a response, and without close_notify"
                raise NoAnswerError(self._tried, answered=answered) from error
            raise
        self._feed(data)

    def _recv(self, count: int) -> bytes:
        """Receive. PeerTimeoutError once the allowance is used up; shorter waits than that are repeated."""
        while True:
            self.allowance.bound(self.session)
            self.allowance.waits = True
            try:
                return self.session.stream.recv(count)
            except PeerTimeoutError:
                continue
            except StreamError:
                self.allowance.check()
                raise
            finally:
                self.allowance.waits = False

    def _feed(self, data: bytes) -> None:
        if data and not self.answered:
            self.answered, self.first_byte_s = True, time.monotonic()
        self._raw += data
        if len(self._raw) > MAX_HEAD_BYTES + _RECEIVE_BYTES:
            raise HttpError(self._tried, answered=f"the head of the answer has more than {MAX_HEAD_BYTES} bytes")
        self._http.receive_data(data)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body in pieces. IncompleteError if it is not whole, TruncatedError if nobody can tell."""
        assert self._head is not None  # noqa: S101 - the order of calls is the client's
        yield from self._held_back()
        while (left := self._left()) is None or left > 0:
            data = self._body_bytes(min(left or _RECEIVE_BYTES, _RECEIVE_BYTES))
            if left is None:
                if (yield from self._through_h11(data)):
                    break
            else:
                self._count(len(data))
                yield data
        self._finish()

    def into(self, descriptor: int, write: Callable[[bytes], None], moved: Callable[[int], None]) -> None:
        """Move the body into a regular file, by splice(2) if the kernel decrypts and the length is known."""
        assert self._head is not None  # noqa: S101 - as above
        stream = self.session.stream
        if self._head.length is None or stream.layers[Direction.RX] != "kernel":
            for piece in self.pieces():
                write(piece)
                moved(len(piece))
            return
        for piece in self._held_back():
            write(piece)
            moved(len(piece))
        reading, writing = os.pipe()
        try:
            while left := self._left():
                self.allowance.bound(self.session)
                try:
                    count = stream.splice_into(writing, left)
                except PeerTimeoutError:
                    continue
                except TruncatedError as error:
                    raise self._incomplete() from error
                if not count:
                    raise self._incomplete()
                for_file = count
                while for_file:
                    for_file -= os.splice(reading, descriptor, for_file)
                self._count(count)
                moved(count)
        finally:
            os.close(reading)
            os.close(writing)
        self._finish()

    def _held_back(self) -> Iterator[bytes]:
        """Yield what of the body came with the head."""
        if self._head is None or self._head.length == 0:
            return
        yield from self._events()

    def _through_h11(self, data: bytes) -> Generator[bytes, None, bool]:
        """Yield what h11 makes of received bytes; the value is whether the body has ended."""
        self._http.receive_data(data)
        yield from self._events()
        return self._http.their_state is not h11.SEND_BODY

    def _events(self) -> Iterator[bytes]:
        try:
            while isinstance(event := self._http.next_event(), h11.Data):
                self._count(len(event.data))
                yield bytes(event.data)
        except h11.RemoteProtocolError as error:
            if "closed" in str(error):
                raise self._incomplete() from error
            raise self._no_http(error) from error

    def _body_bytes(self, count: int) -> bytes:
        """Receive something of the body; b"" only at a clean end of a body without a known length."""
        assert self._head is not None  # noqa: S101 - as above
        try:
            data = self._recv(count)
        except TruncatedError as error:
            if self._head.length is None and not self._chunked:
                raise
            raise self._incomplete() from error
        if not data and self._head.length is not None:
            raise self._incomplete()
        return data

    @property
    def _chunked(self) -> bool:
        assert self._head is not None  # noqa: S101 - as above
        return any(name.lower() == "transfer-encoding" for name, _ in self._head.headers)

    def _left(self) -> int | None:
        """How much of the body is still to come; None if that is not known, 0 at its end."""
        assert self._head is not None  # noqa: S101 - as above
        if self._head.length is not None:
            return self._head.length - self.body_bytes
        return None if self._http.their_state is h11.SEND_BODY else 0

    def _count(self, count: int) -> None:
        self.body_bytes += count
        self.allowance.moved(count)

    def _finish(self) -> None:
        """Find out whether the session may be used again (RFC 9112, 9.3)."""
        head = self._head
        assert head is not None  # noqa: S101 - as above
        tokens = {
            token.strip().lower()
            for name, value in (*head.headers, *self.request.headers)
            if name.lower() == "connection"
            for token in value.split(",")
        }
        delimited = head.length is not None or self._chunked
        whole = self._sent and not self._http.trailing_data[0]
        self.done = head.http_version >= "1.1" and "close" not in tokens and delimited and whole

    def _incomplete(self) -> IncompleteError:
        whole = self._head.length if self._head else None
        of = f" of {whole}" if whole is not None else ""
        answered = f"the connection ended after {self.body_bytes}{of} bytes of the body"
        return IncompleteError(self._tried, answered=answered, remedy="Try again; --continue goes on where it ended.")

    def _no_http(self, error: Exception) -> StreamError:
        if self._head is None and "too long" in str(error):
            return HttpError(self._tried, answered=f"the head of the answer has more than {MAX_HEAD_BYTES} bytes")
        return HttpError(self._tried, answered=f"the answer is not HTTP/1.1: {error}")
