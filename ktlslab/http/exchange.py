"""One request and its answer on a session: what HTTP/1.1 and HTTP/2 have in common, which is moving the bytes."""

from __future__ import annotations

import contextlib
import select
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h11

from ktlslab.errors import IncompleteError, NoAnswerError, PeerTimeoutError, StreamError, TruncatedError, UsageError
from ktlslab.http.limits import Allowance, Guard
from ktlslab.http.messages import Headers, Request
from ktlslab.linux.ktls import Direction
from ktlslab.session import Session

MAX_HEAD_BYTES = 1 << 18  # of all heads of an answer, also those before the last; curl takes 300 KB
RECEIVE_BYTES = 1 << 16
_LOOK_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What comes before the body. `length` is the body's, if it is known; `raw` the head as HTTP/1.1 writes it."""

    status: int
    reason: str
    headers: Headers
    http_version: str
    length: int | None
    raw: bytes

    @property
    def answer(self) -> str:
        """The status with the server's word for it; HTTP/2 has none."""
        return f"{self.status} {self.reason}".rstrip()


class Exchange(ABC):
    """Runs once: `send`, `head`, then `pieces` or `into`. `done` says that the session may be used again.

    `answered`: something of the answer has come. `refused`: the server says that it has not begun with the request, and
    with `http1_wanted` that it takes it by HTTP/1.1 only.
    """

    http_version: str

    def __init__(self, session: Session, request: Request, allowance: Allowance) -> None:
        self.session, self.request, self.allowance = session, request, allowance
        self.answered = self.refused = self.http1_wanted = self.done = False
        self.sent_bytes = self.request_bytes = self.head_bytes = self.body_bytes = 0  # sent: of the body
        self.first_byte_s = 0.0
        self.sent_headers: list[str] = []
        self.guard = Guard(self.session, allowance)
        self._tried = f"{request.method} {request.url}"
        self._head: Head | None = None

    @abstractmethod
    def send(self) -> None:
        """Send the request. UsageError for headers and methods that HTTP does not allow."""

    @abstractmethod
    def head(self) -> Head:
        """Return the final answer's head."""

    @abstractmethod
    def pieces(self) -> Iterator[bytes]:
        """Yield the body in pieces. IncompleteError if it is not whole, TruncatedError if nobody can tell."""

    def into(self, descriptor: int, write: Callable[[bytes], None], moved: Callable[[int], None]) -> None:
        """Move the body into a regular file, which `write` writes to."""
        del descriptor  # for those who can do without `write`
        for piece in self.pieces():
            write(piece)
            moved(len(piece))

    # Sending

    def _checked(self, headers: list[tuple[str, str]]) -> h11.Request:
        """Return the request as h11 has it: UsageError for what no version of HTTP allows."""
        request = self.request
        try:
            encoded = [(name.encode("ascii"), value.encode()) for name, value in headers]
            return h11.Request(method=request.method, target=request.url.target, headers=encoded)
        except (h11.LocalProtocolError, UnicodeError) as error:
            raise UsageError(self._tried, answered=str(error), remedy="Check the method and the headers.") from error

    def _push(self, data: bytes | None) -> None:
        if data:
            self.allowance.bound(self.session)
            self.session.stream.send(data)

    def _push_head(self, data: bytes | None) -> None:
        self._push(data)
        self.request_bytes += len(data or b"")

    def _count_sent(self, count: int) -> None:
        self.sent_bytes += count
        self.allowance.moved(count)

    def _shorter(self) -> UsageError:
        answered = "the file became shorter while it was sent"
        return UsageError(self._tried, answered=answered, remedy="Send a file that nobody changes.")

    # Receiving

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

    def _what_is_there(self) -> bytes | None:
        """Return what has come while this end sends; None if nothing has, or nothing but a session ticket."""
        if not self._readable():
            return None
        with self._patience(_LOOK_S), contextlib.suppress(PeerTimeoutError):
            return self.session.stream.recv(RECEIVE_BYTES)
        return None

    def _readable(self) -> bool:
        poll = select.poll()
        poll.register(self.session.stream.connection.socket, select.POLLIN)
        return bool(poll.poll(0))

    @contextlib.contextmanager
    def _patience(self, seconds: float) -> Iterator[None]:
        connection = self.session.stream.connection
        connection.engine.limit(connection.socket, Direction.RX, seconds)
        try:
            yield
        finally:
            connection.engine.limit(connection.socket, Direction.RX, None)

    def _count(self, count: int) -> None:
        self.body_bytes += count
        self.allowance.moved(count)

    # What can be wrong

    def _incomplete(self) -> IncompleteError:
        whole = self._head.length if self._head else None
        of = f" of {whole}" if whole is not None else ""
        answered = f"the connection ended after {self.body_bytes}{of} bytes of the body"
        return IncompleteError(self._tried, answered=answered, remedy="Try again; --continue goes on where it ended.")

    def _no_answer(self, error: Exception | None = None) -> NoAnswerError:
        without = ", and without close_notify" if isinstance(error, TruncatedError) else ""
        return NoAnswerError(self._tried, answered=f"the connection ended before a response{without}")
