"""What a plain receive cannot handle: control records, data left over from one call to the next, and the end.

A control record (session ticket, alert, KeyUpdate) makes every plain receive in kernel TLS fail with EIO until
recvmsg(2) with room for the record type fetches it. This is done at once, without polling first. An end of file may be
a truncation: only close_notify ends a stream cleanly.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from OpenSSL import SSL

from ktlslab import _checks
from ktlslab._checks import WRONG
from ktlslab.errors import KtlsLabError, UsageError
from ktlslab.linux.ktls import Direction
from ktlslab.linux.patience import again
from ktlslab.linux.ring import Buffer
from ktlslab.stages.transfer.receiver import KernelReceiver, not_taken, write
from ktlslab.tls.libraries import LibraryError

if TYPE_CHECKING:
    from ktlslab.stages.transfer.condition import Condition
    from ktlslab.stages.transfer.sides import Receiver
    from ktlslab.stages.transfer.watch import Watch

_INTO_A_PIPE = "receiving into a pipe"


class Inlet:
    """The receiving side of one stream, beyond `receiver.pull`."""

    def __init__(self, condition: Condition, watch: Watch, receiver: Receiver) -> None:
        self._condition, self._watch, self._receiver = condition, watch, receiver
        self._kept = memoryview(b"")  # what came for a pipe that did not take it
        self._gone = False  # this is a forked process, and the stream is its parent's

    def leave(self) -> None:
        """In a forked process: end the iterations over `pieces`, which raise the stream's error then."""
        self._gone = True
        if isinstance(self._receiver, KernelReceiver):
            self._receiver.ended = True

    def again(self, buffer: Buffer, error: BaseException) -> int:
        """Receive again if a control record stopped the plain receive; otherwise raise the stream's error."""
        condition, receiver = self._condition, self._receiver
        if error is condition.failure:
            raise error
        if isinstance(error, WRONG):
            _checks.buffer(condition.tried("receiving"), "buffer", buffer, writable=True)
        if isinstance(error, OSError) and error.errno == errno.EIO and isinstance(receiver, KernelReceiver):
            return self._fetch(receiver, buffer)
        if isinstance(error, TimeoutError | BlockingIOError):
            connection = condition.connection
            patience = None if connection.socket.gettimeout() == 0 else connection.engine.timeout
            try:
                return again(patience, self._pull, buffer)
            except BaseException as failure:  # noqa: BLE001
                error = failure
        return self._give_up(error)

    def _pull(self, buffer: Buffer) -> int:
        """Receive, also a control record."""
        try:
            return self._condition.pull(buffer)
        except OSError as error:
            if error.errno != errno.EIO or not isinstance(self._receiver, KernelReceiver):
                raise
        return self._fetch(self._receiver, buffer)

    def at_end(self, buffer: Buffer) -> int:
        """Handle a receive of 0 bytes: a clean end, a truncation or an empty record, told apart by the record type."""
        receiver, condition = self._receiver, self._condition
        if not len(buffer):
            return 0
        if condition.closed:  # by another thread, while this one waited
            condition.attend_to_the_end("receiving")
        while isinstance(receiver, KernelReceiver) and not (condition.ended or receiver.ended):
            if count := self._fetch(receiver, buffer):
                return count
        condition.end()
        return 0

    def keep(self, data: bytes) -> None:
        """Keep what came and was not taken: it is received next."""
        if not data:
            return
        if isinstance(self._receiver, KernelReceiver):
            self._receiver.keep(data)
            self._condition.pull = self._left
        else:
            self._kept = memoryview(data + bytes(self._kept))
            self._condition.pull = self._pull_kept

    def _give_up(self, error: BaseException) -> NoReturn:
        """Raise the stream's error for a receive that ended by `error`."""
        condition = self._condition
        if condition.failure and isinstance(error, Exception):  # of an earlier call: a send between two pieces
            raise condition.failure
        if condition.closed and isinstance(error, Exception):  # by another thread, while this one waited
            condition.attend_to_the_end("receiving")
        if isinstance(error, OSError | SSL.Error | LibraryError) or (
            isinstance(error, KtlsLabError) and not isinstance(error, UsageError)
        ):
            raise condition.received(error) from error
        condition.give_up("receiving", error)

    def _fetch(self, receiver: KernelReceiver, buffer: Buffer) -> int:
        try:
            count = receiver.fetch(buffer)
        except BaseException as error:  # noqa: BLE001 - raises
            self._give_up(error)
        if receiver.left:
            self._condition.pull = self._left
        return count

    def _left(self, buffer: Buffer) -> int:
        """Return what a typed receive left over, then receive as before."""
        receiver = self._receiver
        assert isinstance(receiver, KernelReceiver)  # noqa: S101 - no other leaves anything
        count = receiver.take_left(buffer)
        if receiver.left or receiver.backlog:
            return count  # 0 for an empty buffer
        self._condition.pull = receiver.pull
        return count or (0 if receiver.ended else receiver.pull(buffer))

    def _heed_left(self, receiver: KernelReceiver) -> None:
        if self._gone:
            return
        self._condition.ended = receiver.ended
        if not self._condition.failure and (receiver.left or receiver.backlog or receiver.ended):
            self._condition.pull = self._left

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """`Stream.pieces`."""
        receiver, condition = self._receiver, self._condition
        if not isinstance(receiver, KernelReceiver):
            answered = f"the receiving side is {condition.layers[Direction.RX]}"
            raise UsageError(condition.tried("receiving pieces"), answered=answered, remedy="Let the kernel receive.")
        return self._pieces(receiver)

    def _pieces(self, receiver: KernelReceiver) -> Iterator[tuple[int, bytes]]:
        condition, watch = self._condition, self._watch
        if condition.over:
            condition.answer_of_the_end()
            return
        try:
            for piece in receiver.pieces():
                condition.unconfirmed = False
                condition.until_look -= 1
                if condition.until_look < 0:
                    watch.look()
                yield piece
            if self._gone:
                condition.answer_of_the_end()
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - raises
            self._give_up(error)
        finally:
            self._heed_left(receiver)

    def splice(self, pipe: int, count: int) -> int:
        """`Stream.splice_into` if the kernel decrypts."""
        receiver, condition = self._receiver, self._condition
        if condition.over:
            return condition.answer_of_the_end()
        assert isinstance(receiver, KernelReceiver)  # noqa: S101 - else `write` does it
        try:
            moved = receiver.splice_into(pipe, count)
        except BrokenPipeError as error:  # of the pipe: a receive knows no such error
            raise not_taken(condition.tried(_INTO_A_PIPE), error) from error
        except BaseException as error:  # noqa: BLE001 - raises
            if isinstance(error, (OSError, *WRONG)) and not isinstance(error, UsageError):
                _checks.pipe(condition.tried(_INTO_A_PIPE), "pipe", pipe, os.O_WRONLY)
            self._give_up(error)
        finally:
            self._heed_left(receiver)
        return moved

    def write(self, pipe: int, data: bytes) -> int:
        """`Stream.splice_into` where the bytes have come here already; what the pipe does not take is received next."""
        condition, written = self._condition, 0
        try:
            written = write(condition.tried(_INTO_A_PIPE), pipe, data, condition.connection.engine.timeout)
        except BaseException as error:  # noqa: BLE001
            if isinstance(error, UsageError):
                self.keep(data)
            condition.give_up(_INTO_A_PIPE, error)
        self.keep(data[written:])
        return written

    def _pull_kept(self, buffer: Buffer) -> int:
        part = min(len(buffer), len(self._kept))
        memoryview(buffer)[:part] = self._kept[:part]
        self._kept = self._kept[part:]
        if not self._kept:
            self._condition.pull = self._receiver.pull
        return part
