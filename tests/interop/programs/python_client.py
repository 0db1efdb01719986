"""A client on Python's ssl: python_client.py PORT FOLDER OUTPUT SIZES VERSION SUITE FEATURE."""

from __future__ import annotations

import http.client
import socket
import ssl
import sys
from pathlib import Path


def main() -> None:
    port, folder, output, sizes, version, suite, feature = sys.argv[1:]
    material = Path(folder)
    context = ssl.create_default_context(cafile=material / "ca.pem")
    context.minimum_version = context.maximum_version = (
        ssl.TLSVersion.TLSv1_3 if version == "1.3" else ssl.TLSVersion.TLSv1_2
    )
    if version == "1.2":
        context.set_ciphers(suite)
    if feature == "client certificate":
        context.load_cert_chain(material / "client.pem")
    session = None
    for size in map(int, sizes.split(",")):
        sock = socket.create_connection(("localhost", int(port)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = context.wrap_socket(sock, server_hostname="localhost", session=session)
        body = (material / "www" / str(size)).read_bytes() if feature == "upload" else b""
        first = f"POST /upload HTTP/1.1\r\nContent-Length: {size}" if feature == "upload" else f"GET /{size} HTTP/1.1"
        tls.sendall(f"{first}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode() + body)
        answer = http.client.HTTPResponse(tls)
        answer.begin()
        (Path(output) / str(size)).write_bytes(answer.read())
        if feature == "resumption":
            session = tls.session
        if feature == "no close_notify":
            tls.close()
        else:
            tls.unwrap().close()


if __name__ == "__main__":
    main()
