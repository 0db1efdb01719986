"""The two sides of a stream, sending and receiving, for each record layer.

Plain: bytes are sent as they are. Kernel: plain bytes go into the socket, as with plain TCP; receiving is in
`receiver`. Userspace: OpenSSL makes the records in `userspace`, rustls in `memory`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol

from ktlslab.errors import StreamError, TruncatedError
from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.linux.views import Rest, in_bytes
from ktlslab.stages.bound import Bound
from ktlslab.tls.records import ContentType

if TYPE_CHECKING:
    from ktlslab.stages.connection import Connection

CLOSE_NOTIFY = bytes([1, 0])
MORE = int(socket.MSG_MORE)


class Sender(Protocol):
    """`push(data, flags=0)` returns how many bytes it took; if not all, push the rest."""

    @property
    def push(self) -> Callable[..., int]: ...
    def send_record(self, data: Buffer, record_type: int) -> int: ...
    def close_notify(self) -> None: ...


class Receiver(Protocol):
    """`pull(buffer)` fills a buffer and returns the number of bytes. What 0 means depends on the record layer."""

    @property
    def pull(self) -> Callable[[Buffer], int]: ...
    def hear_out(self, heard: bytes) -> None:
        """Receive to the end, and discard data: the error of `pull` for an alert. On a closed connection nothing waits.

        `heard` came after the last `pull`: the contents of an alert if the kernel decrypts, otherwise as on the wire.
        """


class SocketSender:
    """Sends bytes as they are: over plain TCP, or through a socket whose records the kernel makes."""

    def __init__(self, connection: Connection) -> None:
        self.push = connection.engine.sender(connection.socket)  # no wrapper: this is called for every record
        self._connection = connection

    def send_record(self, data: Buffer, record_type: int) -> int:
        return self._connection.engine.send_record(self._connection.socket, data, record_type)

    def close_notify(self) -> None:
        """Send close_notify by a blocking call, with every engine. This also flushes what MSG_MORE held back.

        Newer kernels drop the last record of a non-blocking sender at close, and io_uring first tries not to block.
        """
        ktls.send_record(self._connection.socket, CLOSE_NOTIFY, ContentType.ALERT)


class PlainReceiver:
    def __init__(self, connection: Connection) -> None:
        self.pull = connection.engine.receiver(connection.socket)

    def hear_out(self, heard: bytes) -> None:
        """Do nothing: plain TCP has no alerts."""


def no_record(data: Buffer, record_type: int) -> NoReturn:
    """Refuse: neither library's binding for Python has such a call."""
    answered = f"the TLS library cannot be asked to send a record of type {record_type} ({len(data)} bytes)"
    raise StreamError("sending a control record", answered=answered, remedy="Let the kernel send: kernel-tx.")


def push_all(connection: Connection, push: Callable[..., int], data: Buffer, sent: int = 0, flags: int = 0) -> None:
    """Push the rest of `data` after `sent` bytes, one send at a time, since large sends may complete short."""
    size = len(data)
    with Bound(connection, Direction.TX) as bound:
        if not sent:
            sent = push(data, flags)
        while sent < size:
            bound.check()
            with Rest(data, sent) as rest:
                sent += push(rest, flags)


def push_rest(
    connection: Connection, push: Callable[..., int], buffers: Sequence[Buffer], sent: int, began: float
) -> None:
    """Push what one submission of all buffers has left after `sent` bytes, which raises the error that stopped it."""
    with Bound(connection, Direction.TX, began) as bound:
        for data in map(in_bytes, buffers):
            if sent < len(data):
                bound.check()
                push_all(connection, push, data, sent)
            sent = max(0, sent - len(data))


def truncated(connection: Connection, layer: str) -> TruncatedError:
    """Return the error for a stream that ended without close_notify."""
    remedy = "Bytes may be missing: do not treat the data as complete (RFC 8446, section 6.1)."
    tried = f"receiving on {connection.target} ({layer})"
    return TruncatedError(tried, answered="the stream ended without close_notify", remedy=remedy)
