"""Both sides of a stream whose records OpenSSL makes: in C down to OpenSSL and to the kernel, as the other layers' are.

`syscall` is the classic blocking client: OpenSSL uses the socket itself, without buffers in between. Its time-out
limits each of OpenSSL's waits: a peer that sends a record byte by byte makes one call last long. `uring` goes through
OpenSSL's memory BIOs, since OpenSSL cannot use a ring, and so does what shares the connection with the kernel, whose
records OpenSSL must neither read nor write. They force two copies of every byte each way.

`push` and `pull` are the compiled part's (linux/native/tls.c). What is here is what it calls where something is rare.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from OpenSSL import SSL

from ktlslab.errors import AlertError
from ktlslab.linux import _hot
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Buffer
from ktlslab.stages.bound import Bound
from ktlslab.stages.transfer.parting import explained
from ktlslab.stages.transfer.sides import MORE, no_record, push_all, truncated
from ktlslab.stages.transfer.unread import unread_alert
from ktlslab.tls.records import HEADER_BYTES, MAX_PLAINTEXT
from ktlslab.tls.traffic import FUNCTIONS, Traffic

if TYPE_CHECKING:
    from ktlslab.stages.connection import Connection
    from ktlslab.stages.handshaking import Handshake


class Userspace(_hot.Tls):
    """Sends and receives. OpenSSL has no MSG_MORE, so held-back data is kept here.

    `alone`: the kernel makes no records of this connection, so OpenSSL may have the socket. `tells`: `suspected` is
    called for what comes.
    """

    def __init__(
        self, connection: Connection, handshake: Handshake, *, alone: bool = True, tells: bool = False
    ) -> None:
        machine = handshake.machine
        self._connection, self._handshake, self._machine = connection, handshake, machine
        self._traffic: Traffic = machine.traffic  # type: ignore[assignment]  # OpenSSL's
        self._held = bytearray()
        self.apart = threading.Lock()  # held to `tell`, and to let OpenSSL make close_notify
        if alone and connection.engine.name == "syscall":
            self._begin(self._traffic.own(connection.socket.fileno()))
        else:
            self._begin(self._traffic.memory(), tells=tells)

    def _begin(self, session: tuple[int, int, int], *, tells: bool = False) -> None:
        self._on_socket = not session[1]
        sock, engine = self._connection.socket, self._connection.engine
        super().__init__(FUNCTIONS, *session, engine.calls, sock.fileno(), engine.timeout, tells)

    def send_record(self, data: Buffer, record_type: int) -> int:
        return no_record(data, record_type)

    def close_notify(self) -> None:
        """Send the held-back data, then close_notify.

        OpenSSL then leaves the socket, on which it could write no answer to a KeyUpdate any more.
        """
        if self._held:
            self.push(b"")
        self.check_free()
        with self.apart:
            self._machine.shut_down()
        if self._on_socket:
            self._begin(self._traffic.memory())
            return
        with Bound(self._connection, Direction.TX) as bound:
            while self.carry():
                bound.check()

    # Called by `push`

    def held(self, data: Buffer, flags: int) -> int:
        """Hold data back, or send it with what was held back."""
        self._held += data
        if not flags & MORE:
            whole, self._held = self._held, bytearray()
            push_all(self._connection, self.push, whole)
        return len(data)

    def unsent(self) -> None:
        """Send the rest of the records, one send at a time, since large sends may complete short."""
        with Bound(self._connection, Direction.TX) as bound:
            bound.check()
            while self.carry():
                bound.check()

    # Called by `pull`

    def incomplete(self, buffer: Buffer) -> int:
        """Receive the rest of a record that comes in parts, within one time-out."""
        with Bound(self._connection, Direction.RX) as bound:
            while (count := self.pull_once(buffer)) is None:
                bound.check()
        return count

    def ended(self) -> NoReturn:
        raise truncated(self._connection, "userspace")

    def hear_out(self, heard: bytes) -> None:
        """Let OpenSSL read all that has come, and discard data: SSL.Error for an alert.

        Once it has failed to write to the socket itself, it does not read either: AlertError.
        """
        if heard:
            self.tell(heard)
        waste = bytearray(MAX_PLAINTEXT)
        try:
            while self.pull(waste):
                pass
        except SSL.Error as error:
            if self._on_socket and not explained(error)[1] and (alert := unread_alert(self._handshake)):
                raise AlertError("receiving", alert=alert.name, answered=f"the peer sent the alert {alert}") from error
            raise

    # Called by both

    def failed(self, answer: int, error: int, receives: int) -> int:
        """Raise SSL.Error, or the OSError or TruncatedError that OpenSSL has met on the socket. 0: a clean end."""
        failure = self._traffic.explained(answer, error)
        syscall = isinstance(failure, SSL.SysCallError)
        if receives and syscall and failure.args[0] == -1 and self._traffic.ended:
            return 0
        if receives and (failure.args[0] == -1 if syscall else "unexpected eof" in str(failure)):
            raise truncated(self._connection, "userspace") from failure
        raise OSError(*failure.args) if syscall else failure


class UserspaceReceiver(Userspace):
    """Receives while the kernel sends. `asked` is called if the peer requests a KeyUpdate (TLS 1.3)."""

    def __init__(self, connection: Connection, handshake: Handshake, asked: Callable[[], None] | None = None) -> None:
        self._asked = asked
        super().__init__(connection, handshake, alone=False, tells=asked is not None)

    def suspected(self) -> None:
        """Find out whether OpenSSL must answer a KeyUpdate, after a record of that size has come.

        OpenSSL does not show this until it writes. So it is made to write a byte, which is not sent because the kernel
        sends; its answer would precede that byte.
        """
        sealed = self._traffic.seal(b"\0")
        if self._asked and len(sealed) > HEADER_BYTES + int.from_bytes(sealed[3:5], "big"):
            self._asked()
