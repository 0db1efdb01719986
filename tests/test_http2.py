"""HTTP/2 against servers that behave: nginx, and one on the h2 package."""

from __future__ import annotations

import random

import pytest

from ktlslab.http.client import Client
from ktlslab.linux import capabilities

FILE = random.Random(7).randbytes((1 << 22) + 12345)  # noqa: S311 - any bytes will do


@pytest.mark.parametrize("record_layer", ["userspace", "auto"])
def test_a_file_from_nginx_is_whole_and_the_connection_kept(nginx, certificates, record_layer, io_engine):
    port = nginx({"file.bin": FILE, "empty": b""}, http2=True)
    with Client(config=certificates.config(), record_layer=record_layer, io_engine=io_engine) as client:
        got = client.get(f"https://localhost:{port}/file.bin")
        assert (got.status, got.head.http_version, got.session.alpn) == (200, "2", "h2")
        assert got.body == FILE
        assert got.session.record_layer == ("kernel" if record_layer == "auto" and capabilities.ulp() else "userspace")
        again = client.get(f"https://localhost:{port}/empty")
        assert (again.body, again.new_connection) == (b"", False)
        assert client.get(f"https://localhost:{port}/none").status == 404
        assert again.session is got.session
