"""The clients of the workload `serve`, all in one process: they open the connections, ask, and check what is answered.

They speak TLS with the standard library's ssl (OpenSSL, userspace, blocking calls), the same for all arms except
`plain`. The server's process gives orders over this one's standard input, and reads the answers from its output:

    open       how many connections, the server's port, whether with TLS              -> one byte: all are open
    round      bytes of a request and a response, requests at once, waves before the timed part, waves
                                                                                      -> one byte: ready
               the waves before; then the server sends one byte, and the timed waves follow
               the server asks for the report with one more byte                      -> a report, as `measure.peer`'s

A wave sends a request on each of so many connections, then receives all the responses. The connections take turns, in
an order that both ends know (`order`). What is received is kept until the timed part is over, and then checked.

Each response is acknowledged as soon as it has been received, in a segment of its own. TCP would do so by itself where
a client rests for 40 ms or more, so with many connections, and else let the next request carry the acknowledgement:
then a server of 10 connections would have a segment less per operation than one of 1,000, a sixth of its work, because
each of the 10 is asked more often and not because there are fewer.
"""

from __future__ import annotations

import random
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from ktlslab.linux.descriptors import allow
from ktlslab.linux.process import end_with_parent
from ktlslab.measure.payloads import Room, checksum, payload
from ktlslab.measure.peer import MARK, REPORT, set_up
from ktlslab.runs.clocks import Cpu

OPEN, ROUND = b"o", b"r"
OPENING = struct.Struct("!IIB")  # connections, port, TLS
WAVES = struct.Struct("!IIIII")  # request bytes, response bytes, requests at once, waves before, waves
SERVER_NAME = "localhost"  # in the server's certificate, whatever its address

# Sends all; receives into a buffer; sets an option of the socket.
Client = tuple[Callable[[Any], object], Callable[[Any], int], Callable[[int, int, int], None]]


def order(connections: int) -> list[int]:
    """Return the order in which connections take turns: no neighbours in memory or in the kernel's tables."""
    return random.Random(connections).sample(range(connections), connections)  # noqa: S311 - not a secret


def main(address: str, ca: str) -> None:
    """Obey until standard input ends."""
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    context = ssl.create_default_context(cafile=ca)
    clients: list[Client] = []
    turns: list[int] = []
    rooms, turn = Room(), 0
    while what := orders.read(1):
        if what == OPEN:
            count, port, secure = OPENING.unpack(orders.read(OPENING.size))
            allow(count)
            clients = [_connect((address, port), context if secure else None) for _ in range(count)]
            turns, turn = order(count), 0
            _say(answers, MARK)
            continue
        request_bytes, response_bytes, width, lead, steps = WAVES.unpack(orders.read(WAVES.size))
        among = [clients[turns[(turn + n) % len(turns)]] for n in range(width * (lead + steps))]
        turn += len(among)
        room = rooms.take(response_bytes * len(among))
        request = payload(request_bytes)
        before = width * lead
        _say(answers, MARK)
        _waves(among[:before], width, request, room[: before * response_bytes], response_bytes)
        orders.read(1)
        start = Cpu.read()
        _waves(among[before:], width, request, room[before * response_bytes :], response_bytes)
        spent = Cpu.since(start)
        orders.read(1)
        _say(answers, REPORT.pack(spent.total, spent.user, spent.system, checksum(room, response_bytes)))


def _connect(where: tuple[str, int], context: ssl.SSLContext | None) -> Client:
    connection = socket.create_connection(where)
    set_up(connection)
    if context:
        connection = context.wrap_socket(connection, server_hostname=SERVER_NAME)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    return connection.sendall, connection.recv_into, connection.setsockopt


def _waves(among: Sequence[Client], width: int, request: memoryview, room: memoryview, size: int) -> None:
    for at in range(0, len(among), width):
        wave = among[at : at + width]
        for send, _, _ in wave:
            send(request)
        for number, (_, receive_into, set_option) in enumerate(wave, at):
            have, end = number * size, (number + 1) * size
            while have < end:
                got = receive_into(room[have:end])
                if not got:
                    raise ConnectionError("the server closed a connection")
                have += got
            # tcp(7): what is not yet acknowledged is now, and the next response is not before it is received.
            set_option(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            set_option(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


def _say(answers: BinaryIO, what: bytes) -> None:
    answers.write(what)
    answers.flush()


if __name__ == "__main__":
    end_with_parent(int(sys.argv[3]))
    main(sys.argv[1], sys.argv[2])
