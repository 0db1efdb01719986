"""`ktlslab get` in this process, and servers that behave as badly as a test wants."""

from __future__ import annotations

import contextlib

import pytest
from servers import Server

from ktlslab.cli import main


class Got:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err.decode()

    def __repr__(self):
        return f"{self.status}: {self.out[:200]!r} {self.err}"


@pytest.fixture
def get(capfdbinary, certificates):
    """get(*words) -> status, out (bytes), err (text) of `ktlslab get --ca ...`."""

    def run(*words):
        capfdbinary.readouterr()
        try:
            status = main(["get", "--ca", str(certificates.ca), *map(str, words)])
        except SystemExit as ended:
            status = ended.code
        said = capfdbinary.readouterr()
        assert b"Traceback" not in said.err
        return Got(status, said.out, said.err)

    return run


@pytest.fixture
def serve(certificates):
    """serve(script) or serve(raw=script) -> Server."""
    with contextlib.ExitStack() as servers:

        def start(script=None, *, certificate="good", **options):
            server = Server(certificates.server(certificate), script, **options)
            servers.callback(server.close)
            return server

        yield start
