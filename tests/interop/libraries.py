"""The programs that come with GnuTLS and NSS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.interop import stacks
from tests.interop.stacks import CCM, USUAL, Server, Setup, Started, process

PRIORITY = "NORMAL:+AES-128-CCM"


@contextlib.contextmanager
def gnutls_serv(setup: Setup) -> Iterator[Started]:
    material = setup.material
    argv = ["gnutls-serv", "--echo", "--quiet", "--port", setup.port]
    argv += ["--x509certfile", material.file("server.crt"), "--x509keyfile", material.file("server.key")]
    only = ":-GROUP-ALL:+GROUP-SECP384R1" if setup.feature == stacks.RETRY else ""
    argv += ["--priority", PRIORITY + only]
    argv += setup.when(stacks.TICKETS[0], "--noticket")
    argv += setup.when(stacks.EARLY, "--earlydata")
    argv += setup.when(stacks.SMALL, "--recordsize", "512")
    if setup.wants_certificate:
        argv += ["--require-client-cert", "--verify-client-cert", "--x509cafile", material.ca]
    else:
        argv += ["--disable-client-cert"]
    with process(setup, *argv) as started:
        yield started


@contextlib.contextmanager
def selfserv(setup: Setup) -> Iterator[Started]:
    argv = ["selfserv", "-d", setup.material.nss, "-e", "server", "-p", setup.port, "-V", "tls1.2:tls1.3", "-D", "-u"]
    argv += setup.when(stacks.RETRY, "-I", "P384")
    argv += setup.when(stacks.EARLY, "-Z")
    if setup.wants_certificate:
        argv += ["-r", "-r"]
    with process(setup, *argv, cwd=setup.material.www) as started:
        yield started


STACKS = (
    Server(
        name="gnutls-serv",
        library="GnuTLS",
        package="gnutls-bin",
        needs=("gnutls-serv",),
        version=("gnutls-serv", "--version"),
        suites=(*USUAL, *CCM),
        features=frozenset(
            {
                stacks.DEFAULT,
                stacks.TICKETS[0],
                stacks.RESUMED,
                stacks.EARLY,
                stacks.BOTH_UPDATE,
                stacks.CLIENT_CERTIFICATE,
                stacks.NO_CERTIFICATE,
                stacks.RETRY,
            }
        ),
        start=gnutls_serv,
        echoes=True,
    ),
    Server(
        name="selfserv",
        library="NSS",
        package="libnss3-tools",
        needs=("selfserv", "certutil", "pk12util"),
        version=("dpkg-query", "--show", "libnss3-tools"),
        features=frozenset(
            {
                stacks.DEFAULT,
                stacks.RESUMED,
                stacks.EARLY,
                stacks.BOTH_UPDATE,
                stacks.CLIENT_CERTIFICATE,
                stacks.NO_CERTIFICATE,
                stacks.RETRY,
            }
        ),
        start=selfserv,
        smallest=1,  # it answers the request for an empty file by a page of its own
        absolute=True,
    ),
)
