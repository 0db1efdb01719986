"""Stage 5, transfer: the same `Stream` whoever makes the records.

A stream has two sides (`stages.sides`), and the two need not be alike. What kTLS asks of its user, and where it is
answered:

* a control record (session ticket, alert, KeyUpdate) makes a plain receive fail with EIO, again and again, until
  recvmsg(2) with room for its type fetches it: `KernelReceiver` does so at once, without polling first;
* an end of file may be a truncation: only close_notify ends a stream cleanly, anything else is TruncatedError;
* a send on a connection that is gone "succeeds" into nothing: `_check_up` asks TCP how it is, every few sends and
  before the farewell;
* one key protects a limited number of records, and the kernel does not count them: `_check_up` does;
* a close with unread records in the socket resets the connection: `close` reads them away first;
* some receive errors come once and the next receive blocks: the first one is kept and raised again.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ktlslab.errors import (
    KeyUpdateError,
    KtlsLabError,
    MachineError,
    TruncatedError,
    UsageError,
    errno_name,
)
from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.stages import sides
from ktlslab.stages.kernelreceiver import KernelReceiver
from ktlslab.stages.keyupdate import KeyUpdates, key_update
from ktlslab.stages.library import Library, resumption
from ktlslab.stages.life import Life
from ktlslab.tls.records import MAX_PLAINTEXT, ContentType
from ktlslab.tls.suites import Version

if TYPE_CHECKING:
    from typing import BinaryIO

    from ktlslab.stages.config import Resumption
    from ktlslab.stages.connection import Connection
    from ktlslab.stages.handshaking import Handshake

# A check-up costs a few thousand instructions, so it comes once in so many records; on the receiving side, where only
# the number of records under one key is looked at, once in so many receives.
CHECK_EVERY = 64
_LOOK_EVERY = 1 << 14
_NEVER = 1 << 62
_FILE_BYTES = 1 << 17
_MORE = int(socket.MSG_MORE)


class Stream(Life):
    """Bytes to and from the peer.

    For one thread at a time where io_uring moves the bytes (a ring is one thread's), else for one in each direction.

    `kernel` says which directions were installed; without a `handshake` both sides are plain, or, where `kernel` names
    them, the kernel's by keys that were made up. `record_limit` is how many records one key may protect (default: the
    cipher's, RFC 8446, 5.5): new keys are agreed on in time, or the stream ends with KeyUpdateError.
    """

    def __init__(
        self,
        connection: Connection,
        handshake: Handshake | None = None,
        kernel: tuple[Direction, ...] = (),
        *,
        record_limit: int | None = None,
    ) -> None:
        rest = "userspace" if handshake else "plain"
        super().__init__(connection, {direction: "kernel" if direction in kernel else rest for direction in Direction})
        self.tickets: list[bytes] = []  # NewSessionTicket messages that came by kTLS, as they came
        self._handshake = handshake
        self._kernel = kernel
        self._updates = KeyUpdates(connection, handshake) if handshake and kernel else None
        self._limit = record_limit or (self._updates.suite.cipher.record_limit if self._updates else _NEVER)
        self._until_check_up = CHECK_EVERY if self.layers[Direction.TX] == "kernel" else _NEVER
        self._shift = MAX_PLAINTEXT.bit_length() - 1  # a send of n bytes makes at most 1 + (n >> shift) records
        self._look_every = min(_LOOK_EVERY, max(1, self._limit >> 2)) if Direction.RX in kernel else _NEVER
        self._until_look = self._look_every
        self._requested = -1  # the generation of the peer's keys that we asked it to leave
        self._library = Library(handshake) if handshake and Direction.RX in kernel else None
        self._sender, self._receiver = self._sides(handshake)
        self._push, self._pull = self._sender.push, self._receiver.pull

    def _sides(self, handshake: Handshake | None) -> tuple[sides.Sender, sides.Receiver]:
        connection, tx, rx = self.connection, self.layers[Direction.TX], self.layers[Direction.RX]
        if handshake and not self._kernel and connection.engine.name == "syscall":
            both = sides.OpenSslSide(connection, handshake.machine)
            return both, both
        sender: sides.Sender = sides.SocketSender(connection)
        if handshake and tx == "userspace":
            sender = sides.UserspaceSender(connection, handshake.machine)
        if rx == "kernel":
            library = self._library if tx == "userspace" else None
            return sender, KernelReceiver(
                connection, tickets=self.tickets, updates=self._updates, asked=self._owe, library=library
            )
        if handshake:
            asked = self._owe if tx == "kernel" and handshake.version is Version.TLS13 else None
            return sender, sides.UserspaceReceiver(connection, handshake.machine, asked)
        return sender, sides.PlainReceiver(connection)

    @property
    def generations(self) -> dict[Direction, int]:
        """How many times each direction that the kernel has changed its keys."""
        return {direction: self._updates.generation[direction] for direction in self._kernel} if self._updates else {}

    # Sending

    def send(self, data: Buffer, *, more: bool = False) -> None:
        """Send all of `data`. With `more` (MSG_MORE) the last record is held back until a send without it.

        StreamClosedError after `close`, after a failure, or once the peer is known to be gone.
        """
        size = len(data)
        self._until_check_up -= 1 + (size >> self._shift)
        if self._until_check_up < 0:
            self._check_up("sending")
        try:
            sent = self._push(data, _MORE) if more else self._push(data)
            if sent != size:
                sides.push_all(self._push, data, sent, _MORE if more else 0)
        except OSError as error:
            raise self._failed("sending", error) from error
        except SSL.Error as error:
            raise self._library_failed("sending", error) from error
        self._unconfirmed = True

    def send_many(self, buffers: Sequence[Buffer]) -> None:
        """Send buffers one after the other, each in records of its own; through io_uring with one submission for all.

        Raises what `send` raises.
        """
        if self.layers[Direction.TX] == "userspace" or self.connection.engine.name == "syscall":
            for data in buffers:
                self.send(data)
            return
        self._attend("sending")
        size = sum(map(len, buffers))
        self._until_check_up -= len(buffers) + (size >> self._shift)
        if self._until_check_up < 0:
            self._check_up("sending")
        try:
            sent = self.connection.engine.send_many(self.connection.socket, buffers)
            if sent != size:  # something stands in the way: the rest tells what
                for data in buffers:
                    if sent < len(data):
                        sides.push_all(self._push, data, sent)
                    sent = max(0, sent - len(data))
        except OSError as error:
            raise self._failed("sending", error) from error
        self._unconfirmed = True

    def send_record(self, data: Buffer, record_type: int) -> None:
        """Send one record of any type (sendmsg(2) with TLS_SET_RECORD_TYPE). The kernel checks nothing.

        UsageError where the kernel does not send.
        """
        if self.layers[Direction.TX] != "kernel":
            answered = f"the sending side is {self.layers[Direction.TX]}"
            raise UsageError(self._tried("sending a record"), answered=answered, remedy="Let the kernel send.")
        self._attend("sending a record")
        self._until_check_up -= 1
        if self._until_check_up < 0:
            self._check_up("sending a record")
        try:
            self._sender.send_record(data, record_type)
        except OSError as error:
            raise self._failed("sending a record", error) from error
        self._unconfirmed = True

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int:
        """Send a file's bytes and return how many: by sendfile(2), or by read and send where OpenSSL makes records."""
        descriptor = file.fileno()
        left = os.fstat(descriptor).st_size - offset if count is None else count
        return self._move(
            "sending a file",
            left,
            lambda size, at: os.sendfile(self.connection.socket.fileno(), descriptor, offset + at, size),
            lambda size, at: os.pread(descriptor, size, offset + at),
        )

    def splice_from(self, pipe: int, count: int) -> int:
        """Send up to `count` bytes out of a pipe, by splice(2) where the kernel makes the records; returns how many."""
        return self._move(
            "sending from a pipe",
            count,
            lambda size, _: os.splice(pipe, self.connection.socket.fileno(), size),
            lambda size, _: os.read(pipe, size),
        )

    # Receiving

    def recv_into(self, buffer: Buffer) -> int:
        """Fill `buffer` with what has come, at least one byte; 0 only at a clean end.

        Raises TruncatedError, AlertError, KeyUpdateError, StreamError, PeerTimeoutError; the first of them is raised
        again ever after, except a time-out, after which one may try again.
        """
        self._until_look -= 1
        if self._until_look < 0:
            self._look()
        try:
            count = self._pull(buffer)
        except (OSError, SSL.Error, KtlsLabError) as error:
            count = self._pull_again(buffer, error)
        self._unconfirmed = False
        return count or self._at_end(buffer)

    def recv(self, count: int = 1 << 16) -> bytes:
        """Return up to `count` bytes, b"" only at a clean end."""
        buffer = bytearray(count)
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_exactly(self, buffer: Buffer) -> None:
        """Fill all of `buffer`. TruncatedError where the stream ends before."""
        try:
            have = self._pull(buffer)  # as in recv_into, which would cost another frame
        except (OSError, SSL.Error, KtlsLabError) as error:
            have = self._pull_again(buffer, error)
        self._unconfirmed = False
        if have == len(buffer):
            return
        have = have or self.recv_into(buffer)
        with memoryview(buffer) as whole:
            while have < len(whole):
                with whole[have:] as rest:
                    got = self.recv_into(rest)
                if not got:
                    answered = f"the peer closed after {have} of {len(whole)} bytes"
                    raise TruncatedError(self._tried("receiving"), answered=answered)
                have += got

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield (record type, bytes) up to the clean end, control records included; those are acted on before.

        Through io_uring by one multishot receive. A control record stands alone; data records that are there together
        come as one piece, for the kernel joins them. UsageError where the kernel does not receive.
        """
        receiver = self._receiver
        if not isinstance(receiver, KernelReceiver):
            answered = f"the receiving side is {self.layers[Direction.RX]}"
            raise UsageError(self._tried("receiving pieces"), answered=answered, remedy="Let the kernel receive.")
        if self._ended or self._failure or self._closed:
            self._over()
            return
        try:
            for piece in receiver.pieces():
                self._unconfirmed = False
                self._until_look -= 1
                if self._until_look < 0:
                    self._look()
                yield piece
        except (OSError, KtlsLabError) as error:
            raise self._received(error) from error
        finally:
            self._ended = receiver.ended
            if not self._failure and (receiver.left or receiver.backlog or receiver.ended):
                self._pull = self._pull_left

    def splice_into(self, pipe: int, count: int) -> int:
        """Move up to `count` received bytes into a pipe, by splice(2) where the kernel opens the records.

        Returns how many, 0 only at a clean end. Raises what `recv_into` raises.
        """
        receiver = self._receiver
        if not isinstance(receiver, KernelReceiver):
            return os.write(pipe, self.recv(min(count, MAX_PLAINTEXT)))
        if self._ended or self._failure or self._closed:
            return self._over()
        try:
            moved = receiver.splice_into(pipe, count)
        except (OSError, KtlsLabError) as error:
            raise self._received(error) from error
        self._ended = receiver.ended
        if receiver.left or receiver.backlog or receiver.ended:
            self._pull = self._pull_left
        return moved

    # Keys

    def update_keys(self, *, request_peer: bool = False) -> None:
        """Change the keys of what this end sends (KeyUpdate, RFC 8446, 4.6.3), and ask the peer to do so as well.

        KeyUpdateError, before anything has happened, where this session cannot; see `stages.keyupdate`.
        """
        tried = self._tried("changing keys")
        if self._updates is None or self.layers[Direction.TX] != "kernel":
            answered = f"the sending side is {self.layers[Direction.TX]}"
            remedy = "The kernel must send: OpenSSL's binding for Python cannot be asked for a KeyUpdate."
            raise KeyUpdateError(tried, answered=answered, remedy=remedy)
        self._updates.check(tried)
        if self._closed or self._failure:
            self._attend("changing keys")
        self._owed = False
        try:
            self._sender.send_record(key_update(request_peer=request_peer), ContentType.HANDSHAKE)
            self._updates.install(Direction.TX, tried)
        except OSError as error:
            raise self._failed("changing keys", error) from error
        except KeyUpdateError as error:
            self._fail(error)
            raise

    def resumption(self) -> Resumption | None:
        """Return what a later session can resume: `ClientConfig(resume=...)`. None where no ticket has come yet."""
        if self._handshake is None:
            return None
        if self._library and self._handshake.version is Version.TLS13:
            return self._library.resumption(self.tickets) if self.tickets else None
        return resumption(self._handshake)

    def limit_records(self, size: int) -> None:
        """Let the kernel put at most `size` bytes into a record (TLS_TX_MAX_PAYLOAD_LEN; RFC 8449 asks for it).

        MachineError where this kernel has not the option, UsageError where the size or the stream does not allow it.
        """
        tried = self._tried(f"limiting records to {size} bytes")
        if self.layers[Direction.TX] != "kernel":
            remedy = "Let the kernel send, or send pieces of that size: each send ends its record."
            raise UsageError(tried, answered=f"the sending side is {self.layers[Direction.TX]}", remedy=remedy)
        try:
            ktls.set_max_payload(self.connection.socket, size)
        except OSError as error:
            if error.errno in {errno.ENOPROTOOPT, errno.EOPNOTSUPP}:
                remedy = "Send in pieces of that size instead: each send ends its record."
                raise MachineError(tried, answered=errno_name(error.errno), remedy=remedy) from error
            remedy = "64 to 16384 bytes for TLS 1.2, 63 to 16384 for 1.3, and no record may be held back."
            raise UsageError(tried, answered=errno_name(error.errno or 0), remedy=remedy) from error
        self._shift = size.bit_length() - 1

    # What is not seen from outside

    def _move(self, verb: str, count: int, whole: Callable[[int, int], int], read: Callable[[int, int], bytes]) -> int:
        """Send up to `count` bytes that need not pass through here, by `whole(size, at)`; else `read` and send them."""
        self._attend(verb)
        moved = 0
        while moved < count:
            size = min(count - moved, _FILE_BYTES)
            self._until_check_up -= 1 + (size >> self._shift)
            if self._until_check_up < 0:
                self._check_up(verb)
            try:
                if self.layers[Direction.TX] == "userspace":
                    data = read(size, moved)
                    sides.push_all(self._push, data)
                    step = len(data)
                else:
                    step = whole(size, moved)
            except OSError as error:
                raise self._failed(verb, error) from error
            except SSL.Error as error:
                raise self._library_failed(verb, error) from error
            if not step:
                break
            moved += step
            self._unconfirmed = True
        return moved

    def _pull_again(self, buffer: Buffer, error: Exception) -> int:
        """Receive once more after a control record stood in the way, or raise what the stream failed of."""
        if error is self._failure:
            raise error
        receiver = self._receiver
        if not (isinstance(error, OSError) and error.errno == errno.EIO and isinstance(receiver, KernelReceiver)):
            raise self._received(error) from error
        return self._fetch(receiver, buffer)

    def _fetch(self, receiver: KernelReceiver, buffer: Buffer) -> int:
        try:
            count = receiver.fetch(buffer)
        except (OSError, KtlsLabError) as failure:
            raise self._received(failure) from failure
        if receiver.left:
            self._pull = self._pull_left
        return count

    def _pull_left(self, buffer: Buffer) -> int:
        receiver = self._receiver
        assert isinstance(receiver, KernelReceiver)  # noqa: S101 - no other leaves anything
        count = receiver.take_left(buffer)
        if not (receiver.left or receiver.backlog):
            self._pull = receiver.pull
        return count or (0 if receiver.ended else self._pull(buffer))

    def _at_end(self, buffer: Buffer) -> int:
        """Nothing came: a clean end, a truncation, or an empty record. The typed receive tells them apart."""
        receiver = self._receiver
        if not len(buffer):
            return 0
        while isinstance(receiver, KernelReceiver) and not (self._ended or receiver.ended):
            if count := self._fetch(receiver, buffer):
                return count
        self._ended = True
        self._pull = self._pull_heeding
        return 0

    def _look(self) -> None:
        """Whether the peer's key may still protect what it sends. It is asked for a new one when this end sends.

        Counting costs as much as 500 instructions, so a `recv_exactly` that one receive fills does without.
        """
        self._until_look = self._look_every
        if self._updates is None or self._closed or self._failure:
            return
        used = self._updates.records(Direction.RX)
        if used >= self._limit:
            answered = f"the peer's key has protected {used} records and may protect {self._limit}"
            remedy = "Open a new session; where this end sends now and then, it asks for new keys in time."
            failure = KeyUpdateError(self._tried("receiving"), answered=answered, remedy=remedy)
            self._fail(failure)
            raise failure

    def _owe(self) -> None:
        """Note that the peer asked for new keys: it gets them before what is sent next (RFC 8446, 4.6.3)."""
        self._owed = True
        self._push = self._push_heeding

    def _answer(self) -> None:
        self.update_keys()

    def _check_up(self, verb: str) -> None:
        """Whether the connection lives, and whether its keys may protect what is about to be sent."""
        coming = CHECK_EVERY - self._until_check_up
        self._until_check_up = CHECK_EVERY
        if self._closed or self._failure:
            self._attend(verb)
        if lost := self._lost():
            self._fail(lost)
            raise lost
        self._unconfirmed = False
        if self._updates is None:
            return
        for direction in self._kernel:
            used = self._updates.records(direction)
            if used + coming + CHECK_EVERY < self._limit:
                continue
            if (
                direction is Direction.RX
                and self._requested == self._updates.generation[direction]
                and used < self._limit
            ):
                continue  # the peer was asked, and has not answered yet
            try:
                self.update_keys(request_peer=direction is Direction.RX)
            except KeyUpdateError as error:
                answered = (
                    f"this {direction.name} key has protected {used} records and may protect {self._limit}; {error}"
                )
                remedy = "Open a new session."
                failure = KeyUpdateError(self._tried(verb), answered=answered, remedy=remedy)
                self._fail(failure)
                raise failure from error
            if direction is Direction.RX:
                self._requested = self._updates.generation[direction]
