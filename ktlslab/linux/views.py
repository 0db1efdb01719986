"""Parts of a caller's buffer, and how long C may hold one.

Two rules keep an error from becoming a crash:

* A view made here is released when its call is over, even if the call raised. Otherwise the error's traceback
  would keep the caller's bytearray from being resized for as long as a stream keeps the error. If C still holds the
  view, releasing it would raise BufferError instead of the error; then the view lives until C releases it.
* No cffi object that exports a caller's buffer outlives the call it was made for, not even in a traceback's frames.
  Python's garbage collector clears a memoryview in a cycle although cffi still exports it, and the process crashes when
  cffi releases it. So `tls.traffic` deletes its exports before it raises, and what a ring holds from
  submission to completion is pinned by the compiled part (`_hot.pin`), in an object that the collector does not enter.
"""

from __future__ import annotations

import contextlib

Buffer = bytes | bytearray | memoryview


class Rest:
    """The part of `buffer` from byte `start` to `stop`, for one call: `with Rest(data, sent) as rest`."""

    __slots__ = ("_view",)

    def __init__(self, buffer: Buffer, start: int, stop: int | None = None) -> None:
        self._view = memoryview(buffer)[start:stop]

    def __enter__(self) -> memoryview:
        return self._view

    def __exit__(self, *_: object) -> None:
        let_go(self._view)


def in_bytes(buffer: Buffer) -> Buffer:
    """Return a buffer whose length counts bytes: an array's or a cast view's counts its items."""
    if isinstance(buffer, bytes | bytearray):
        return buffer
    view = memoryview(buffer)
    return buffer if view.itemsize == 1 and view.ndim == 1 else view.cast("B")


def let_go(*views: memoryview) -> None:
    """Release views after a call that failed, except those that C still holds."""
    for view in views:
        with contextlib.suppress(BufferError):
            view.release()
