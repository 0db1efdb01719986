"""HTTP/1.1: h11 keeps its rules, without I/O; this moves the bytes.

A body of known length leaves h11 as soon as what it holds is taken: the rest goes straight from the session to its
destination, into a file by splice(2) if the kernel decrypts.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import h11

from ktlslab.errors import HttpError, PeerTimeoutError, StreamError, TruncatedError
from ktlslab.http.bodies import FilePart
from ktlslab.http.exchange import MAX_HEAD_BYTES, RECEIVE_BYTES, Exchange, Head
from ktlslab.http.limits import Allowance
from ktlslab.http.messages import Request
from ktlslab.linux.ktls import Direction
from ktlslab.session import Session

_EXPECT_BYTES = 1 << 20  # a body of more is sent once the server has said that it wants it, or a second has passed
_EXPECT_S = 1.0


class Http1Exchange(Exchange):
    """A request and its answer. No other may be on the connection before its end."""

    http_version = "1.1"

    def __init__(self, session: Session, request: Request, allowance: Allowance) -> None:
        super().__init__(session, request, allowance)
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._raw = bytearray()
        self._sent = False
        self._early: Any = None

    def send(self) -> None:
        """Send the request. UsageError for headers and methods that HTTP does not allow."""
        request = self.request
        headers = request.wire_headers()
        expect = request.body is not None and (request.body.size is None or request.body.size > _EXPECT_BYTES)
        if expect and not any(name.lower() == "expect" for name, _ in request.headers):
            headers.append(("Expect", "100-continue"))
        self.sent_headers = [f"{name}: {value}" for name, value in headers]
        self._push_head(self._http.send(self._checked(headers)))
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
            if not isinstance(piece, FilePart):
                self._count_sent(len(piece))
        return True

    def _send_file(self, part: FilePart) -> None:
        self.allowance.bound(self.session)
        moved = self.session.stream.sendfile(part.file, part.offset, part.count)
        self._count_sent(moved)
        if moved != part.count:
            raise self._shorter()

    def _wanted(self) -> bool:
        """Wait for "100 Continue" for a second at most; whether the body is to be sent."""
        until = time.monotonic() + _EXPECT_S
        while (left := until - time.monotonic()) > 0:
            event = self._http.next_event()
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 100:
                    return True
            elif event is h11.NEED_DATA:
                with self._patience(min(left, self.allowance.left() or left)), contextlib.suppress(PeerTimeoutError):
                    self._feed(self.session.stream.recv(RECEIVE_BYTES))
            else:
                self._early = event
                return False
        return True

    def _answered_early(self) -> bool:
        """Whether the server answers before it has everything: it refuses the body, and will soon stop reading it."""
        if (data := self._what_is_there()) is None:
            return False
        self._feed(data)
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
                    raise self._no_answer()
                self._receive()
        except h11.RemoteProtocolError as error:
            if not self._raw:
                raise self._no_answer() from error
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
            data = self._recv(RECEIVE_BYTES)
        except TruncatedError as error:
            if not self._raw:
                raise self._no_answer(error) from error
            raise
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        if data and not self.answered:
            self.answered, self.first_byte_s = True, time.monotonic()
        self._raw += data
        if len(self._raw) > MAX_HEAD_BYTES + RECEIVE_BYTES:
            raise HttpError(self._tried, answered=f"the head of the answer has more than {MAX_HEAD_BYTES} bytes")
        self._http.receive_data(data)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body in pieces. IncompleteError if it is not whole, TruncatedError if nobody can tell."""
        assert self._head is not None  # noqa: S101 - the order of calls is the client's
        yield from self._held_back()
        while (left := self._left()) is None or left > 0:
            data = self._body_bytes(min(left or RECEIVE_BYTES, RECEIVE_BYTES))
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

    def _no_http(self, error: Exception) -> StreamError:
        if self._head is None and "too long" in str(error):
            return HttpError(self._tried, answered=f"the head of the answer has more than {MAX_HEAD_BYTES} bytes")
        return HttpError(self._tried, answered=f"the answer is not HTTP/1.1: {error}")
