"""The receiving side if the kernel decrypts. Data comes as plain bytes; other records come with their type."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import mmap
import os
import select
import sys
import termios
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.errors import AlertError, KeyUpdateError, StreamError, UsageError, errno_name
from ktlslab.linux.buffers import RECORD_HEAD, Incoming
from ktlslab.linux.engines import RingEngine
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.stages.bound import Bound
from ktlslab.stages.transfer.keyupdate import UPDATE_REQUESTED
from ktlslab.stages.transfer.manners import Manners
from ktlslab.stages.transfer.sides import truncated
from ktlslab.tls.alerts import ALERT_BYTES, Alert
from ktlslab.tls.records import ContentType, HandshakeType

if TYPE_CHECKING:
    from ktlslab.stages.connection import Connection
    from ktlslab.stages.transfer.keyupdate import KeyUpdates
    from ktlslab.stages.transfer.library import Library

_RECORD_BYTES = 1 << 14
_BUFFERS = 32  # for a multishot receive, one record each: 512 KiB in all


class KernelReceiver:
    """Receives data by a plain receive, `pull`, which returns 0 at any end and fails with EIO at any other record.

    After EIO, `fetch` receives by recvmsg(2) with room for the record type and acts on the record. `left` is data from
    `fetch` that did not fit into the caller's buffer. `ended` is true after a clean end.

    `updates` are the next keys. `asked` is called if the peer requests a KeyUpdate. `tickets` collects the
    NewSessionTicket messages. `library` gets each KeyUpdate if OpenSSL makes the records that this end sends.
    `manners` says what else may come after the handshake.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        tickets: list[bytes],
        updates: KeyUpdates | None = None,
        asked: Callable[[], None] | None = None,
        library: Library | None = None,
        manners: Manners | None = None,
    ) -> None:
        self._connection, self._tickets = connection, tickets
        self._manners = manners or Manners()
        self._updates, self._asked, self._library = updates, asked, library
        self.pull = connection.engine.receiver(connection.socket)
        self.left = memoryview(b"")
        self.backlog: deque[tuple[int, bytes]] = deque()  # received for an iteration that was abandoned
        self.ended = False
        self._incoming: Incoming | None = None  # the multishot receive of an iteration
        self._messages = bytearray()  # handshake messages received so far, the last one maybe incomplete
        self._tried = f"receiving on {connection.target} (kernel)"

    @functools.cached_property
    def _record(self) -> bytearray:
        """Room for a record with its type. Few sessions ever receive one so: a server's thousands need not have it."""
        return bytearray(_RECORD_BYTES)

    def fetch(self, buffer: Buffer) -> int:
        """Receive control records without polling (in some kernels poll does not report an unread KeyUpdate).

        Returns how many bytes of data followed them into `buffer`. 0 means a clean end if `ended` is true; otherwise
        the caller must receive again to find out.
        """
        with Bound(self._connection, Direction.RX) as bound:
            while True:
                record_type, payload = self.recv_record()
                if record_type == ContentType.APPLICATION_DATA:
                    self.left = memoryview(payload)
                    return self.take_left(buffer)
                if self.act(record_type, payload):
                    return 0
                bound.check()
                try:
                    return self.pull(buffer)
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise

    def take_left(self, buffer: Buffer) -> int:
        """Return how much left-over data was copied into `buffer`: 0 if there is none, or at the clean end."""
        while not self.left and self.backlog:
            record_type, payload = self.backlog.popleft()
            if record_type == ContentType.APPLICATION_DATA:
                self.left = memoryview(payload)
            elif self.act(record_type, payload):
                return 0
        part = min(len(buffer), len(self.left))
        memoryview(buffer)[:part] = self.left[:part]
        self.left = self.left[part:]
        return part

    def keep(self, data: bytes) -> None:
        """Keep data that was received and not taken: it is received next."""
        self.left = memoryview(data + bytes(self.left))

    def recv_record(self) -> tuple[int, bytes]:
        """Return the next record's type and contents, without acting on it; the kernel may join data records."""
        if self.left:
            rest, self.left = bytes(self.left), memoryview(b"")
            return ContentType.APPLICATION_DATA, rest
        if self.backlog:
            return self.backlog.popleft()
        count, record_type = self._connection.engine.recv_record(self._connection.socket, self._record)
        if not count and record_type < 0:
            raise truncated(self._connection, "kernel")
        return record_type, bytes(self._record[:count])

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Act on each record and yield it, until the clean end. With a ring, this is one multishot receive."""
        engine = self._connection.engine
        while not self.ended:
            if self.left or self.backlog or not isinstance(engine, RingEngine):
                record_type, payload = self.recv_record()
                if record_type != ContentType.APPLICATION_DATA:
                    self.act(record_type, payload)
                yield record_type, payload
            else:
                yield from self._multishot(engine)

    def _multishot(self, engine: RingEngine) -> Iterator[tuple[int, bytes]]:
        """Yield pieces until the clean end, or until the kernel waits for new keys; keep the rest in `backlog`."""
        sock, ring = self._connection.socket, engine.ring
        with (
            ring.buffer_ring(_BUFFERS, _RECORD_BYTES + RECORD_HEAD) as buffers,
            ring.recvmsg_multishot(sock.fileno(), buffers, timeout=engine.timeout) as incoming,
        ):
            self._incoming = incoming
            try:
                for record_type, payload in incoming:
                    if record_type != ContentType.APPLICATION_DATA:
                        self.act(record_type, payload)
                    yield record_type, payload
                    if self.ended:
                        return
                raise truncated(self._connection, "kernel")
            except OSError as error:
                if error.errno != errno.EKEYEXPIRED:  # it ended at a KeyUpdate, whose new keys are installed by now
                    raise
            finally:
                self._incoming = None
                incoming.stop()
                self._put_back(incoming)

    def _put_back(self, incoming: Incoming) -> None:
        """Keep what a multishot receive has received, in batches."""
        with contextlib.suppress(OSError):
            while batch := incoming.take(wait=False):
                self.backlog.extend(batch)

    def splice_into(self, pipe: int, count: int) -> int:
        """Move the bytes of a record into a pipe by splice(2); 0 only at the clean end.

        splice(2) fails with EINVAL at a control record, and returns 0 for an empty record as for any end. In both cases
        a receive with the record type decides. So it does with a pipe that does not block: splice(2) then does not wait
        for the socket either.
        """
        while count and not self.ended:
            if not (self.left or self.backlog):
                try:
                    if _roomy(pipe) and (moved := os.splice(self._connection.socket.fileno(), pipe, count)):
                        return moved
                except OSError as error:
                    waited = error.errno == errno.EAGAIN and os.get_blocking(pipe)
                    if waited or error.errno not in {errno.EINVAL, errno.EIO, errno.EAGAIN}:
                        raise
                record_type, payload = self.recv_record()
                if record_type != ContentType.APPLICATION_DATA:
                    self.act(record_type, payload)
                    continue
                self.left = memoryview(payload)
            buffer = bytearray(min(count, _RECORD_BYTES))
            part = bytes(buffer[: self.take_left(buffer)])
            if part:
                return self._write(pipe, part)
        return 0

    def _write(self, pipe: int, data: bytes) -> int:
        """Write to a pipe and keep what it does not take."""
        written = 0
        try:
            tried = f"receiving into a pipe on {self._connection.target} (kernel)"
            written = write(tried, pipe, data, self._connection.engine.timeout)
        finally:
            self.keep(data[written:])
        return written

    def hear_out(self, heard: bytes) -> None:
        """Act on all that has come, and discard data: AlertError for an alert."""
        if heard:
            self.act(ContentType.ALERT, heard)
        if self._incoming:  # between two pieces
            self._put_back(self._incoming)
        while not self.ended:
            record_type, payload = self.recv_record()
            if record_type != ContentType.APPLICATION_DATA:
                self.act(record_type, payload)

    def act(self, record_type: int, payload: bytes) -> bool:
        """Act on a control record. Return True if it is the clean end."""
        if record_type == ContentType.ALERT and len(payload) == ALERT_BYTES:
            alert = Alert.parse(payload)
            if alert.fatal and not self._manners.mere_warning(alert):
                raise AlertError(self._tried, alert=alert.name, answered=f"the peer sent the alert {alert}")
            self.ended = alert.is_close_notify
            return self.ended
        if record_type != ContentType.HANDSHAKE:
            raise StreamError(self._tried, answered=f"an unexpected record of type {record_type} arrived")
        self._messages += payload
        while len(self._messages) >= 4:
            end = 4 + int.from_bytes(self._messages[1:4], "big")
            if len(self._messages) < end:
                break
            message = bytes(self._messages[:end])
            del self._messages[:end]
            self._message(message)
        return False

    def _message(self, message: bytes) -> None:
        if message[0] == HandshakeType.NEW_SESSION_TICKET and self._manners.tickets:
            self._tickets.append(message)
        elif message[0] == self._manners.renegotiation:
            self._manners.decline()
        elif message[0] == HandshakeType.KEY_UPDATE and len(message) == 5 and message[4] <= UPDATE_REQUESTED:
            self._key_update(message)
        else:
            raise StreamError(self._tried, answered=f"an unexpected handshake message of type {message[0]} arrived")

    def _key_update(self, message: bytes) -> None:
        tried = f"following a KeyUpdate of {self._connection.target}"
        if self._messages:
            raise StreamError(tried, answered="more follows it in its record, which RFC 8446 (5.1) forbids")
        if self._updates is None:
            raise KeyUpdateError(
                tried, answered="the keys were installed by hand", remedy="Install new ones by hand, too."
            )
        self._updates.check(tried)
        self._updates.install(Direction.RX, tried)
        if self._library:
            self._library.told(message)  # it answers by itself, before what it sends next
        elif message[4] == UPDATE_REQUESTED and self._asked:
            self._asked()


def write(tried: str, pipe: int, data: bytes, timeout: float | None) -> int:
    """Write to a pipe, as soon as it has room, and return how many bytes it took. UsageError where it takes none.

    A pipe that can be written to takes PIPE_BUF bytes without a wait (pipe(7)); more could block until someone reads.
    """
    poll, written = select.poll(), 0
    try:
        poll.register(pipe, select.POLLOUT)
        wait = (None if timeout is None else timeout * 1000) if os.get_blocking(pipe) else 0
        while written < len(data) and poll.poll(0 if written else wait):
            written += os.write(pipe, data[written : written + select.PIPE_BUF])
    except OSError as error:
        if not written:
            _checks.pipe(tried, "pipe", pipe, os.O_WRONLY)
            raise not_taken(tried, error) from error
    if data and not written:
        raise not_taken(tried, BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
    return written


def not_taken(tried: str, error: OSError) -> UsageError:
    remedy = "What came is kept for the next receive: empty the pipe, or give another."
    return UsageError(tried, answered=f"the pipe took nothing: {errno_name(error.errno or 0)}", remedy=remedy)


def _roomy(pipe: int) -> bool:
    """Whether a pipe is empty and holds more than a page. With less room, kernels before 7.x lose bytes of a record."""
    waiting = int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
    return not waiting and fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) > mmap.PAGESIZE
