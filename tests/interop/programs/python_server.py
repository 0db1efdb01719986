"""A server on Python's ssl: python_server.py PORT FOLDER FEATURE."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from pathlib import Path

from tests.interop.programs.answering import answer_to, head_of, read_request

SMALL_BYTES = 1024


def context_for(folder: Path, feature: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    if feature.endswith(" tickets"):
        context.num_tickets = int(feature.removesuffix(" tickets"))
    if feature == "HelloRetryRequest":
        context.set_ecdh_curve("secp384r1")
    if "client certificate" in feature:
        context.load_verify_locations(folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def serve(context: ssl.SSLContext, sock: socket.socket, folder: Path, feature: str) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock, contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as tls:
        asked = read_request(tls.recv)
        if not asked:
            return
        answer = answer_to(*asked, folder / "www")
        whole = memoryview(head_of(answer) + answer)
        size = SMALL_BYTES if feature == "small records" else len(whole)
        for at in range(0, len(whole), size):
            tls.sendall(whole[at : at + size])
        if feature != "no close_notify":
            tls.unwrap().close()


def main() -> None:
    port, folder, feature = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    context = context_for(folder, feature)
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            sock = listener.accept()[0]
            threading.Thread(target=serve, args=(context, sock, folder, feature), daemon=True).start()


if __name__ == "__main__":
    main()
