"""Sending from files and pipes. If the kernel makes the records, the bytes do not pass through Python."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.linux.ktls import Direction
from ktlslab.stages.bound import Bound
from ktlslab.stages.transfer.sides import push_all

if TYPE_CHECKING:
    from typing import BinaryIO

    from ktlslab.stages.transfer.condition import Condition
    from ktlslab.stages.transfer.watch import Watch

_FILE_BYTES = 1 << 17


class Files:
    """Sending from files and pipes on one stream."""

    def __init__(self, condition: Condition, watch: Watch) -> None:
        self._condition, self._watch = condition, watch

    def sendfile(self, file: BinaryIO, offset: int, count: int | None) -> int:
        """`Stream.sendfile`."""
        verb = "sending a file"
        self._condition.attend(verb)
        try:
            descriptor = file.fileno()
            size = os.fstat(descriptor).st_size if count is None else 0
        except (AttributeError, ValueError, OSError) as error:
            remedy = "Give a file opened by open(path, 'rb') and not closed yet."
            answered = f"{file!r} is not an open file: {error}"
            raise UsageError(self._condition.tried(verb), answered=answered, remedy=remedy) from error
        if type(offset) is not int or offset < 0 or not (count is None or (type(count) is int and count >= 0)):
            tried = self._condition.tried(verb)
            _checks.whole(tried, "offset", offset)
            _checks.optional(_checks.whole, tried, "count", count)
        out = self._condition.connection.socket.fileno()
        return self._move(
            verb,
            size - offset if count is None else count,
            lambda size, at: os.sendfile(out, descriptor, offset + at, size),
            lambda size, at: os.pread(descriptor, size, offset + at),
        )

    def splice_from(self, pipe: int, count: int) -> int:
        """`Stream.splice_from`."""
        verb = "sending from a pipe"
        tried = self._condition.tried(verb)
        self._condition.attend(verb)
        _checks.whole(tried, "count", count)
        _checks.pipe(tried, "pipe", pipe, os.O_RDONLY)
        out = self._condition.connection.socket.fileno()
        moved = self._move(
            verb,
            count,
            lambda size, _: os.splice(pipe, out, size),
            lambda size, _: os.read(pipe, size),
            lambda left: _holds_bytes(pipe, left),
        )
        if not moved and count and not _holds_bytes(pipe, 0):
            answered, remedy = "the pipe held nothing to send", "Write to it first; the stream goes on."
            raise UsageError(tried, answered=answered, remedy=remedy)
        return moved

    def _move(
        self,
        verb: str,
        count: int,
        whole: Callable[[int, int], int],
        read: Callable[[int, int], bytes],
        ready: Callable[[float | None], bool] | None = None,
    ) -> int:
        """Send up to `count` bytes by `whole(size, at)`, in the kernel; in userspace `read` and send them."""
        condition, connection, moved = self._condition, self._condition.connection, 0
        try:
            with Bound(connection, Direction.TX) as bound:
                while moved < count:
                    if ready and not ready(bound.left()):
                        break
                    if moved:
                        bound.check()
                    size = min(count - moved, _FILE_BYTES)
                    self._watch.count(verb, 1, size)
                    if condition.layers[Direction.TX] == "userspace":
                        data = read(size, moved)
                        push_all(connection, condition.push, data)
                        step = len(data)
                    else:
                        step = whole(size, moved)
                    if not step:
                        break
                    moved += step
                    condition.unconfirmed = True
        except BaseException as error:  # noqa: BLE001
            condition.give_up(verb, error)
        return moved


def _holds_bytes(pipe: int, left: float | None) -> bool:
    """Wait for up to `left` seconds until a pipe can be read, or until its other end is closed."""
    if not os.get_blocking(pipe):
        left = 0
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(None if left is None else left * 1000))
