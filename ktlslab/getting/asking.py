"""From the command line to requests."""

from __future__ import annotations

import argparse
import base64
import contextlib
import sys
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from ktlslab.errors import UnreadableError, UsageError
from ktlslab.http.bodies import Body, body_of
from ktlslab.http.client import Client
from ktlslab.http.messages import Headers
from ktlslab.http.urls import Url
from ktlslab.stages.config import ClientConfig
from ktlslab.tls.suites import Suite, Version

_FORM = "application/x-www-form-urlencoded"
_VERSIONS = {"1.2": (Version.TLS12,), "1.3": (Version.TLS13,)}


def client(options: argparse.Namespace) -> Client:
    """Return the client that the options describe. UsageError for what cannot be."""
    config = ClientConfig(
        ca=options.ca,
        verify=not options.accept_any_certificate,
        certificate=options.cert,
        key=options.key,
        versions=_VERSIONS[options.tls] if options.tls else tuple(Version),
        suites=(Suite.of(options.suite),) if options.suite else None,
        library=options.library,
    )
    return Client(
        config=config,
        record_layer=options.record_layer,
        io_engine=options.io_engine,
        timeout=options.max_time,
        connect_timeout=options.connect_timeout,
        stall_timeout=options.speed_time,
        stall_bytes=options.speed_limit,
        resolve=dict(options.resolve),
        http=options.http,
        sessions=options.ssl_sessions,
        no_proxy=options.noproxy,
    )


def method(options: argparse.Namespace) -> str:
    if options.request:
        return str(options.request)
    if options.head:
        return "HEAD"
    if options.upload_file:
        return "PUT"
    return "POST" if options.data and not options.get else "GET"


def url(options: argparse.Namespace, text: str) -> Url:
    """Return what a URL asks for: with -G also what -d says, with -T the file's name behind a slash."""
    found = Url.of(text)
    if options.get and options.data:
        query = quote(b"&".join(_bytes(kind, value) for kind, value in options.data), safe="=&%+/:;@,!$'()*~")
        return Url.of(f"{found}{'&' if '?' in found.target else '?'}{query}")
    if options.upload_file and options.upload_file != "-" and found.target.endswith("/"):
        return Url.of(f"{found}{quote(Path(options.upload_file).name)}")
    return found


def headers(options: argparse.Namespace) -> Headers:
    """Return the headers that the options name; those of -H come last, and win. "" leaves one out, as for curl."""
    if options.cookie and "=" not in options.cookie:
        answered = "without a = it is the name of a file of cookies, as for curl"
        raise UsageError(f"reading the cookie {options.cookie!r}", answered=answered, remedy="Write NAME=VALUE.")
    lines = [_header(line) for line in options.header]
    user = options.user
    named = [
        ("User-Agent", options.user_agent),
        ("Referer", options.referer),
        ("Cookie", options.cookie),
        ("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}" if user else None),
        ("Range", f"bytes={options.range}" if options.range else None),
        ("Accept-Encoding", "gzip, deflate" if options.compressed else None),
        ("Content-Type", _FORM if options.data and not options.get else None),
    ]
    given = {name.lower() for name, _ in lines}
    return (*((name, value) for name, value in named if value is not None and name.lower() not in given), *lines)


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"reading the header {line!r}", answered="it has no name", remedy="Write 'Name: value'.")
    return name.strip(), value.strip()


def body(options: argparse.Namespace, files: contextlib.ExitStack) -> Body | None:
    """Return the body that -d or -T describe; the files that it needs stay open until `files` is left."""
    if options.upload_file:
        return body_of("uploading", _opened(options.upload_file, files))
    if not options.data or options.get:
        return None
    if len(options.data) == 1 and options.data[0][0] == "binary" and options.data[0][1].startswith("@"):
        return body_of("uploading", _opened(options.data[0][1][1:], files))
    return body_of("sending data", b"&".join(_bytes(kind, value) for kind, value in options.data))


def _bytes(kind: str, value: str) -> bytes:
    if kind == "raw" or not value.startswith("@"):
        return value.encode(errors="surrogateescape")
    with contextlib.ExitStack() as files:
        data = _opened(value[1:], files).read()
    return data if kind == "binary" else data.replace(b"\r", b"").replace(b"\n", b"")


def _opened(name: str, files: contextlib.ExitStack) -> BinaryIO:
    if name == "-":
        return sys.stdin.buffer
    try:
        return files.enter_context(Path(name).open("rb"))
    except (OSError, ValueError) as error:
        answered = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(f"opening {name}", answered=answered, remedy="Give a file to be sent.") from error
