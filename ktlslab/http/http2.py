"""HTTP/2 (RFC 9113): h2 keeps its rules, without I/O; this moves the bytes.

There is one request at a time on a connection, as with HTTP/1.1, so that a transfer's record layer and times are its
own. Nothing is received that nobody waits for, and the window grows only by what the reader has taken: the memory that
a body needs does not depend on its length.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from ktlslab.errors import Http2Error, HttpError, KtlsLabError, StreamError, StreamResetError, TruncatedError
from ktlslab.http.bodies import FilePart
from ktlslab.http.exchange import RECEIVE_BYTES, Exchange, Head
from ktlslab.http.limits import Allowance
from ktlslab.http.messages import Request
from ktlslab.session import Session

ALPN = "h2"
_HEADER_BYTES, _GOAWAY, _DATA = 9, 7, 0  # of a frame (RFC 9113, 4.1), and two of its types
_MAX_FRAME_BYTES = 1 << 14  # what every end must take, and h2 has us announce
_WINDOW_BYTES = 1 << 23  # on the way at most; it costs memory only while this end is still sending
# Of frames that bring nothing of a body, one after the other. A frame takes time however small it is.
_MAX_IDLE_BYTES, _MIN_CHARGE = 1 << 18, 32
# Headers of one connection, which HTTP/2 does not have (RFC 9113, 8.2.2); curl leaves them out as well.
_OF_HTTP1 = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"expect"})


class Http2:
    """The state of a connection. `goaway` is what the server said when it announced the connection's end."""

    def __init__(self) -> None:
        self.rules = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        codes = h2.settings.SettingCodes
        settings = {
            codes.ENABLE_PUSH: 0,
            codes.INITIAL_WINDOW_SIZE: _WINDOW_BYTES,
            codes.MAX_HEADER_LIST_SIZE: self.rules.DEFAULT_MAX_HEADER_LIST_SIZE,
        }
        self.rules.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.rules.initiate_connection()
        self.rules.increment_flow_control_window(_WINDOW_BYTES - self.rules.inbound_flow_control_window)
        self.goaway = ""
        self.last_stream = (1 << 31) - 1  # that the server has begun with, or will
        self.idle_bytes = self._data_bytes = 0
        self._held = bytearray()
        self._events: deque[h2.events.Event] = deque()

    @property
    def data_bytes(self) -> int:
        """How many bytes of bodies have come, also of a frame that is not complete."""
        held = len(self._held) - _HEADER_BYTES
        return self._data_bytes + (held if held > 0 and self._held[3] == _DATA else 0)

    def feed(self, data: bytes) -> None:
        self._held += data

    def next_event(self) -> h2.events.Event | None:
        """Return what the server did next; None if that has not come yet. Raises h2's errors.

        h2 lets nothing follow a GOAWAY, though requests that the server has begun with are still answered (6.8): so
        h2 does not get to see one.
        """
        while not self._events:
            if len(self._held) < _HEADER_BYTES:
                return None
            size, kind = int.from_bytes(self._held[:3]), self._held[3]
            if size > _MAX_FRAME_BYTES:
                raise h2.exceptions.FrameTooLargeError(f"a frame of {size} bytes")
            if len(self._held) < _HEADER_BYTES + size:
                return None
            frame = bytes(self._held[: _HEADER_BYTES + size])
            del self._held[: _HEADER_BYTES + size]
            self._data_bytes += size if kind == _DATA else 0
            if kind == _GOAWAY:
                self._end(frame[_HEADER_BYTES:])
            else:
                self._events.extend(self.rules.receive_data(frame))
            self._heed(len(frame))
        return self._events.popleft()

    def _heed(self, size: int) -> None:
        """Give up on a server that goes on sending frames that hold nothing of a body."""
        if any(isinstance(event, h2.events.DataReceived) and event.data for event in self._events):
            self.idle_bytes = 0
            return
        self.idle_bytes += max(size, _MIN_CHARGE)
        if self.idle_bytes > _MAX_IDLE_BYTES:
            raise h2.exceptions.DenialOfServiceError(f"{self.idle_bytes} bytes of frames with nothing of the answer")

    def _end(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise h2.exceptions.FrameDataMissingError("a GOAWAY without its fields")
        self.last_stream = int.from_bytes(payload[:4]) & 0x7FFFFFFF
        more = repr(payload[8:108])[2:-1]  # for people: nothing that a terminal would act on
        self.goaway = f"GOAWAY: {_code(int.from_bytes(payload[4:8]))}{', ' if more else ''}{more}"
        self._events.append(h2.events.ConnectionTerminated())

    def quiet(self, data: bytes) -> bool:
        """Take what came between two requests; whether another may follow."""
        self.feed(data)
        try:
            while self.next_event():
                pass
        except h2.exceptions.H2Error:
            return False
        return not self.goaway


class Http2Exchange(Exchange):
    """A request and its answer on a stream of their own."""

    http_version = "2"

    def __init__(self, session: Session, request: Request, allowance: Allowance, http2: Http2) -> None:
        super().__init__(session, request, allowance)
        self._http2, self._rules = http2, http2.rules
        self._stream = self._rules.get_next_available_stream_id()
        self._response: Any = None
        self._bodies: list[h2.events.DataReceived] = []
        self._ended = self._sent = False
        self._come = http2.data_bytes

    # The request

    def send(self) -> None:
        with self._told():
            self._send()

    def _send(self) -> None:
        request = self.request
        checked = self._checked(request.wire_headers())
        hosts = [value for name, value in checked.headers if name == b"host"]
        headers = [
            (b":method", checked.method),
            (b":scheme", b"https"),
            (b":authority", hosts[0]),
            (b":path", checked.target),
            *((name, value) for name, value in checked.headers if _may_go(name, value)),
        ]
        self.sent_headers = [f"{name.decode()}: {value.decode('latin-1')}" for name, value in headers]
        self._rules.send_headers(self._stream, headers, end_stream=request.body is None)
        self._push_head(self._rules.data_to_send())
        if request.body is not None:
            for piece in request.body.pieces():
                if not self._send_piece(self._read(piece)):
                    return
            self._rules.end_stream(self._stream)
            self._flush()
        self._sent = True

    def _read(self, piece: bytes | FilePart) -> bytes:
        """Return a piece of a file as bytes: each frame has a header of its own, so sendfile(2) has nothing to do."""
        if isinstance(piece, FilePart):
            data = os.pread(piece.file.fileno(), piece.count, piece.offset)
            if len(data) != piece.count:
                raise self._shorter()
            return data
        return piece

    def _send_piece(self, data: bytes) -> bool:
        """Send a piece of the body as the windows allow; whether more of it is wanted."""
        view = memoryview(data)
        while view:
            while not self._refuses() and (come := self._what_is_there()) is not None:
                self._take(come)
            while not (room := self._room()):
                if self._refuses():
                    return False
                self._wait()
            sent = 0
            while room and view:  # several frames in one go, as each send makes a record of its own
                self._rules.send_data(self._stream, view[:room])
                sent, view = sent + min(room, len(view)), view[room:]
                room = self._room()
            self._flush()
            self._http2.idle_bytes = 0
            self._count_sent(sent)
        return True

    def _room(self) -> int:
        """Return how many bytes may be sent now."""
        if self._refuses():
            return 0
        return min(self._rules.local_flow_control_window(self._stream), self._rules.max_outbound_frame_size)

    def _refuses(self) -> bool:
        """Whether the server has answered before it has everything, and will not read the rest."""
        return self._ended or (self._response is not None and dict(self._response.headers)[b":status"] >= b"300")

    # The answer

    def head(self) -> Head:
        self.allowance.renew()
        with self._told():
            while self._response is None:
                self._wait()
        self.allowance.renew()
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._response.headers]
        status, headers = int(dict(pairs)[":status"]), tuple(pair for pair in pairs if pair[0][0] != ":")
        bare = self.request.method == "HEAD" or status in {204, 304}
        announced = dict(headers).get("content-length")
        text = "".join(f"{line}\r\n" for line in (f"HTTP/2 {status} ", *map(": ".join, headers), ""))
        self.head_bytes = len(text)
        self._head = Head(
            status=status,
            reason="",
            headers=headers,
            http_version=self.http_version,
            length=0 if bare else int(announced) if announced else None,
            raw=text.encode("latin-1"),
        )
        return self._head

    def pieces(self) -> Iterator[bytes]:
        assert self._head is not None  # noqa: S101 - the order of calls is the client's
        while True:
            with self._told():
                data = self._come_so_far()
            if data:
                yield data
            elif self._ended:
                break
            else:
                with self._told():
                    self._wait()
        if self._head.length is not None and self.body_bytes != self._head.length:
            raise self._incomplete()
        self._finish()

    def _come_so_far(self) -> bytes:
        """Return what of the body has been received, of all its frames, and let the server send as much again."""
        while not self._ended and (event := self._http2.next_event()):
            self._act(event)
        data = b"".join(body.data for body in self._bodies)
        if size := sum(body.flow_controlled_length for body in self._bodies):
            self._rules.acknowledge_received_data(size, self._stream)
        self._bodies.clear()
        self.body_bytes += len(data)
        return data

    def _finish(self) -> None:
        """Leave the connection so that the next request can have it."""
        if not self._sent:
            with contextlib.suppress(h2.exceptions.H2Error):  # the server has ended the stream as well
                self._rules.reset_stream(self._stream, h2.errors.ErrorCodes.CANCEL)
            try:
                self._flush()
            except StreamError:  # the answer is whole all the same
                return
        self.done = not self._http2.goaway

    # Frames

    def _wait(self) -> None:
        """Receive until something has happened.

        What h2 has to say meanwhile (windows, answers to pings) waits until nothing can be received: a server may have
        sent everything and closed, and sending to it would end the session.
        """
        while (event := self._http2.next_event()) is None:
            if not self._readable():
                self._flush()
            try:
                data = self._recv(RECEIVE_BYTES)
            except TruncatedError as error:
                raise self._cut(error) from error
            if not data:
                raise self._cut()
            self._http2.feed(data)
            if come := self._http2.data_bytes - self._come:
                self.allowance.moved(come)
                self._come += come
        self._act(event)

    def _take(self, data: bytes) -> None:
        """Act on what came while this end was sending."""
        if not data:
            raise self._cut()
        self._http2.feed(data)
        while event := self._http2.next_event():
            self._act(event)

    def _act(self, event: h2.events.Event) -> None:
        events = h2.events
        if isinstance(event, events.ConnectionTerminated):
            if self._http2.last_stream < self._stream:
                self.refused = True
                answered = f"the server ends the connection and has not begun with this request ({self._http2.goaway})"
                raise StreamResetError(self._tried, answered=answered, remedy="Try again.")
        elif getattr(event, "stream_id", None) != self._stream:
            return
        elif isinstance(event, events.ResponseReceived | events.InformationalResponseReceived):
            self._hear(event)
        elif isinstance(event, events.DataReceived):
            self._bodies.append(event)
        elif isinstance(event, events.StreamEnded):
            self._ended = True
        elif isinstance(event, events.StreamReset):
            self._reset(int(event.error_code or 0))

    def _hear(self, event: Any) -> None:
        status = dict(event.headers)[b":status"]
        if not status.isdigit():
            raise Http2Error(self._tried, answered=f"the answer is not HTTP/2: {status!r} is no status")
        if status == b"101":
            raise HttpError(self._tried, answered="the server switches to another protocol unasked")
        if isinstance(event, h2.events.ResponseReceived):
            self._response = event
            self.answered, self.first_byte_s = True, time.monotonic()

    def _reset(self, code: int) -> None:
        """Act on RST_STREAM. After a whole answer it only says that no more is read (RFC 9113, 8.1)."""
        if self._ended and code == h2.errors.ErrorCodes.NO_ERROR:
            return
        codes = h2.errors.ErrorCodes
        self.refused = code in {codes.REFUSED_STREAM, codes.HTTP_1_1_REQUIRED}
        self.http1_wanted = code == codes.HTTP_1_1_REQUIRED
        answered = f"the server ended the stream by RST_STREAM: {_code(code)}"
        raise StreamResetError(self._tried, answered=answered, remedy="Try again, or with --http1.1.")

    def _flush(self) -> None:
        self._push(self._rules.data_to_send())

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what h2 does not allow into our errors, and tell the server what h2 has to say to it."""
        try:
            yield
        except h2.exceptions.InvalidBodyLengthError as error:
            if error.actual_length < error.expected_length:
                raise self._incomplete() from error
            raise self._broken(error) from error
        except h2.exceptions.H2Error as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> HttpError:
        with contextlib.suppress(KtlsLabError):
            self._flush()
        if isinstance(error, h2.exceptions.DenialOfServiceError):
            return Http2Error(self._tried, answered=f"more than is taken from a server: {error}")
        return Http2Error(self._tried, answered=f"the answer is not HTTP/2: {error}")

    def _cut(self, error: Exception | None = None) -> HttpError:
        """Return what the end of the connection means."""
        if self._http2.goaway:
            return Http2Error(self._tried, answered=f"the server ended the connection ({self._http2.goaway})")
        return self._incomplete() if self._head or self._response else self._no_answer(error)


def _may_go(name: bytes, value: bytes) -> bool:
    return name not in _OF_HTTP1 and name != b"host" and (name != b"te" or value == b"trailers")


def _code(number: int) -> str:
    """Return the name of an error code (RFC 9113, 7)."""
    with contextlib.suppress(ValueError):
        return h2.errors.ErrorCodes(number).name
    return f"error {number:#x}"
