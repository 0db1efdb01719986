"""Every fault of a peer, with every receive call on every record layer and I/O engine, over and over.

    python -X dev tests/error_matrix.py TIMES LAYER...

This is a separate process because the bugs it looks for end the process: C uses memory that Python has freed, or the
garbage collector releases a buffer that C uses. So run it under a debug allocator (PYTHONMALLOC=debug,
MALLOC_PERTURB_); it collects garbage again and again. Each error is kept in a cycle with all frames of its traceback,
as a stream keeps its own. Half of the buffers are memoryviews, because bytearrays cannot be part of a cycle.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import itertools
import os
import socket
import struct
import sys
import tempfile
import threading
from pathlib import Path

from OpenSSL import SSL

from ktlslab._closing import Closing
from ktlslab.certificates import make_certificates
from ktlslab.errors import AlertError, KtlsLabError, PeerTimeoutError, StreamError, TruncatedError
from ktlslab.linux.ring import Operation, Ring
from ktlslab.stages import ClientConfig, Direction, Stream, connect, export, handshake, install
from ktlslab.stages.transfer import ending
from ktlslab.tls.protect import seal
from ktlslab.tls.records import ContentType

TICKETS = 2  # records that OpenSSL's server sends by itself, before ours
FIRST = b"x" * 100
SHORT_S = 0.002
PATIENCE_S = 60.0
KERNEL = {"kernel": tuple(Direction), "kernel-tx": (Direction.TX,), "kernel-rx": (Direction.RX,)}
FAULTS = {
    "truncation": (TruncatedError,),
    "reset": (StreamError,),  # a truncation is one of them: which of the two is seen first depends on timing
    "bad record": (StreamError,),
    "alert": (AlertError,),
    "time-out": (PeerTimeoutError,),
}


# What is called until it fails.


def recv(stream, _room):
    while stream.recv(64):
        pass


def recv_into(stream, room):
    while stream.recv_into(room):
        pass


def recv_exactly_into(stream, room):
    stream.recv_exactly_into(room)


def pieces(stream, _room):
    for _ in stream.pieces():
        pass


def splice_into(stream, _room):
    ours, theirs = os.pipe()
    try:
        while count := stream.splice_into(theirs, 64):
            os.read(ours, count)
    finally:
        os.close(ours)
        os.close(theirs)


def send(stream, _room):
    """Fill a socket that the peer does not read, or has closed."""
    while True:
        stream.send(memoryview(bytearray(1 << 16)))


CALLS = (recv, recv_into, recv_exactly_into, pieces, splice_into, send)


class Server(Closing):
    """Accepts one connection after the other; after the handshake it makes records with the client's keys."""

    def __init__(self, folder):
        self.files = make_certificates(folder)
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.use_certificate_chain_file(str(self.files.chain))
        self.context.use_privatekey_file(str(self.files.key))
        self.listener = socket.create_server(("127.0.0.1", 0))

    def close(self):
        self.listener.close()

    def accept(self, *, tls):
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            library = SSL.Connection(self.context, sock)
            library.set_accept_state()
            library.do_handshake()
        return sock

    def open(self, layer, engine, timeout):
        """Return (stream, the other end's socket, how to make a record that the stream opens)."""
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(self.accept(tls=layer != "plain")))
        thread.start()
        connection = connect(*self.listener.getsockname(), io_engine=engine, timeout=PATIENCE_S)
        finished, record, kernel = None, lambda _kind, data: data, KERNEL.get(layer, ())
        if layer != "plain":
            finished = handshake(connection, ClientConfig(ca=self.files.ca, server_name="localhost"))
            keys = export(finished)
            sequence = itertools.count(keys.rx.sequence + TICKETS)
            suite, key, write_iv = keys.suite, keys.rx.key.reveal(), keys.rx.write_iv.reveal()

            def record(kind, data):
                return seal(suite, key, write_iv, next(sequence), kind, data)

            assert not kernel or install(connection, keys, kernel)
        thread.join()
        connection.engine.timeout = timeout
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.socket.setsockopt(
                socket.SOL_SOCKET, option, struct.pack("@ll", int(timeout), int(timeout % 1 * 1e6))
            )
        return Stream(connection, finished, kernel), accepted[0], record


def harm(fault, sock, record):
    """Send something, then cause the fault."""
    sock.sendall(record(ContentType.APPLICATION_DATA, FIRST))
    if fault == "bad record":
        sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    elif fault == "alert":
        sock.sendall(record(ContentType.ALERT, bytes([2, 20])))
    elif fault == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if fault in {"truncation", "reset"}:
        sock.close()


def possible(fault, layer, call):
    """Whether the call can meet the fault."""
    if layer == "plain" and (
        fault in {"bad record", "alert"} or (fault == "truncation" and call is not recv_exactly_into)
    ):
        return False
    if call is send:
        return fault in {"reset", "time-out"}
    return call is not pieces or layer in {"kernel", "kernel-rx"}


def meet(server, fault, layer, engine, call, room):  # noqa: PLR0917 - the matrix has so many dimensions
    """Meet one fault once; the error stays in a cycle with its frames."""
    stream, sock, record = server.open(layer, engine, SHORT_S if fault == "time-out" else PATIENCE_S)
    with sock, contextlib.suppress(StreamError, PeerTimeoutError), stream:
        harm(fault, sock, record)
        try:
            call(stream, room)
        except KtlsLabError as error:
            error.itself = error
            seen = error
        else:
            seen = None
        assert isinstance(seen, FAULTS[fault]), f"{call.__name__} on {layer}+{engine} met the {fault} with {seen!r}"


def pins():
    """Leave a ring in a cycle with views that it uses: the ring must release them before they are freed."""
    ours, theirs = socket.socketpair()
    view, fixed = (memoryview(bytearray(1000))[10:] for _ in range(2))
    operation = Operation.recv(ours.fileno(), view)  # before the list, so that the collector reaches the views first
    ring = Ring(4)
    ring.register_buffers([fixed])
    ring.start(operation)
    cycle = [view, fixed, operation, ring]
    cycle.append(cycle)
    del view, fixed, operation, ring, cycle
    gc.collect()
    theirs.sendall(b"too late: the ring was closed")
    ours.close()
    theirs.close()


def main(times, layers):
    faulthandler.enable()
    if layers == ["pins"]:
        for _ in range(times):
            pins()
        sys.stdout.write(f"{times} rings forgotten\n")
        return
    ending.LINGER_S = 0.001  # nothing answers a close here
    count = 0
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        for fault, layer, engine, call in itertools.product(FAULTS, layers, ("syscall", "uring"), CALLS):
            if not possible(fault, layer, call):
                continue
            for number in range(times):
                room = memoryview(bytearray(1000))[10:] if number % 2 else bytearray(1000)
                meet(server, fault, layer, engine, call, room)
                if isinstance(room, bytearray):
                    room.append(0)  # BufferError: the error's traceback still uses it
                count += 1
                if number % 8 == 7 or number == times - 1:
                    gc.collect()
    sys.stdout.write(f"{count} faults met\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
