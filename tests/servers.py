"""HTTPS servers in the hands of a test, which may behave as badly as it wants."""

from __future__ import annotations

import contextlib
import socket
import threading

from conftest import accept_tls, server_context
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


class Server:
    """Answers each request on each connection by `script(asked) -> bytes`. `asked` is what came, `connections` a count.

    `script` may also be a function of (tls, sock) that is called for each connection, given as `raw`.
    """

    def __init__(self, pem, script=None, raw=None, suite=None, host="127.0.0.1"):
        self.asked, self.connections = [], 0
        self._context = server_context(pem, suite)
        self._script, self._raw = script, raw
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
