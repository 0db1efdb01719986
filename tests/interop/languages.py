"""Servers of programming languages: Java, Node.js, Python's ssl, tlslite-ng, and granian, which has rustls."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.interop import stacks
from tests.interop.material import MODEST, PASSWORD
from tests.interop.stacks import CCM, USUAL, Server, Setup, Started, process
from tests.interop.webservers import COMMON

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).parents[2]
JAVA = ("java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:+UseSerialGC", "-Xmx256m")


@contextlib.contextmanager
def _run(argv: tuple[object, ...], more: tuple[object, ...], setup: Setup) -> Iterator[Started]:
    with process(setup, *argv, setup.port, setup.material.folder, *more, setup.feature, cwd=ROOT) as started:
        yield started


@contextlib.contextmanager
def granian(setup: Setup) -> Iterator[Started]:
    material = setup.material
    argv = [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", setup.port]
    argv += ["--http", "1", "--no-ws", "--workers-kill-timeout", "1", "--ssl-protocol-min", "tls1.2"]
    argv += ["--ssl-certificate", material.file("server.crt"), "--ssl-keyfile", material.file("server.key")]
    if setup.wants_certificate:
        argv += ["--ssl-ca", material.ca, "--ssl-client-verify"]
    argv += ["tests.interop.programs.app:app"]
    with process(setup, *argv, cwd=ROOT, env={"WWW": str(material.www), "PYTHONPATH": str(ROOT)}) as started:
        yield started


STACKS = (
    Server(
        name="Java",
        library="JSSE",
        package="default-jre-headless",
        needs=("java",),
        version=("java", "-version"),
        features=frozenset({*COMMON, stacks.PEER_UPDATES, stacks.SMALL, stacks.NO_NOTIFY}),
        start=partial(_run, (*JAVA, PROGRAMS / "Server.java"), (PASSWORD,)),
    ),
    Server(
        name="Node.js",
        library="OpenSSL",
        package="nodejs",
        needs=("node",),
        version=("node", "--version"),
        features=frozenset({*COMMON, stacks.SMALL, stacks.NO_NOTIFY}),
        start=partial(_run, ("node", PROGRAMS / "server.js"), ()),
    ),
    Server(
        name="Python ssl",
        library="OpenSSL",
        package="python3",
        needs=("python:ssl",),
        version=(sys.executable, "-c", "import ssl; print(ssl.OPENSSL_VERSION)"),
        features=frozenset({*COMMON, *stacks.TICKETS, stacks.SMALL, stacks.NO_NOTIFY}),
        start=partial(_run, (sys.executable, "-m", "tests.interop.programs.python_server"), ()),
    ),
    Server(
        name="tlslite-ng",
        library="tlslite-ng",
        package="tlslite-ng (PyPI)",
        needs=("python:tlslite",),
        version=(sys.executable, "-c", "import tlslite; print(tlslite.__version__)"),
        suites=(*USUAL, *CCM),
        features=frozenset(
            {*COMMON, *stacks.TICKETS, stacks.EARLY, stacks.PEER_UPDATES, stacks.SMALL, stacks.NO_NOTIFY}
            - {stacks.NO_CERTIFICATE}
        ),
        start=partial(_run, (sys.executable, "-m", "tests.interop.programs.tlslite_server"), ()),
        largest=MODEST,  # its AES is Python
    ),
    Server(
        name="granian",
        library="rustls",
        package="granian (PyPI)",
        needs=("python:granian",),
        version=(sys.executable, "-m", "granian", "--version"),
        features=frozenset(COMMON),
        start=granian,
        groups=("X448", "x25519"),  # it has no switch for its groups, but no X448
    ),
)
