"""The real httpbin behind nginx, by an HTTPS client whose records the kernel makes."""

from __future__ import annotations

import gzip
import json
import random
import time

import pytest

from ktlslab.cli import main
from ktlslab.http.client import Client

LAYER = "kernel"
PROXY = """
    location / {
      proxy_pass http://127.0.0.1:%d; proxy_http_version 1.1; proxy_buffering off; proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto https;
    }
"""


@pytest.fixture
def url(httpbin, nginx):
    """url(path) -> the URL at nginx, behind which httpbin is."""
    port = nginx({}, more=PROXY % httpbin())
    return lambda path: f"https://localhost:{port}/{path}"


@pytest.fixture
def client(certificates, io_engine):
    with Client(config=certificates.config(), record_layer=LAYER, io_engine=io_engine, timeout=60.0) as client:
        yield client


def random_bytes(seed, count):
    """Return what httpbin gives for `bytes/COUNT?seed=SEED`."""
    drawn = random.Random(seed)  # noqa: S311 - httpbin's own
    return bytes(drawn.randint(0, 255) for _ in range(count))


def test_all_that_httpbin_is_asked_for_comes_over_one_connection(url, client):
    got = client.get(url("get?of=ktlslab"), headers={"X-Asked": "yes"})
    assert (got.session.record_layer, got.new_connection) == (LAYER, True)
    assert got.json()["args"] == {"of": "ktlslab"}
    assert got.json()["headers"]["X-Asked"] == "yes"

    assert client.post(url("post"), b"a body").json()["data"] == "a body"
    assert client.post(url("post"), b"x" * 200_000).json()["data"] == "x" * 200_000

    zipped = client.get(url("gzip"))
    assert zipped.header("content-encoding") == "gzip"
    assert json.loads(gzip.decompress(zipped.body))["gzipped"] is True

    streamed = client.get(url("stream/5"))
    assert streamed.header("transfer-encoding") == "chunked"
    assert [json.loads(line)["id"] for line in streamed.text.splitlines()] == list(range(5))
    in_chunks = client.get(url("stream-bytes/50000?seed=7&chunk_size=1000"))
    assert (in_chunks.header("transfer-encoding"), in_chunks.body) == ("chunked", random_bytes(7, 50_000))

    for path in ("redirect/3", "relative-redirect/3", "redirect-to?url=/get"):
        led = client.get(url(path), redirects=5)
        assert (led.status, len(led.history)) == (200, 1 if "url=" in path else 3)
        assert led.json()["url"] == url("get")
    assert client.get(url("redirect/1")).status == 302

    for status in (204, 304, 404, 418, 500, 503):
        assert client.get(url(f"status/{status}")).status == status

    assert client.get(url("bytes/100000?seed=7")).body == random_bytes(7, 100_000)
    last = client.get(url("bytes/0"))
    assert (last.body, last.new_connection) == (b"", False)


def test_what_comes_late_or_drop_by_drop_is_waited_for(url, client):
    began = time.monotonic()
    assert client.get(url("delay/1")).json()["url"].endswith("/delay/1")
    assert time.monotonic() - began >= 1

    began = time.monotonic()
    dripped = client.get(url("drip?numbytes=5&duration=1&delay=0"), stream=True)
    pieces = [bytes(piece) for piece in dripped]
    assert b"".join(pieces) == b"*" * 5
    assert len(pieces) > 1
    assert time.monotonic() - began >= 0.5


def test_the_command_gets_the_same(url, certificates, tmp_path, capfdbinary):
    """In this process: to import everything for each command takes an emulated CPU seconds."""

    def run(*words):
        status = main(["get", "--ca", str(certificates.ca), "--record-layer", LAYER, "-s", *words])
        return status, capfdbinary.readouterr().out

    status, said = run(url("get?of=ktlslab"), url("bytes/5?seed=7"), "-w", "\n%{record_layer} %{http_code}\n")
    assert (status, said.count(f"\n{LAYER} 200\n".encode()), random_bytes(7, 5) in said) == (0, 2, True)
    status, said = run("--compressed", "-d", "a=1", "-d", "b=2", url("post"))
    assert (status, json.loads(said)["form"]) == (0, {"a": "1", "b": "2"})
    assert run("-L", "-o", str(tmp_path / "led"), url("redirect/2"))[0] == 0
    assert json.loads((tmp_path / "led").read_text())["url"] == url("get")
    assert run("-f", url("status/404")) == (22, b"")
    assert run("-m", "1", url("delay/3"))[0] == 28
