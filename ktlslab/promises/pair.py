"""Two ends of a TLS connection: at one the kernel seals and opens records, at the other this module does.

So kTLS is never tested against itself: `ktlslab.tls.protect` opens what the kernel sends, and seals what it receives.
The keys are made up, the sockets are loopback TCP, and every blocking call has a timeout.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self, TypeVar

from ktlslab.linux import ktls
from ktlslab.linux.ktls import CryptoInfo, Direction
from ktlslab.promises.verdicts import Absent, Broken, attempt, difference, show
from ktlslab.tls.keyschedule import kernel_iv_tls12, split_write_iv
from ktlslab.tls.protect import open_record, seal
from ktlslab.tls.records import ContentType, RecordSplitter
from ktlslab.tls.suites import Suite, Version

DATA, ALERT, HANDSHAKE = ContentType.APPLICATION_DATA, ContentType.ALERT, ContentType.HANDSHAKE
CLOSE_NOTIFY = b"\x01\x00"
KEY_UPDATE = b"\x18\x00\x00\x01\x00"  # RFC 8446 4.6.3, update_not_requested

ENOUGH_S = 5.0  # whatever arrives does so long before this
QUIET_S = 0.15  # what has not arrived by then was not sent

T = TypeVar("T")
Received = tuple[ContentType | int, bytes]


class Keys:
    """One direction's key and write IV, derived only from its name, generation and suite."""

    def __init__(self, suite: Suite, direction: Direction, generation: int = 0) -> None:
        cipher, self.suite = suite.cipher, suite
        made = hashlib.shake_256(f"{direction.name} {generation}".encode()).digest(64)
        self.key = made[: cipher.key_bytes]
        self.write_iv = made[32:44] if suite.version is Version.TLS13 else made[32 : 32 + cipher.fixed_iv_bytes]

    def crypto_info(self, sequence: int = 0) -> CryptoInfo:
        """Return the struct for setsockopt(2)."""
        cipher = self.suite.cipher
        if self.suite.version is Version.TLS13:
            parts = split_write_iv(self.write_iv, cipher)
        else:
            parts = kernel_iv_tls12(self.write_iv, sequence, cipher)
        return CryptoInfo(
            version=self.suite.version.wire,
            cipher_type=cipher.kernel_type,
            iv=parts.iv,
            key=self.key,
            salt=parts.salt,
            rec_seq=sequence.to_bytes(8, "big"),
        )


class Peer:
    """Our end: a socket, and the keys and sequence numbers of both directions."""

    def __init__(self, sock: socket.socket, suite: Suite) -> None:
        self.sock = sock
        self.suite = suite
        self.sealing = Keys(suite, Direction.RX)  # the kernel receives what this end sends
        self.opening = Keys(suite, Direction.TX)
        self.sealed = self.opened = 0
        self._splitter = RecordSplitter()

    def seal(self, data: bytes, kind: int = DATA, *, padding: int = 0) -> bytes:
        """Return the next record without sending it."""
        keys, number = self.sealing, self.sealed
        self.sealed += 1
        return seal(self.suite, keys.key, keys.write_iv, number, kind, data, padding=padding)

    def send(self, data: bytes, kind: int = DATA, *, padding: int = 0) -> None:
        """Send one record."""
        self.sock.sendall(self.seal(data, kind, padding=padding))

    def update_keys(self, generation: int = 1) -> None:
        """Send a KeyUpdate, and seal with the next keys from then on (RFC 8446 7.2)."""
        self.send(KEY_UPDATE, HANDSHAKE)
        self.sealing, self.sealed = Keys(self.suite, Direction.RX, generation), 0

    def records(self, count: int = 1, within: float = ENOUGH_S) -> list[Received]:
        """Return the next `count` records, opened; fewer if no more come in time or the stream ends."""
        got: list[Received] = []
        deadline = time.monotonic() + within
        while len(got) < count:
            record = self._splitter.next()
            if record is not None:
                got.append(open_record(self.suite, self.opening.key, self.opening.write_iv, self.opened, record.raw))
                self.opened += 1
            elif not readable(self.sock, deadline - time.monotonic()) or not (data := self.sock.recv(1 << 16)):
                break
            else:
                self._splitter.feed(data)
        return got

    def record(self) -> Received | None:
        """Return the next record, opened; None if none comes."""
        return next(iter(self.records()), None)

    def quiet(self) -> list[Received]:
        """Return a record that arrives in a short while, in a list; [] where nothing was sent."""
        return self.records(1, within=QUIET_S)

    def data(self, size: int) -> bytes:
        """Return application data, record after record, up to `size` bytes or until no more comes."""
        whole = b""
        while len(whole) < size and (record := self.record()):
            if record[0] != DATA:
                raise Broken(f"a record came that is not data: {show(record)}")
            whole += record[1]
        return whole


class Pair:
    """`sock` is the kernel's end, `peer` is ours; `seen` lists what the kernel did."""

    def __init__(self, suite: Suite, installed: tuple[Direction, ...] | None, family: int = socket.AF_INET) -> None:
        self.suite = suite
        self.seen: list[str] = []
        self._owned = contextlib.ExitStack()
        self.sock, other = self._owned.enter_context(connected(family))
        self.peer = Peer(other, suite)
        if installed is not None:
            ktls.attach(self.sock)
            for direction in installed:
                self.needs(f"TLS_{direction.name}", self.install(direction), "ENOENT", "EINVAL")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._owned.close()

    def another(self, installed: tuple[Direction, ...] | None = None) -> Pair:
        """Return one more pair with the same suite and keys, closed with this one."""
        return self._owned.enter_context(Pair(self.suite, installed))

    def keep(self, thing: AbstractContextManager[T]) -> T:
        """Enter a context that is left with this one."""
        return self._owned.enter_context(thing)

    def file(self, data: bytes) -> int:
        """Return the descriptor of a file with this content, at its start; closed with this pair."""
        descriptor = os.memfd_create("promise")
        self._owned.callback(os.close, descriptor)
        os.pwrite(descriptor, data, 0)
        return descriptor

    def pipe(self, size: int | None = None, flags: int = 0) -> tuple[int, int]:
        """Return a pipe's reading and writing end, closed with this pair."""
        ends = os.pipe2(flags)
        for end in ends:
            self._owned.callback(os.close, end)
        if size is not None:
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, size)
        return ends

    # What was seen.

    def expect(self, what: str, got: object, wanted: object) -> None:
        """Record what was seen; raise Broken if it is not what was promised."""
        if got != wanted:
            raise Broken(f"{what}: {show(got)}{difference(got, wanted)}; promised: {show(wanted)}")
        self.seen.append(f"{what}: {show(got)}")

    def fails(self, what: str, got: object) -> None:
        """Like `expect`, where any errno keeps the promise."""
        if not isinstance(got, str):
            raise Broken(f"{what}: {show(got)}; promised: an error")
        self.seen.append(f"{what}: {got}")

    def one_of(self, what: str, got: object, wanted: Sequence[object]) -> None:
        """Like `expect`, where more than one answer keeps the promise."""
        self.expect(what, got, next((option for option in wanted if option == got), wanted[0]))

    def needs(self, what: str, got: object, *refusals: str) -> None:
        """Raise Absent if the answer is one by which a kernel refuses an unknown feature."""
        if got in refusals:
            raise Absent(f"{what}: {got}")

    # The kernel's end.

    def install(
        self,
        direction: Direction,
        *,
        generation: int = 0,
        sequence: int = 0,
        sock: socket.socket | None = None,
        suite: Suite | None = None,
    ) -> Any:
        """Give the kernel keys; return "done" or the errno's name."""
        packed = Keys(suite or self.suite, direction, generation).crypto_info(sequence).pack()
        return attempt(ktls.set_keys, sock or self.sock, direction, packed) or "done"

    def recv(self, size: int, flags: int = 0) -> Any:
        """recv(2): bytes, or the errno's name; EAGAIN if nothing came in time."""
        return attempt(self.sock.recv, size, flags)

    def recv_now(self, size: int, flags: int = 0) -> Any:
        """recv(2) that does not wait."""
        return attempt(self.sock.recv, size, flags | socket.MSG_DONTWAIT)

    def recv_typed(self, size: int, flags: int = 0) -> Any:
        """recvmsg(2) with room for a record's type: (type, bytes), or the errno's name."""
        answer = attempt(self.sock.recvmsg, size, ktls.RECORD_TYPE_SPACE, flags)
        if isinstance(answer, str):
            return answer
        data, control, _, _ = answer
        types = [
            value[0] for level, kind, value in control if (level, kind) == (ktls.SOL_TLS, ktls.TLS_GET_RECORD_TYPE)
        ]
        return (record_type(types[0]) if types else "no type", data)

    def send(self, data: bytes, flags: int = 0) -> Any:
        """send(2): how many bytes the kernel took, or the errno's name."""
        return attempt(self.sock.send, data, flags | socket.MSG_NOSIGNAL)

    def send_typed(self, data: bytes, kind: int, flags: int = 0) -> Any:
        """sendmsg(2) with a record type."""
        control = [(ktls.SOL_TLS, ktls.TLS_SET_RECORD_TYPE, bytes((kind,)))]
        return attempt(self.sock.sendmsg, [data], control, flags | socket.MSG_NOSIGNAL)

    def readable(self, within: float = ENOUGH_S) -> bool:
        """Whether poll(2) says POLLIN in time."""
        return readable(self.sock, within)

    def settled(self) -> None:
        """Wait until the kernel's end has what the peer sent: loopback does not deliver at once."""
        deadline = time.monotonic() + ENOUGH_S
        while unsent(self.peer.sock) and time.monotonic() < deadline:
            time.sleep(0.002)


@contextlib.contextmanager
def connected(family: int = socket.AF_INET) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield two ends of a TCP connection over loopback, on which no call blocks longer than ENOUGH_S."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as listener, socket.socket(family) as one:
        one.connect(listener.getsockname())
        other, _ = listener.accept()
        with other:
            for end in (one, other):
                bound(end, ENOUGH_S)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each record at once
            yield one, other


def bound(sock: socket.socket, seconds: float) -> None:
    """Set a timeout for every blocking call on a socket, which then fails with EAGAIN."""
    packed = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, packed)


def readable(sock: socket.socket, within: float = ENOUGH_S) -> bool:
    """Whether poll(2) says POLLIN, or the end of the stream, in time."""
    return readable_fd(sock.fileno(), within)


def readable_fd(descriptor: int, within: float = ENOUGH_S) -> bool:
    """Like `readable`, for any descriptor."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, within) * 1000))


def unsent(sock: socket.socket) -> int:
    """Return how many sent bytes the other end has not acknowledged (tcp(7), SIOCOUTQ)."""
    (count,) = struct.unpack("@i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)


def record_type(number: int) -> ContentType | int:
    """Return the ContentType of a number, or the number where there is none."""
    return ContentType(number) if number in set(ContentType) else number


@functools.cache
def pattern(size: int, start: int = 0) -> bytes:
    """Return bytes that show their position."""
    once = bytes((start + at) % 251 for at in range(251))
    return (once * (size // 251 + 1))[:size]
