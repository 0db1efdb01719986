"""HTTPS where the kernel makes the records: socket to file by splice(2), and file to socket by sendfile(2)."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time

import pytest
from servers import Server, answer

from ktlslab.errors import IncompleteError, PeerTimeoutError
from ktlslab.http.client import Client
from ktlslab.tls.suites import Version

DATA = random.Random(13).randbytes((1 << 23) + 12345)  # noqa: S311 - any bytes will do


@pytest.fixture
def serve(certificates):
    with contextlib.ExitStack() as servers:

        def start(script=None, **options):
            server = Server(certificates.server("good"), script, **options)
            servers.callback(server.close)
            return server

        yield start


@pytest.fixture
def client(certificates, io_engine):
    with Client(config=certificates.config(), io_engine=io_engine, record_layer="kernel") as client:
        yield client


def test_a_body_is_spliced_into_a_file_and_the_connection_kept(serve, client, tmp_path, monkeypatch):
    spliced = []
    splice = os.splice
    monkeypatch.setattr(os, "splice", lambda *given: spliced.append(moved := splice(*given)) or moved)
    server = serve(lambda _: answer(DATA))
    for name in ("a", "b"):
        got = client.get(server.url(), stream=True)
        assert got.session.record_layer == "kernel"
        got.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == DATA
        assert got.exchange.body_bytes == len(DATA)
    assert server.connections == 1
    assert sum(spliced) > 3 * len(DATA), "twice into a pipe, and twice out of it"


def test_a_file_is_sent_by_sendfile(serve, client, tmp_path, monkeypatch):
    sent = []
    sendfile = os.sendfile
    monkeypatch.setattr(os, "sendfile", lambda *given: sent.append(moved := sendfile(*given)) or moved)
    (tmp_path / "file").write_bytes(DATA)
    server = serve(lambda _: answer(b"thanks"))
    with (tmp_path / "file").open("rb") as file:
        assert client.post(server.url(), file).body == b"thanks"
    assert server.asked[0].body == DATA
    assert sum(sent) == len(DATA)


@pytest.mark.parametrize("version", Version)
def test_small_and_odd_bodies_are_whole_in_pieces_and_in_files(serve, certificates, tmp_path, io_engine, version):
    server = serve(lambda asked: answer(DATA[: int(asked.target[1:])]))
    options = {"config": certificates.config(versions=(version,)), "io_engine": io_engine, "record_layer": "kernel"}
    with Client(**options) as client:
        for size in (0, 1, 16384, 16385, 100_000):
            assert client.get(server.url(f"/{size}")).body == DATA[:size]
            client.get(server.url(f"/{size}"), stream=True).save(tmp_path / "file")
            assert (tmp_path / "file").read_bytes() == DATA[:size]
    assert server.connections == 1


def test_what_ends_too_early_or_not_at_all_leaves_no_file(serve, certificates, tmp_path, io_engine):
    def cut(tls, _sock):
        tls.recv(1 << 16)
        tls.sendall(answer(DATA)[:100_000])

    def stop(tls, _sock):
        cut(tls, _sock)
        time.sleep(20)

    for raw, error in ((cut, IncompleteError), (stop, PeerTimeoutError)):
        options = {"config": certificates.config(), "io_engine": io_engine, "record_layer": "kernel", "timeout": 3.0}
        with Client(**options) as client:
            got = client.get(serve(raw=raw).url(), stream=True)
            with pytest.raises(error):
                got.save(tmp_path / "file")
        assert not list(tmp_path.iterdir())


def test_get_says_that_the_kernel_did_it(serve, certificates, tmp_path):
    server = serve(lambda _: answer(DATA))
    words = [server.url(), "--ca", str(certificates.ca), "--record-layer", "kernel", "-o", str(tmp_path / "file")]
    form = "%{record_layer} %{tls_version} %{size_download}"
    done = subprocess.run(
        [sys.executable, "-m", "ktlslab", "get", *words, "-w", form], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"kernel TLS 1.3 {len(DATA)}"
    assert (tmp_path / "file").read_bytes() == DATA
