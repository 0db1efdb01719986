"""HTTPS where the kernel makes the records: socket to file by splice(2), and file to socket by sendfile(2)."""

from __future__ import annotations

import contextlib
import os
import random
import select
import subprocess
import sys

import pytest
from kinds import USER_MODE
from servers import Server, answer

from ktlslab.errors import IncompleteError, PeerTimeoutError
from ktlslab.http.client import Client
from ktlslab.tls.suites import Version

DATA = random.Random(13).randbytes((1 << 23) + 12345)  # noqa: S311 - any bytes will do
MANY = 1 << 24  # 64 MiB take a minute, and 16 tell as much: a sixteenth of them may stay in memory
BRIEF = 1.0 if USER_MODE else 3.0  # of a client that meets nothing but silence


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

    def stop(tls, sock):
        cut(tls, sock)
        select.select([sock], [], [], 20)  # for the client's end: no thread outlives this test

    for raw, error in ((cut, IncompleteError), (stop, PeerTimeoutError)):
        options = {"config": certificates.config(), "io_engine": io_engine, "record_layer": "kernel", "timeout": BRIEF}
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


@pytest.fixture
def room(tmp_path):
    """Give a folder whose large files are gone after the test: a guest has little room."""
    yield tmp_path
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.stat().st_size > 1 << 20:
            path.unlink()


@pytest.mark.parametrize("way", ["download", "upload"])
@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_memory_is_the_same_for_many_mebibytes_and_for_one(room, nginx, certificates, way, http):
    """The peak of a process of its own (VmHWM), with bytes that are compared."""
    files = {name: random.Random(size).randbytes(size) for name, size in (("one", 1 << 20), ("many", MANY))}  # noqa: S311
    more = f"client_max_body_size 0; location /put {{ dav_methods PUT; root {room}; }}"
    url = f"https://localhost:{nginx(files, http2=True, more=more)}"
    peak = "sys.stderr.write(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    command = f"import sys; from ktlslab.cli import main; status = main(sys.argv[1:]); {peak}; sys.exit(status)"
    words = ["get", "--ca", str(certificates.ca), http, "--record-layer", "kernel", "-s", "-S", "-f"]
    got, peaks = room / "put" / "got", {}
    got.parent.mkdir()
    for name, data in files.items():
        sent = room / "nginx" / "www" / name
        asked = [f"{url}/{name}", "-o", got] if way == "download" else [f"{url}/put/got", "-T", sent]
        done = subprocess.run([sys.executable, "-c", command, *words, *asked], stderr=subprocess.PIPE, check=True)
        assert got.read_bytes() == data
        peaks[name] = int(done.stderr)
    assert peaks["many"] - peaks["one"] < 1024, f"KiB: {peaks}"


def test_http_2_goes_over_the_kernels_records_and_keeps_its_connection(nginx, client, tmp_path):
    port = nginx({"file": DATA, "small": b"x"}, http2=True)
    got = client.get(f"https://localhost:{port}/file", stream=True)
    assert (got.session.record_layer, got.head.http_version) == ("kernel", "2")
    got.save(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert client.get(f"https://localhost:{port}/small").session is got.session


def test_a_session_that_the_kernel_carried_is_resumed_in_the_next_run(nginx, certificates, io_engine, tmp_path):
    """Its tickets come as the kernel's records, and go to the library from there."""
    port = nginx({"file": b"x"}, http2=True)
    options = {"config": certificates.config(), "io_engine": io_engine, "record_layer": "kernel"}
    for resumed in (False, True, True):
        with Client(**options, sessions=tmp_path / "kept") as client:
            got = client.get(f"https://localhost:{port}/file")
            assert (got.body, got.session.resumed, got.session.record_layer) == (b"x", resumed, "kernel")
