"""An answer. Its body may be read at once, in pieces, or into a file; until then its connection belongs to it."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ktlslab import _checks
from ktlslab._closing import Closing
from ktlslab._html import card
from ktlslab.errors import HttpError, UsageError
from ktlslab.http.exchange import Exchange, Head
from ktlslab.http.messages import Request
from ktlslab.http.saving import opened, save, write_all
from ktlslab.http.urls import Url
from ktlslab.session import Session

_AT_MOST = 1 << 17  # of what is decompressed at once: a small body can hold a large one


class Response(Closing):
    """An HTTP response: `status`, `reason`, `headers` (pairs, in their order), `body`.

    `session` says which record layer, library and I/O engine did the work, and why. `times` are seconds from the
    request's begin. `history` are the redirects that led here. A context manager; leaving it gives the connection back.
    """

    def __init__(
        self,
        exchange: Exchange,
        head: Head,
        history: tuple[Response, ...],
        *,
        times: dict[str, float],
        new_connection: bool,
        give_back: Callable[[Exchange], None],
    ) -> None:
        self.exchange, self.head, self.history = exchange, head, history
        self.status, self.reason, self.headers = head.status, head.reason, head.headers
        self.session: Session = exchange.session
        self.request: Request = exchange.request
        self.url: Url = exchange.request.url
        self.times, self.new_connection = times, new_connection
        self._give_back: Callable[[Exchange], None] | None = give_back
        self._body: bytes | None = None

    def header(self, name: str, default: str = "") -> str:
        """Return the value of a header, its lines joined by commas."""
        _checks.text("reading a header", "name", name, "a header's name")
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower()) or default

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def body(self) -> bytes:
        """The whole body. Raises what reading it from the session does."""
        if self._body is None:
            whole = io.BytesIO()  # its value is what was written itself, without a copy
            for piece in self:
                whole.write(piece)
            self._body = whole.getvalue()
        return self._body

    @property
    def text(self) -> str:
        """The body as text, by its charset or UTF-8; what is none is replaced."""
        _, _, charset = self.header("content-type").lower().partition("charset=")
        try:
            return self.body.decode(charset.split(";")[0].strip(' "') or "utf-8", "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the value that the body holds as JSON; HttpError if it holds none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HttpError(f"reading the answer of {self.url}", answered=f"it is not JSON: {error}") from error

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in pieces, as they come; it can be read once. A gzip or deflate body is decompressed."""
        if self._body is not None:
            yield self._body
            return
        pieces = self._pieces()
        coding = self.header("content-encoding").lower()
        asked = any(name.lower() == "accept-encoding" for name, _ in self.request.headers)
        yield from _decompressed(pieces, self.url) if asked and coding in {"gzip", "x-gzip", "deflate"} else pieces

    def _pieces(self) -> Iterator[bytes]:
        self._check_unread()
        try:
            yield from self.exchange.pieces()
        finally:
            self.close()

    def save(self, path: str | Path, *, moved: Callable[[int], None] = lambda _: None) -> Path:
        """Write the body into a file, which gets its name once it is whole. Returns the path.

        If the kernel decrypts, the bytes go from the socket to the file by splice(2). `moved` is called with the number
        of bytes of each step. StorageError if the file cannot be written.
        """
        target = _checks.path("saving a body", "path", path)
        self._check_unread()
        try:
            save(self.exchange, target, moved)
        finally:
            self.close()
        return target

    def save_decoded(self, path: str | Path, first: bytes = b"") -> Path:
        """Write `first`, then the body decompressed, into a file, which gets its name once it is whole."""
        target = _checks.path("saving a body", "path", path)
        with opened(target) as descriptor:
            write_all(descriptor, first, target)
            for piece in self:
                write_all(descriptor, piece, target)
        return target

    def _check_unread(self) -> None:
        if self._give_back is None:
            answered = "its body was read already, or the response was closed"
            raise UsageError(f"reading the answer of {self.url}", answered=answered, remedy="Ask again.")

    def close(self) -> None:
        """Give the connection back: to be used again if the body was read to its end, otherwise to be closed."""
        if self._give_back:
            give_back, self._give_back = self._give_back, None
            self.times["total"] = self.exchange.allowance.passed()
            give_back(self.exchange)

    def __repr__(self) -> str:
        return f"Response({self.head.answer}, {self.url}, HTTP/{self.head.http_version}, {self.session.record_layer})"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [(name, value) for name, value in self.headers]
        rows += [("body", f"{self.exchange.body_bytes} bytes"), ("session", repr(self.session))]
        return card(f"{self.head.answer}: {self.url}", rows)


def _decompressed(pieces: Iterator[bytes], url: Url) -> Iterator[bytes]:
    """Undo gzip or zlib; some servers send deflate without the header of zlib, which is not guessed at."""
    machine = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        for piece in pieces:
            rest = piece
            while rest:
                if out := machine.decompress(rest, _AT_MOST):
                    yield out
                rest = machine.unconsumed_tail
        yield machine.flush()
    except zlib.error as error:
        raise HttpError(f"decompressing the answer of {url}", answered=str(error)) from error
