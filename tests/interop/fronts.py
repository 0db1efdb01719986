"""What stands in front of a plain server: HAProxy and stunnel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.interop import stacks
from tests.interop.stacks import RETRY_GROUP, Server, Setup, Started, process
from tests.interop.webservers import COMMON


@contextlib.contextmanager
def haproxy(setup: Setup) -> Iterator[Started]:
    material = setup.material
    more = [
        *setup.when(stacks.TICKETS[0], "no-tls-tickets"),
        *setup.when(stacks.EARLY, "allow-0rtt"),
        *setup.when(stacks.RETRY, "curves P-384"),
    ]
    if setup.wants_certificate:
        more += ["verify required", f"ca-file {material.ca}"]
    text = f"""
global
  log stderr local0
defaults
  mode http
  timeout connect 10s
  timeout client 30s
  timeout server 30s
frontend tls
  bind 127.0.0.1:{setup.port} ssl crt {material.file("server.pem")} ssl-min-ver TLSv1.2 {" ".join(more)}
  default_backend plain
backend plain
  server one 127.0.0.1:{setup.backend}
"""
    with process(setup, "haproxy", "-db", "-f", setup.write("haproxy.cfg", text)) as started:
        yield started


@contextlib.contextmanager
def stunnel(setup: Setup) -> Iterator[Started]:
    material = setup.material
    more = [*setup.when(stacks.RETRY, f"curves = {RETRY_GROUP}"), *setup.when(stacks.TICKETS[0], "options = NO_TICKET")]
    if setup.wants_certificate:
        more += ["verifyChain = yes", f"CAfile = {material.ca}"]
    text = f"""
foreground = yes
pid =
debug = 4
sslVersionMin = TLSv1.2
[front]
accept = 127.0.0.1:{setup.port}
connect = 127.0.0.1:{setup.backend}
cert = {material.file("server.crt")}
key = {material.file("server.key")}
"""
    with process(setup, "stunnel", setup.write("stunnel.conf", text + "\n".join(more) + "\n")) as started:
        yield started


STACKS = (
    Server(
        name="HAProxy",
        library="OpenSSL",
        package="haproxy",
        needs=("haproxy",),
        version=("haproxy", "-v"),
        features=frozenset({*COMMON, stacks.EARLY}),
        start=haproxy,
    ),
    Server(
        name="stunnel",
        library="OpenSSL",
        package="stunnel4",
        needs=("stunnel",),
        version=("stunnel", "-version"),
        features=frozenset(COMMON),
        start=stunnel,
    ),
)
