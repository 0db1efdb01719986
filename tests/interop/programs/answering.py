"""What every server here answers: GET /SIZE by the file of that name, all else by its body's length and hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path


def read_request(recv: Callable[[int], bytes]) -> tuple[str, str, bytes] | None:
    """Return method, name in the path, and body; None at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = recv(1 << 16)
        if not piece:
            return None
        data += bytes(piece)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("expect"):
        raise ValueError("100-continue is not expected here")
    pieces, have = [body], len(body)
    while have < int(headers.get("content-length", 0)):
        piece = bytes(recv(1 << 18))
        if not piece:
            return None
        pieces.append(piece)
        have += len(piece)
    return method, target.rpartition("/")[2], b"".join(pieces)


def answer_to(method: str, name: str, body: bytes, www: Path) -> bytes:
    """Return the body of the answer."""
    if method == "GET":
        return (www / name).read_bytes()
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()


def head_of(answer: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n".encode()
