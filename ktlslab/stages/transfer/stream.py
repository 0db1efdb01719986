"""`Stream`: the same calls in every record layer.

This module holds the calls; the modules beside it do what kTLS leaves to its user: `inlet` handles the control records
that come, `control` those that are sent, `watch` lost connections and used-up keys, `condition` errors that the kernel
reports only once, `ending` the close. `send`, `send_many`, `recv_into` and `recv_exactly_into` are what is measured. So
they are the compiled part's (linux/native/stream.c); what is here is what they call where something is rare.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab._checks import WRONG
from ktlslab._closing import Closing
from ktlslab._html import card
from ktlslab.errors import PeerTimeoutError, StreamClosedError, TruncatedError
from ktlslab.linux import _hot, forks
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.linux.views import in_bytes, let_go
from ktlslab.stages.bound import Bound
from ktlslab.stages.lastword import let_it_be_heard
from ktlslab.stages.transfer import claims, sides
from ktlslab.stages.transfer.condition import Condition
from ktlslab.stages.transfer.control import Control
from ktlslab.stages.transfer.ending import farewell, half_close
from ktlslab.stages.transfer.files import Files
from ktlslab.stages.transfer.inlet import Inlet
from ktlslab.stages.transfer.keyupdate import KeyUpdates
from ktlslab.stages.transfer.library import Library, resumption
from ktlslab.stages.transfer.manners import Manners
from ktlslab.stages.transfer.memory import InMemory, InMemoryReceiver
from ktlslab.stages.transfer.receiver import KernelReceiver
from ktlslab.stages.transfer.userspace import Userspace, UserspaceReceiver
from ktlslab.stages.transfer.watch import Watch
from ktlslab.tls.records import MAX_PLAINTEXT
from ktlslab.tls.suites import Version

if TYPE_CHECKING:
    from typing import BinaryIO

    from ktlslab.stages.config import Resumption
    from ktlslab.stages.connection import Connection
    from ktlslab.stages.handshaking import Handshake

_MORE = int(socket.MSG_MORE)
_MAX_RECV_BYTES = 1 << 24  # a caller may ask for more than the memory holds


class Stream(_hot.Stream, Closing):
    """Bytes to and from the peer.

    With system calls, two threads may use the stream at once if the kernel makes the records, or nobody does: one
    sends, the other receives. With io_uring, or where a library makes the records of both directions, one thread at a
    time may use it; a second one's call raises UsageError and has done nothing. `close` ends a receive in another
    thread.

    A connection has one stream, and a stream one process: in a forked one every call raises StreamClosedError.

    `kernel` names the installed directions, and the kernel is asked whether it is so. Without a `handshake`, the
    directions in `kernel` use keys that the caller installed, and the others are plain, which UsageError prevents on a
    connection that has had a handshake. `record_limit` is how many records one key may protect (default: the cipher's
    limit, RFC 8446, 5.5). The keys are changed before the limit, or the stream ends with KeyUpdateError.
    """

    def __init__(
        self,
        connection: Connection,
        handshake: Handshake | None = None,
        kernel: tuple[Direction, ...] = (),
        *,
        record_limit: int | None = None,
    ) -> None:
        claims.begin(connection, handshake, kernel, record_limit)
        rest = "userspace" if handshake else "plain"
        self.connection = connection
        # The record layer of each direction: plain, userspace or kernel.
        self.layers = {direction: "kernel" if direction in kernel else rest for direction in Direction}
        self.tickets: list[bytes] = []  # NewSessionTicket messages received by kTLS
        self._handshake, self._kernel = handshake, kernel
        self._updates = KeyUpdates(connection, handshake) if handshake and kernel else None
        self._library = Library(connection, handshake) if handshake and Direction.RX in kernel else None
        self._condition = Condition(connection, self.layers, self.update_keys)
        super().__init__(self._condition)
        self._watch = Watch(self._condition, self._updates, kernel, self.update_keys, limit=record_limit)
        sender, receiver = self._sides(handshake)
        self._condition.use(sender, receiver)
        if self.layers[Direction.TX] != "userspace":
            self._condition.push_many = connection.engine.batch_sender(connection.socket)
        self._inlet = Inlet(self._condition, self._watch, receiver)
        self._files = Files(self._condition, self._watch)
        self._control = Control(self._condition, self._watch, self._updates)
        if handshake and Direction.TX in kernel and handshake.record_limit:
            self._control.record_bytes = self._condition.record_bytes = handshake.record_limit
        self._owner = 0  # in a forked process: the one that made the stream
        forks.register(self)

    def leave(self, owner: int) -> None:
        """In a forked process, refuse every later call: both processes would protect a record with the same nonce.

        `close` then closes this process's descriptor and does nothing else.
        """
        condition = self._condition
        if condition.closed:
            return
        tried, answered = condition.tried("transfer"), forks.belongs("the stream", owner)
        self._owner, condition.closed = owner, True
        condition.fail(StreamClosedError(tried, answered=answered, remedy="Use it there, or open a new session."))
        self._inlet.leave()
        if self._updates:
            self._updates.wipe()

    def _sides(self, handshake: Handshake | None) -> tuple[sides.Sender, sides.Receiver]:
        connection, tx, rx = self.connection, self.layers[Direction.TX], self.layers[Direction.RX]
        owe = self._condition.owe
        rustls = handshake and handshake.machine.library.name == "rustls"
        if handshake and not self._kernel:
            both = (InMemory if rustls else Userspace)(connection, handshake)
            return both, both
        sender: sides.Sender = sides.SocketSender(connection)
        if self._library and tx == "userspace":
            sender = self._library.sender
        if rx == "kernel":
            library = self._library if tx == "userspace" else None
            manners = Manners(handshake, sender.send_record)
            return sender, KernelReceiver(
                connection, tickets=self.tickets, updates=self._updates, asked=owe, library=library, manners=manners
            )
        if handshake:
            asked = owe if tx == "kernel" and handshake.version is Version.TLS13 else None
            return sender, (InMemoryReceiver if rustls else UserspaceReceiver)(connection, handshake, asked)
        return sender, sides.PlainReceiver(connection)

    @property
    def record_layer(self) -> str:
        """Who makes the records: plain, userspace, kernel, kernel-tx or kernel-rx."""
        return self._condition.record_layer

    @property
    def generations(self) -> dict[Direction, int]:
        """How many times the keys of each direction in the kernel have changed."""
        return {direction: self._updates.generation[direction] for direction in self._kernel} if self._updates else {}

    # Sending

    # The length of a buffer counts its items. Where that is not what was moved, `in_bytes` counts its bytes.

    def _send_on(self, data: Buffer, more: object, sent: int, failed: BaseException | None) -> None:
        """Go on with a `send` of which `sent` bytes were pushed, or whose push failed by an error."""
        condition, watch = self._condition, self._watch
        try:
            if failed is not None:
                raise failed  # noqa: TRY301 - handled as one of this call
            size = len(data)
            if condition.until_check_up < 0:
                watch.check_up("sending")
            if more or size > condition.record_bytes:
                self._send_records(data, size, more)
            elif (sent := sent or condition.push(data)) != size:
                sides.push_all(self.connection, condition.push, in_bytes(data), sent)
        except BaseException as error:  # noqa: BLE001
            if isinstance(error, WRONG):
                _checks.buffer(condition.tried("sending"), "data", data)
                _checks.instance(condition.tried("sending"), "more", more, bool)
            condition.give_up("sending", error)
        condition.unconfirmed = True

    def _send_records(self, data: Buffer, size: int, more: object) -> None:
        """Send what makes several records, may take several waits, or is held back."""
        if more is not True and more is not False:
            raise TypeError("more")
        self._watch.count("sending", 0, size)
        push, sent = self._condition.push, 0
        if not more and size <= MAX_PLAINTEXT and (sent := push(data)) == size:
            return
        sides.push_all(self.connection, push, in_bytes(data), sent, _MORE if more else 0)
        if more:
            self._condition.hold()

    def _send_many_on(self, buffers: Sequence[Buffer], sent: int, began: float, failed: BaseException | None) -> None:
        """Go on with a `send_many` of which one submission sent `sent` bytes, or which failed by an error."""
        condition, engine = self._condition, self.connection.engine
        if not isinstance(buffers, list | tuple):
            buffers = list(buffers) if isinstance(buffers, Iterator) else buffers
            _checks.buffers(condition.tried("sending many"), "buffers", buffers)
        try:
            if failed is not None:
                raise failed  # noqa: TRY301 - handled as one of this call
            if self.layers[Direction.TX] == "userspace" or engine.name == "syscall":
                with Bound(self.connection, Direction.TX) as bound:
                    for at, data in enumerate(buffers):
                        if at & 15 == 15:
                            bound.check()
                        self.send(data)
                return
            condition.attend("sending")
            total = _hot.total(buffers)
            if not sent:
                self._watch.count("sending", len(buffers), total)
                began, sent = time.monotonic(), engine.send_many(self.connection.socket, buffers)
            if sent != total:
                sides.push_rest(self.connection, condition.push, buffers, sent, began)
        except BaseException as error:  # noqa: BLE001
            if isinstance(error, WRONG):
                _checks.buffers(condition.tried("sending many"), "buffers", buffers)
            condition.give_up("sending", error)
        condition.unconfirmed = True

    def send_record(self, data: Buffer, record_type: int) -> None:
        """Send one record of any type (sendmsg(2) with TLS_SET_RECORD_TYPE). The kernel does not check its contents.

        `data` has 1 to 16,384 bytes, or as many as `limit_records` allows: the kernel sends no empty record, and would
        make several of a longer one. Raises UsageError if the kernel does not send.
        """
        self._control.send_record(data, record_type)

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int:
        """Send bytes of a file by sendfile(2), or by read and send if OpenSSL makes the records. Returns how many."""
        return self._files.sendfile(file, offset, count)

    def splice_from(self, pipe: int, count: int) -> int:
        """Send up to `count` bytes from a pipe by splice(2), or by read and send in userspace. Returns how many."""
        return self._files.splice_from(pipe, count)

    # Receiving

    def _look(self) -> None:
        """Find out whether the peer's key may be used for longer."""
        self._watch.look()

    def _recv_on(self, buffer: Buffer, count: int, error: BaseException | None) -> int:
        """Go on with a `recv_into` that got nothing, or failed by `error`."""
        if error is not None:
            count = self._inlet.again(buffer, error)
        self._condition.unconfirmed = False
        return count or self._inlet.at_end(buffer)

    def recv(self, count: int = 1 << 16) -> bytes:
        """Return up to `count` bytes, 16 MiB at most; b"" only at a clean end. Raises what `recv_into` raises."""
        try:
            buffer = bytearray(min(count, _MAX_RECV_BYTES))
        except WRONG:
            _checks.whole(self._condition.tried("receiving"), "count", count, 0)
            raise
        return bytes(buffer[: self.recv_into(buffer)])

    def _fill(self, buffer: Buffer, have: int, got: int, began: float, error: BaseException | None) -> None:
        """Go on with a `recv_exactly_into` that has got `have` bytes, by its last receive `got` or an error."""
        if error is not None and not have:
            have, error = self._inlet.again(buffer, error), None
            got = have
        if have != len(buffer):
            self._fill_rest(in_bytes(buffer), have, got, began or None, error)
        self._condition.unconfirmed = False

    def _fill_rest(self, buffer: Buffer, have: int, got: int, began: float | None, error: BaseException | None) -> None:
        """Fill the rest of a buffer that has its first bytes."""
        condition, size = self._condition, len(buffer)
        whole = memoryview(buffer)
        rest = whole[have:]
        try:
            with Bound(self.connection, Direction.RX, began) as bound:
                if error is not None:
                    got = self._inlet.again(rest, error)
                    have += got
                if not got:  # a close_notify need not be followed by the end of TCP
                    got = self._inlet.at_end(rest)
                    have += got
                while got and have < size:
                    bound.check()
                    rest = whole[have:]
                    got = self.recv_into(rest)
                    have += got
        except BaseException as failure:
            if not condition.over:
                self._inlet.keep(bytes(whole[:have]))
            let_go(rest, whole)
            if isinstance(failure, TimeoutError | PeerTimeoutError) and have:
                answered = f"{have} of {size} bytes came within {self.connection.engine.timeout} s"
                remedy = "Try again, or give a longer timeout: those bytes are received next."
                raise PeerTimeoutError(condition.tried("receiving"), answered=answered, remedy=remedy) from failure
            raise
        rest.release()
        whole.release()
        if have < size:
            answered = f"the peer closed after {have} of {size} bytes"
            raise TruncatedError(condition.tried("receiving"), answered=answered)

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield (record type, bytes) until the clean end. Control records are acted on, then yielded as well.

        With io_uring this is one multishot receive. A control record is a piece of its own; the kernel may join data
        records into one piece. Raises what `recv_into` raises, and UsageError if the kernel does not receive.
        """
        return self._inlet.pieces()

    def splice_into(self, pipe: int, count: int) -> int:
        """Move up to `count` received bytes into a pipe, by splice(2) if the kernel decrypts.

        Returns how many, 0 only at a clean end. Raises what `recv_into` raises, and UsageError where the pipe takes
        nothing: what came is then received next.
        """
        tried = self._condition.tried("receiving into a pipe")
        _checks.whole(tried, "count", count)
        if self.layers[Direction.RX] == "kernel":
            return self._inlet.splice(pipe, count)
        _checks.pipe(tried, "pipe", pipe, os.O_WRONLY)  # before anything is taken that could then go nowhere
        return self._inlet.write(pipe, self.recv(min(count, MAX_PLAINTEXT))) if count else 0

    # Keys

    def update_keys(self, *, request_peer: bool = False) -> None:
        """Change this end's sending keys (KeyUpdate, RFC 8446 4.6.3), and with `request_peer` ask the peer to do so.

        Raises KeyUpdateError, before anything is sent, if this session cannot do it; see `transfer.keyupdate`.
        """
        self._control.update_keys(request_peer=request_peer)

    def resumption(self) -> Resumption | None:
        """Return what a later session can resume by `ClientConfig(resume=...)`; None if no ticket has arrived yet."""
        if self._handshake is None:
            return None
        if self._library and self._handshake.version is Version.TLS13:
            return self._library.resumption(self.tickets) if self.tickets else None
        return resumption(self._handshake)

    def limit_records(self, size: int) -> None:
        """Limit each record to `size` bytes of payload (TLS_TX_MAX_PAYLOAD_LEN, for RFC 8449).

        Raises MachineError if this kernel lacks the option, UsageError if the size or the stream does not allow it.
        """
        self._control.limit_records(size)

    # The end

    def send_eof(self) -> None:
        """End the sending: what is held back, then close_notify and FIN (SHUT_WR). Receiving goes on.

        Later sends raise StreamClosedError. TLS 1.3 and plain TCP allow the peer to go on sending (RFC 8446, 6.1). In
        TLS 1.2 it may discard what it had still to send, and answer with close_notify at once (RFC 5246, 7.2.1).
        """
        condition = self._condition
        condition.attend_to_the_end("ending the sending")
        if condition.finished:
            return
        if lost := condition.lost():
            condition.fail(lost)
            raise lost
        try:
            half_close(condition)
        except BaseException as error:  # noqa: BLE001
            condition.give_up("ending the sending", error)

    def close(self, *, wait: bool = True) -> None:
        """Send close_notify and FIN, wait until the peer's TCP has acknowledged everything, then close.

        Meanwhile, what the peer still sends is discarded; once everything has arrived, until it is silent for a second.
        `wait` false is for protocols whose answers show that the peer has everything. Raises PeerTimeoutError if
        something was not acknowledged within the connection's time-out, and StreamError if the last data sent may not
        have arrived for another reason, such as a reset.
        """
        condition = self._condition
        if condition.closed:
            if self._owner:
                self.connection.close()
            return
        problem = condition.failure if condition.untold else None
        condition.close()
        try:
            if not condition.failure:
                problem = farewell(condition, wait=wait)
            elif condition.told:
                let_it_be_heard(self.connection.socket, self.connection.engine.timeout)
        finally:  # even if something interrupts the farewell
            if self._updates:
                self._updates.wipe()
            with contextlib.suppress(OSError):  # a receive in another thread ends now
                self.connection.socket.shutdown(socket.SHUT_RDWR)
            self.connection.close()
        if problem:
            raise problem

    def __repr__(self) -> str:
        state = "closed" if self._condition.closed else "open"
        return f"Stream({self.connection.target}, {self.record_layer}+{self.connection.engine.name}, {state})"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [("record layer", self.record_layer)]
        rows += [("I/O engine", self.connection.engine.name)]
        rows += [("state", "closed" if self._condition.closed else "open")]
        return card(f"Stream with {self.connection.target}", rows)
