"""The other end of every measured connection, a separate process: the same for all arms except `plain`.

It speaks TLS with the standard library's ssl (OpenSSL, userspace, blocking calls) on one port and plain TCP on another.
It forks for each connection, because each needs its own CPU clock. On a connection the client sends requests:

    request    workload, payload bytes, operations per batch, steps before the timed part, steps    -> one byte: ready
    the steps before, then the timed part (`measure.steps` has the client's half)
        echo       each payload comes back as soon as it has arrived
        upload     the peer answers each batch with one byte, when all of it has arrived
        download   the client asks for each batch with one byte
    the client asks for the report with one more byte, so that it does not affect the counters read before:
    report     CPU time of the timed part (total, user, system), CRC-32 of the payload received (0: they differ)

The peer keeps what it receives until the timed part is over; checksums are taken after it. Its records hold up to
16 KiB even where the client's are limited: the standard library's ssl cannot limit them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import ssl
import struct
import sys

from ktlslab.linux.process import end_with_parent
from ktlslab.measure.payloads import Room, checksum, payload, room_for
from ktlslab.runs.clocks import Cpu

REQUEST = struct.Struct("!IIIII")  # workload, payload bytes, operations per batch, steps before, steps
REPORT = struct.Struct("!QQQI")  # CPU total, user, system; CRC-32
ECHO, UPLOAD, DOWNLOAD = range(3)
MARK = b"."
# A batch of echoes up to this size fits into the sockets' buffers, so the client can send all of it before it reads.
# The peer reads a larger batch whole before it answers: otherwise each end could wait for the other to read.
OVERLAPPING_BYTES = 96 * 1024


def set_up(sock: socket.socket) -> None:
    """Set the options of a connected socket: the same at both ends and in every arm."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def offered() -> frozenset[str]:
    """Return the suites that a peer under this Python accepts, by OpenSSL's names."""
    return frozenset(cipher["name"] for cipher in _context().get_ciphers())


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:COMPLEMENTOFALL")
    return context


def serve(chain: str, key: str, address: str) -> None:
    """Listen on two free ports of that address, name them on standard output, and serve until killed."""
    context = _context()
    context.load_cert_chain(chain, key)
    plain, secure = (socket.create_server((address, 0), backlog=512) for _ in range(2))
    print(plain.getsockname()[1], secure.getsockname()[1], flush=True)  # noqa: T201 - how the parent learns of them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        for listener in select.select((plain, secure), [], [])[0]:
            connection, _ = listener.accept()
            if os.fork():
                connection.close()
                continue
            plain.close()
            secure.close()
            set_up(connection)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                if listener is secure:
                    connection = context.wrap_socket(connection, server_side=True)
                _converse(connection)
            os._exit(0)


def _converse(connection: socket.socket) -> None:
    head, asked, rooms = bytearray(REQUEST.size), room_for(1), Room()
    while _fill(connection, memoryview(head)):
        workload, size, batch, lead, steps = REQUEST.unpack(head)
        total, before = size * batch * (lead + steps), size * batch * lead
        room = rooms.take(total if workload != DOWNLOAD else 1)
        one = payload(size) if workload == DOWNLOAD else room
        connection.sendall(MARK)
        if workload == DOWNLOAD:
            _download(connection, one, batch, lead, room)
            start = Cpu.read()
            _download(connection, one, batch, steps, room)
        else:
            whole = size * batch
            step = size if workload == ECHO and whole <= OVERLAPPING_BYTES else whole
            mark = MARK if workload == UPLOAD else None
            _answer(connection, room[:before], step, mark)
            start = Cpu.read()
            _answer(connection, room[before:], step, mark)
        spent = Cpu.since(start)
        _fill(connection, asked)
        connection.sendall(
            REPORT.pack(spent.total, spent.user, spent.system, checksum(room, size) if workload != DOWNLOAD else 0)
        )


def _answer(connection: socket.socket, room: memoryview, step: int, mark: bytes | None) -> None:
    """Fill `room` step by step; answer each step with `mark`, or else with the step itself."""
    for at in range(0, len(room), step):
        part = room[at : at + step]
        _fill(connection, part)
        connection.sendall(mark or part)


def _download(connection: socket.socket, one: memoryview, batch: int, steps: int, mark: memoryview) -> None:
    for _ in range(steps):
        _fill(connection, mark)
        for _ in range(batch):
            connection.sendall(one)


def _fill(connection: socket.socket, room: memoryview) -> bool:
    """Fill `room`; False at the end of the stream."""
    have = 0
    while have < len(room):
        got = connection.recv_into(room[have:])
        if not got:
            return False
        have += got
    return True


if __name__ == "__main__":
    end_with_parent(int(sys.argv[4]))
    serve(*sys.argv[1:4])
