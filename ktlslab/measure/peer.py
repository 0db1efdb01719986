"""The other end of every measured connection, a process of its own: the same for all arms but for the plain one.

It speaks TLS by the standard library's ssl (OpenSSL, userspace, blocking calls) on one port and plain TCP on another,
and forks for each connection, so that each has a CPU clock of its own. On a connection the client sends requests:

    request    direction, payload bytes, operations a burst, bursts    -> one byte: ready
    the timed part (`measure.arms` has the client's half)
        echo       each payload comes back
        upload     each burst is answered by one byte, when all of it has arrived
        download   each burst is asked for by one byte
    report     CPU time of the timed part (total, user, system), CRC-32 of all payload received

What it receives it keeps until the timed part is over; checksums are taken outside it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import socket
import ssl
import struct
import sys
import zlib

from ktlslab.linux.process import end_with_parent
from ktlslab.measure.clocks import Cpu

REQUEST = struct.Struct("!IIII")  # direction (index), payload bytes, operations a burst, bursts
REPORT = struct.Struct("!QQQI")  # CPU total, user, system; CRC-32
ECHO, UPLOAD, DOWNLOAD = range(3)
MARK = b"."
_IN_MEMORY = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE


def room_for(size: int) -> memoryview:
    """Return a buffer that begins on a page, all of it in memory.

    How many pages a payload touches decides how the kernel cuts it up; a page's first touch is a fault, dearer than the
    bytes that it brings.
    """
    return memoryview(mmap.mmap(-1, max(size, 1), flags=_IN_MEMORY))[:size]


def payload(size: int) -> memoryview:
    """Return the payload of that size, the same at both ends and in every arm."""
    data = room_for(size)
    data[:] = random.Random(size).randbytes(size)  # noqa: S311 - filler, not a secret
    return data


def crc_of(data: memoryview, times: int) -> int:
    """CRC-32 of `data` repeated."""
    crc = 0
    for _ in range(times):
        crc = zlib.crc32(data, crc)
    return crc


def serve(chain: str, key: str) -> None:
    """Listen on two free loopback ports, name them on standard output, and serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.set_ciphers("ALL:COMPLEMENTOFALL")
    plain, secure = (socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(2))
    print(plain.getsockname()[1], secure.getsockname()[1], flush=True)  # noqa: T201 - how the parent learns of them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        for listener in _ready(plain, secure):
            connection, _ = listener.accept()
            if os.fork():
                connection.close()
                continue
            plain.close()
            secure.close()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                if listener is secure:
                    connection = context.wrap_socket(connection, server_side=True)
                _converse(connection)
            os._exit(0)


def _ready(*listeners: socket.socket) -> list[socket.socket]:
    import select  # noqa: PLC0415 - beside its only use

    return select.select(listeners, [], [])[0]


def _converse(connection: socket.socket) -> None:
    head = bytearray(REQUEST.size)
    while _fill(connection, memoryview(head)):
        direction, size, burst, bursts = REQUEST.unpack(head)
        one = payload(size)
        room = room_for(size * burst * bursts if direction != DOWNLOAD else 1)
        connection.sendall(MARK)
        start = Cpu.read()
        _timed(connection, direction, one, burst, bursts, room)
        spent = Cpu.read() - start
        connection.sendall(REPORT.pack(spent.total, spent.user, spent.system, zlib.crc32(room)))


def _timed(  # noqa: PLR0917 - the request, unpacked
    connection: socket.socket, direction: int, one: memoryview, burst: int, bursts: int, room: memoryview
) -> None:
    step = len(one) * burst
    for at in range(0, step * bursts, step):
        if direction == DOWNLOAD:
            _fill(connection, room)
            for _ in range(burst):
                connection.sendall(one)
        else:
            part = room[at : at + step]
            _fill(connection, part)
            connection.sendall(part if direction == ECHO else MARK)


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
    end_with_parent(int(sys.argv[3]))
    serve(*sys.argv[1:3])
