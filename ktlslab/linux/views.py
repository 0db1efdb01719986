"""Parts of a caller's buffer, and how long C may hold on to one.

Two rules keep a failure from becoming a crash:

* A view that is made here is let go of when its call is over, also where that call raised: else the error's traceback
  would keep the caller's bytearray from being resized, for as long as a stream remembers the error. Where C still
  holds the view, releasing it would be a BufferError in place of the error; then it lives until C lets go.
* No cffi object that exports a caller's buffer outlives the call it was made for, not in a traceback's frames either.
  Python's garbage collector clears a memoryview in a cycle although cffi still exports it, and the process crashes when
  cffi gives back what is gone. So `tls.traffic` deletes its exports before it raises, and what a ring holds from
  submission to completion is pinned by the compiled part (`_hot.pin`), in an object that the collector does not enter.
"""

from __future__ import annotations

import contextlib

Buffer = bytes | bytearray | memoryview


class Rest:
    """The part of `buffer` from byte `start` on, for one call: `with Rest(data, sent) as rest`."""

    __slots__ = ("_view",)

    def __init__(self, buffer: Buffer, start: int) -> None:
        self._view = memoryview(buffer)[start:]

    def __enter__(self) -> memoryview:
        return self._view

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BufferError):
            self._view.release()
