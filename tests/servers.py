"""HTTPS servers in the hands of a test, which may behave as badly as it wants."""

from __future__ import annotations

import contextlib
import socket
import threading

from conftest import accept_tls, server_context
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset
from hyperframe.frame import HeadersFrame
from OpenSSL import SSL


class Asked:
    """A request as a server got it."""

    def __init__(self, head, body):
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        self.body = body


def read_request(tls, *, body=True):
    """Return the next request, None at the end of the connection. 100 Continue is sent where it is expected."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            data += tls.recv(1 << 16)
    except SSL.Error:
        return None
    head, _, rest = data.partition(b"\r\n\r\n")
    asked = Asked(head, rest)
    if not body:
        return asked
    if asked.headers.get("expect") == "100-continue":
        tls.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "content-length" in asked.headers:
        while len(asked.body) < int(asked.headers["content-length"]):
            asked.body += tls.recv(1 << 16)
    elif asked.headers.get("transfer-encoding") == "chunked":
        while not asked.body.endswith(b"0\r\n\r\n"):
            asked.body += tls.recv(1 << 16)
    return asked


def answer(body=b"", status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Http2Peer:
    """A server's end of an HTTP/2 connection, by the h2 package; `send` sends what h2 would not."""

    def __init__(self, tls, sock):
        self.tls, self.sock, self.ended = tls, sock, set()
        self.http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.http.initiate_connection()
        self.flush()
        self._requests, self._bodies = [], {}

    def flush(self):
        self.tls.sendall(self.http.data_to_send())

    def send(self, *frames):
        self.tls.sendall(b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames))

    def headers(self, stream, *pairs, flags=("END_HEADERS",)):
        """Return a HEADERS frame that holds these pairs, by the encoder of the connection."""
        return HeadersFrame(stream, self.http.encoder.encode(pairs), flags=flags)

    def read(self):
        """Act on what comes; False at the end of the connection."""
        try:
            data = self.tls.recv(1 << 16)
        except SSL.Error:
            return False
        for event in self.http.receive_data(data):
            stream = getattr(event, "stream_id", None)
            if isinstance(event, RequestReceived):
                self._requests.append((stream, dict(event.headers)))
                self._bodies[stream] = b""
            elif isinstance(event, DataReceived):
                self._bodies[stream] += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, StreamEnded | StreamReset | ConnectionTerminated):
                self.ended.add(stream)
        self.flush()
        return True

    def request(self, *, body=True):
        """Return the next request as (stream, headers, body), None at the end of the connection."""
        while not self._requests or (body and self._requests[0][0] not in self.ended):
            if not self.read():
                return None
        stream, headers = self._requests.pop(0)
        return stream, headers, self._bodies[stream]

    def answer(self, stream, body=b"", status="200", *headers):
        """Send a whole answer, as the client's windows allow."""
        self.http.send_headers(stream, [(":status", status), ("content-length", str(len(body))), *headers])
        view = memoryview(body)
        while view:
            while not (room := min(self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size)):
                self.flush()
                if not self.read():
                    return
            self.http.send_data(stream, view[:room])
            view = view[room:]
        self.http.end_stream(stream)
        self.flush()


class Server:
    """Answers each request on each connection by `script(asked) -> bytes`. `asked` is what came, `connections` a count.

    `script` may also be a function of (tls, sock) that is called for each connection, given as `raw`, or one of an
    `Http2Peer`, given as `http2`, for clients that want HTTP/2 first.
    """

    def __init__(self, pem, script=None, *, raw=None, http2=None, suite=None, host="127.0.0.1"):
        self.asked, self.connections = [], 0
        self._context = server_context(pem, suite)
        if http2:
            self._context.set_alpn_select_callback(lambda _, offered: offered[0])
        self._script, self._raw, self._http2 = script, raw, http2
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port = self._listener.getsockname()[1]
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock, contextlib.suppress(SSL.Error, OSError):
            tls = accept_tls(self._context, sock)
            if self._http2 and tls.get_alpn_proto_negotiated() == b"h2":
                self._http2(Http2Peer(tls, sock))
                return
            if self._raw:
                self._raw(tls, sock)
                return
            while asked := read_request(tls):
                self.asked.append(asked)
                said = self._script(asked)
                tls.sendall(said)
                if b"connection: close" in said.lower():
                    tls.shutdown()
                    return

    def url(self, path="/"):
        return f"https://localhost:{self.port}{path}"

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
