"""The plain HTTP server behind those that only do TLS: plain_server.py PORT WWW."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

from tests.interop.programs.answering import answer_to, head_of, read_request


def serve(sock: socket.socket, www: Path) -> None:
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if asked := read_request(sock.recv):
            answer = answer_to(*asked, www)
            sock.sendall(head_of(answer) + answer)


def main() -> None:
    port, www = int(sys.argv[1]), Path(sys.argv[2])
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0], www), daemon=True).start()


if __name__ == "__main__":
    main()
