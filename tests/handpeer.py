"""The other end of a Stream in the test's hands: it seals and opens every record itself.

    with HandPeers() as peers:
        stream, peer = peers.open("kernel", "uring", "client")
        peer.send(b"data")
        assert stream.recv() == b"data"

Both ends do a real handshake by OpenSSL. Then the peer exports its keys and never uses OpenSSL again, so a test decides
about each record: its type, when it is sent, and whether all of it is. A record of the Stream opens only with the
sequence number that must come next, so one that opens shows that none was lost, repeated or reordered.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ktlslab._closing import Closing
from ktlslab.certificates import make_certificates
from ktlslab.linux.ktls import Direction
from ktlslab.stages import ClientConfig, ServerConfig, Stream, accept, connect, export, handshake, install
from ktlslab.stages.connection import Connection, make_engine
from ktlslab.stages.keys import traffic_secrets
from ktlslab.tls.alerts import AlertDescription, AlertLevel
from ktlslab.tls.keyschedule import next_traffic_secret, traffic_key
from ktlslab.tls.protect import open_record, seal
from ktlslab.tls.records import MAX_PLAINTEXT, ContentType, HandshakeType, RecordSplitter
from ktlslab.tls.suites import Version

PATIENCE_S = 60.0  # an emulated machine is slow; every wait still ends
RUSTLS = "-rustls"  # a layer whose handshake, and so whose userspace, is rustls'
LAYERS = {
    "plain": (),
    "userspace": (),
    "kernel": tuple(Direction),
    "kernel-tx": (Direction.TX,),
    "kernel-rx": (Direction.RX,),
    f"userspace{RUSTLS}": (),
}
_SEGMENT_BYTES = 1400
CLOSE_NOTIFY = bytes([AlertLevel.WARNING, AlertDescription.CLOSE_NOTIFY])


def key_update(*, request: bool = False) -> bytes:
    """Return the message (RFC 8446, 4.6.3)."""
    return bytes([HandshakeType.KEY_UPDATE, 0, 0, 1, request])


class Keys:
    """One direction's present keys at the peer, `sequence` for its next record, and how often the keys changed."""

    def __init__(self, exported, secret):
        self.suite, self.sequence, self.generation = exported.suite, exported.sequence, 0
        self.key, self.write_iv = exported.key.reveal(), exported.write_iv.reveal()
        self._secret = secret  # TLS 1.3's traffic secret

    def change(self):
        """Use the next keys of TLS 1.3 (RFC 8446, 7.2)."""
        self._secret = next_traffic_secret(self._secret, self.suite)
        self.key, self.write_iv = traffic_key(self._secret, self.suite)
        self.sequence, self.generation = 0, self.generation + 1

    def seal(self, kind, data, padding=0):
        record = seal(self.suite, self.key, self.write_iv, self.sequence, kind, data, padding=padding)
        self.sequence += 1
        return record

    def open(self, record):
        opened = open_record(self.suite, self.key, self.write_iv, self.sequence, record)
        self.sequence += 1
        return opened


class HandPeer(Closing):
    """The peer: `sock` is its blocking socket. Without `keys` (a TrafficKeys) everything is plain bytes.

    `sealing` and `opening` are its Keys. `explicit` are the nonces that TLS 1.2 shows on the wire: they never repeat.
    """

    def __init__(self, sock, keys=None, secrets=(b"", b"")):
        self.sock = sock
        self.suite = keys.suite if keys else None
        self.sealing = Keys(keys.tx, secrets[0]) if keys else None
        self.opening = Keys(keys.rx, secrets[1]) if keys else None
        self.tickets = []
        self.explicit = set()
        self._splitter = RecordSplitter()

    # Sending

    def seal(self, kind, data, *, padding=0):
        """Return the next record without sending it. It must be sent before the one that is sealed next."""
        return self.sealing.seal(kind, bytes(data), padding) if self.sealing else bytes(data)

    def send(self, data, kind=ContentType.APPLICATION_DATA):
        """Send data in as few records as it needs; b"" is an empty record."""
        parts = [data[at : at + MAX_PLAINTEXT] for at in range(0, len(data), MAX_PLAINTEXT)] or [b""]
        self.sock.sendall(b"".join(self.seal(kind, part) for part in parts))

    def update_keys(self, *, request=False):
        """Send a KeyUpdate, and seal with the next keys from now on."""
        self.send(key_update(request=request), ContentType.HANDSHAKE)
        self.sealing.change()

    def alert(self, description, level=AlertLevel.FATAL):
        self.send(bytes([level, description]), ContentType.ALERT)

    def close_notify(self):
        """Send close_notify; nothing where there is no TLS."""
        if self.sealing:
            self.send(CLOSE_NOTIFY, ContentType.ALERT)

    def fin(self):
        """End this direction of the TCP connection."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        """Reset the TCP connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # Receiving

    def record(self, timeout=PATIENCE_S):
        """Return the next record as it is on the wire (plain: what came); None at the end of the TCP stream.

        TimeoutError if it does not come in time, ConnectionResetError after a reset.
        """
        deadline = time.monotonic() + timeout
        while self.sealing is None or (record := self._splitter.next()) is None:
            data = self._arrived(deadline)
            if not data:
                assert not self._splitter.pending, f"the stream ended {self._splitter.pending} bytes into a record"
                return None
            if self.sealing is None:
                return data
            self._splitter.feed(data)
        return record.raw

    def _arrived(self, deadline):
        poll = select.poll()  # not the socket's own time-out, which would also change how another thread sends
        poll.register(self.sock, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("nothing came from the Stream")
        return self.sock.recv(1 << 18, socket.MSG_DONTWAIT)

    def receive(self, timeout=PATIENCE_S):
        """Return the next record opened: (type, data); plain: (APPLICATION_DATA, what came); None at the end of TCP.

        Tickets are put aside in `tickets`. After a KeyUpdate, which is returned, the next keys are used; answering a
        request is up to the test. Raises what `record` raises, and ValueError for a record that does not open.
        """
        while (record := self.record(timeout)) is not None:
            if self.opening is None:
                return ContentType.APPLICATION_DATA, record
            kind, data = self.open(record)
            if kind == ContentType.HANDSHAKE and data[:1] == bytes([HandshakeType.NEW_SESSION_TICKET]):
                self.tickets.append(data)
                continue
            return kind, data
        return None

    def open(self, record):
        """Open the record that comes next: (type, data). ValueError if it is not the one."""
        opened = self.opening.open(record)
        cipher = self.suite.cipher
        if self.suite.version is Version.TLS12 and cipher.explicit_nonce_bytes:
            nonce = record[5 : 5 + cipher.explicit_nonce_bytes]
            assert nonce not in self.explicit, f"two records have the nonce {nonce.hex()}"
            self.explicit.add(nonce)
        if opened[0] == ContentType.HANDSHAKE and opened[1][:1] == bytes([HandshakeType.KEY_UPDATE]):
            self.opening.change()
        return opened

    def receive_data(self, size, timeout=PATIENCE_S):
        """Return that many bytes of application data; fewer if something else comes first."""
        data = b""
        while len(data) < size and (came := self.receive(timeout)) and came[0] == ContentType.APPLICATION_DATA:
            data += came[1]
        return data

    def rest(self, timeout=PATIENCE_S):
        """Return the records up to the end of the TCP stream."""
        return list(iter(lambda: self.receive(timeout), None))

    def close(self):
        self.sock.close()


class HandPeers(Closing):
    """Opens Streams to peers in the test's hands, and closes all that is left. `files`: the server's certificates."""

    def __init__(self, folder=None):
        self._owned = contextlib.ExitStack()
        folder = folder or self._owned.enter_context(tempfile.TemporaryDirectory(prefix="ktlslab-peers-"))
        self.files = make_certificates(Path(folder))
        self._pool = self._owned.enter_context(ThreadPoolExecutor(1, "hand-peer"))
        # One listener for connections with small buffers, one for all others.
        self._listeners = [self._owned.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        self._open = self._owned.enter_context(contextlib.ExitStack())

    def open(self, layer, engine, role, *, version=Version.TLS13, suite=None, timeout=PATIENCE_S, buffers=None):
        """Return (stream, peer) in this record layer, also kernel-tx-rustls and the like. `role` is the Stream's.

        Other arguments as for `shake`.
        """
        if layer == "plain":
            connection, other = self.connected(engine, role, buffers)
            finished, peer = None, HandPeer(other.socket)
        else:
            library = "rustls" if layer.endswith(RUSTLS) else "openssl"
            finished, peer = self.shake(engine, role, version=version, suite=suite, buffers=buffers, library=library)
            connection = finished.connection
        kernel = LAYERS[layer.removesuffix(RUSTLS)]
        if kernel:
            installed = install(connection, export(finished), kernel)
            assert installed, repr(installed)
        bound(connection, timeout)
        return Stream(connection, finished, kernel), peer

    def shake(self, engine, role, *, version=Version.TLS13, suite=None, buffers=None, library="openssl"):
        """Return (handshake, peer): the handshake is the Stream's, ready to be exported.

        `suite` (a Suite) chooses the version as well. `buffers` is a size for the sockets' buffers at both ends. The
        peer's handshake is OpenSSL's, the Stream's is the `library`'s.
        """
        offer = {"suites": (suite,)} if suite else {"versions": (version,)}
        configs = {
            "client": ClientConfig(ca=self.files.ca, server_name="localhost", **offer),
            "server": ServerConfig(certificate=self.files.chain, key=self.files.key, **offer),
        }
        connection, other = self.connected(engine, role, buffers)
        theirs = self._pool.submit(handshake, other, configs["server" if role == "client" else "client"])
        finished = handshake(connection, replace(configs[role], library=library))
        shaken = theirs.result(PATIENCE_S)
        secrets = traffic_secrets(shaken) if shaken.version is Version.TLS13 else (b"", b"")
        return finished, HandPeer(other.socket, export(shaken), secrets)

    def connected(self, engine, role, buffers=None):
        """Return (the Stream's Connection, the peer's Connection)."""
        options = (
            {"client": engine, "server": "syscall"} if role == "client" else {"client": "syscall", "server": engine}
        )
        listener = self._listeners[bool(buffers)]
        if buffers:
            # With small buffers and the large segments of loopback, TCP would wait for its timers.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
            narrow(listener, buffers)
        accepting = self._pool.submit(accept, listener, io_engine=options["server"], timeout=PATIENCE_S)
        address, made = listener.getsockname(), {"io_engine": options["client"], "timeout": PATIENCE_S}
        client = narrow_connect(*address, **made, size=buffers) if buffers else connect(*address, **made)
        self._open.enter_context(client)
        server = self._open.enter_context(accepting.result(PATIENCE_S))
        return (client, server) if role == "client" else (server, client)

    def close_connections(self):
        """Close both ends of every connection opened so far."""
        self._open.close()

    def close(self):
        self._owned.close()


def narrow(sock, size):
    """Make a socket's buffers small, before it is connected.

    Later it would already have promised the peer more room than it has. TCP then drops what does not fit, and does not
    see acknowledgements that come after what it dropped: a send stalls until what came is received.
    """
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, size)


def narrow_connect(host, port, *, io_engine, timeout, size):
    """Connect as `connect` does, with small buffers."""
    sock = socket.socket()
    narrow(sock, size)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    engine = make_engine(io_engine, None, timeout)
    engine.connect(sock, (host, port))
    return Connection(
        host=host, port=port, peer=sock.getpeername(), local=sock.getsockname(), socket=sock, engine=engine
    )


def bound(connection, timeout):
    """Change the time-out of a connection that no Stream uses yet, as if `connect` had got it."""
    connection.engine.timeout = timeout
    packed = struct.pack("@ll", int(timeout), int(timeout % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.socket.setsockopt(socket.SOL_SOCKET, option, packed)
