"""OpenSSL's own server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.interop import stacks
from tests.interop.stacks import CCM, USUAL, Server, Setup, Started, process


@contextlib.contextmanager
def s_server(setup: Setup) -> Iterator[Started]:
    material = setup.material
    argv = ["openssl", "s_server", "-accept", f"127.0.0.1:{setup.port}", "-cert", material.file("server.crt")]
    argv += ["-cert_chain", material.file("server.crt"), "-key", material.file("server.key")]
    argv += [
        "-ciphersuites",
        ":".join(suite.openssl_name for suite in ALL if suite.name.startswith("TLS_") and "WITH" not in suite.name),
    ]
    argv += ["-cipher", ":".join(suite.openssl_name for suite in ALL if "WITH" in suite.name)]
    if setup.feature != stacks.PEER_UPDATES:
        argv.append("-WWW")
    if setup.tickets is not None:
        argv += ["-num_tickets", setup.tickets]
    argv += setup.when(stacks.EARLY, "-max_early_data", "16384")
    argv += setup.when(stacks.RETRY, "-groups", "P-384")
    argv += setup.when(stacks.SMALL, "-max_send_frag", "512")
    if setup.wants_certificate:
        argv += ["-Verify", "1", "-CAfile", material.ca, "-verify_return_error"]
    with process(setup, *argv, cwd=material.www) as started:
        yield started


ALL = (*USUAL, *CCM)
STACKS = (
    Server(
        name="openssl s_server",
        library="OpenSSL",
        package="openssl",
        needs=("openssl",),
        version=("openssl", "version"),
        suites=ALL,
        features=frozenset(
            {
                stacks.DEFAULT,
                *stacks.TICKETS,
                stacks.RESUMED,
                stacks.EARLY,
                stacks.PEER_UPDATES,
                stacks.BOTH_UPDATE,
                stacks.CLIENT_CERTIFICATE,
                stacks.NO_CERTIFICATE,
                stacks.RETRY,
                stacks.SMALL,
            }
        ),
        start=s_server,
    ),
)
