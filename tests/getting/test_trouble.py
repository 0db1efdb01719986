"""Whatever goes wrong is a sentence and curl's status, in time, and no file under the final name."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
from servers import answer, read_request

from ktlslab.http.client import Client
from ktlslab.http.exchange import MAX_HEAD_BYTES
from ktlslab.tls.suites import Suite

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


def then(*parts, close_notify=True, pause=0.0):
    """Serve these parts after a request, then end."""

    def raw(tls, _sock):
        read_request(tls, body=False)
        for part in parts:
            tls.sendall(part)
            time.sleep(pause)
        if close_notify:
            tls.shutdown()

    return raw


def for_ever(first, make, pause=0.0):
    """Serve `first`, then make(0), make(1), ... until the client is gone, or for a minute."""

    def raw(tls, _sock):
        read_request(tls, body=False)
        tls.sendall(first)
        until = time.monotonic() + 60
        for number in count():
            if time.monotonic() > until:
                return
            tls.sendall(make(number))
            time.sleep(pause)

    return raw


def reset(tls, sock):
    read_request(tls)
    tls.sendall(HEAD + b"x")
    time.sleep(0.1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def stop(tls, _sock):
    read_request(tls)
    tls.sendall(HEAD + b"in the middle")
    time.sleep(30)


@pytest.mark.parametrize(
    ("raw", "status", "says"),
    [
        (then(), 52, "ended before a response"),
        (then(close_notify=False), 52, "ended before a response"),
        (then(b"SSH-2.0-x\r\n\r\n"), 8, "not HTTP/1.1"),
        (then(b"HTTP/1.1 200 OK\r\nno header\r\n\r\n"), 8, "not HTTP/1.1"),
        (then(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"), 8, "not HTTP/1.1"),
        (then(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), 8, "not HTTP/1.1"),
        (then(b"HTTP/1.1 200 OK\r\nContent-Length: 9"), 8, "not HTTP/1.1"),
        (then(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), 8, "HTTP"),
        (then(HEAD, b"short"), 18, "after 5 of 1000 bytes"),
        (then(HEAD, b"short", close_notify=False), 18, "after 5 of 1000 bytes"),
        (then(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"), 18, "after 3 bytes"),
        (then(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\nabc"), 8, "not HTTP/1.1"),
        (then(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf", close_notify=False), 56, "close_notify"),
        (reset, 56, ""),
        (stop, 28, "not done within 2 s"),
        (for_ever(b"HTTP/1.1 200 OK\r\n", lambda n: b"X-%d: bomb\r\n" % n * 500), 8, "head of the answer"),
        (for_ever(b"HTTP/1.1 200 OK\r\nX: ", lambda _: b"bomb" * 1000), 8, ""),
        (for_ever(b"", lambda _: b"HTTP/1.1 100 Continue\r\n\r\n" * 100), 8, "head of the answer"),
        (for_ever(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", lambda _: b"x" * 1000), 8, ""),
        (for_ever(b"HTTP/1.1 200 OK\r\n", lambda _: b"X", 0.05), 28, "not done within 2 s"),
        (for_ever(HEAD, lambda _: b"x", 0.05), 28, "not done within 2 s"),
    ],
)
@pytest.mark.parametrize("io_engine", ["syscall", "uring"])
def test_a_server_that_breaks_the_rules_is_an_error_in_time(get, serve, tmp_path, raw, status, says, io_engine):  # noqa: PLR0917
    server = serve(raw=raw)
    started = time.monotonic()
    got = get(server.url(), "-o", tmp_path / "file", "-m", "2", "--io-engine", io_engine)
    assert time.monotonic() - started < 3.5
    assert got.status == status, got
    assert says in got.err
    assert got.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "raw", [for_ever(b"HTTP/1.1 200 OK\r\n", lambda _: b"X", 0.3), for_ever(HEAD, lambda _: b"x", 0.3)]
)
def test_a_slow_server_is_given_up_without_any_time_limit(get, serve, raw):
    server = serve(raw=raw)
    started = time.monotonic()
    got = get(server.url(), "--speed-time", "1", "--speed-limit", "100")
    assert got.status == 28
    assert "bytes came within 1 s" in got.err
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("io_engine", ["syscall", "uring"])
def test_a_reader_may_take_longer_than_the_server_may(serve, certificates, io_engine):
    data = bytes(1 << 22)
    server = serve(lambda _: answer(data))
    with Client(config=certificates.config(), stall_timeout=0.2, io_engine=io_engine) as client:
        got = client.get(server.url(), stream=True)
        time.sleep(0.5)
        size = 0
        for number, piece in enumerate(got):
            size += len(piece)
            if number < 3:
                time.sleep(0.3)
    assert size == len(data)


@pytest.mark.parametrize("suite", [Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, Suite.TLS_AES_128_GCM_SHA256])
def test_records_that_come_byte_by_byte_are_bounded_too(get, tcp_peer, certificates, suite):
    """The handshake, then one record whose end never comes."""
    from conftest import accept_tls, server_context

    def script(sock):
        tls = accept_tls(server_context(certificates.server("good"), suite), sock)
        tls.recv(1 << 16)
        record = b"\x17\x03\x03\x40\x00" + bytes(1000)
        for at in range(len(record)):
            try:
                sock.sendall(record[at : at + 1])
            except OSError:
                return
            time.sleep(0.02)

    port = tcp_peer(script).port
    for engine in ("syscall",):
        started = time.monotonic()
        got = get(f"https://localhost:{port}/", "-m", "1", "--io-engine", engine)
        assert got.status == 28
        assert time.monotonic() - started < 2.5


@pytest.mark.parametrize("size", [20_000, MAX_HEAD_BYTES - 200])
@pytest.mark.parametrize("piece", [100_000_000, 1000])
def test_a_large_head_works_however_it_arrives(get, serve, size, piece):
    head = b"HTTP/1.1 200 OK\r\nX: " + b"x" * size + b"\r\nContent-Length: 4\r\n\r\nbody"
    pieces = [head[at : at + piece] for at in range(0, len(head), piece)]
    assert get(serve(raw=then(*pieces)).url()).out == b"body"


@pytest.mark.parametrize("piece", [100_000_000, 1000])
def test_a_larger_head_fails_however_it_arrives(get, serve, piece):
    head = b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\nContent-Length: 4\r\n\r\nbody"
    pieces = [head[at : at + piece] for at in range(0, len(head), piece)]
    assert get(serve(raw=then(*pieces)).url()).status == 8


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https://[::1/",
        "https://h:port/",
        "https://h:99999/",
        "https://a b/",
        "https:///x",
        "https://h\x01/",
    ],
)
def test_what_is_no_url_is_3(get, url):
    got = get(url)
    assert got.status == 3
    assert "reading the URL" in got.err


@pytest.mark.parametrize("url", ["http://localhost/", "ftp://localhost/", "file:///etc/passwd"])
def test_another_scheme_is_1(get, url):
    assert get(url).status == 1


def test_nobody_there_is_6_and_7(get):
    assert get("https://name.invalid/").status == 6
    assert get("https://localhost:1/").status == 7


def test_name_servers_that_do_not_answer_are_6_in_time(get, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3) or [])
    started = time.monotonic()
    got = get("https://slow.example/", "--connect-timeout", "0.3")
    assert got.status == 6
    assert "did not answer within 0.3 s" in got.err
    assert time.monotonic() - started < 2


def test_a_handshake_is_bounded_with_the_connection(get, tcp_peer):
    port = tcp_peer(lambda sock: sock.recv(1 << 16) and time.sleep(3)).port
    started = time.monotonic()
    assert get(f"https://localhost:{port}/", "--connect-timeout", "0.5").status == 28
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("certificate", "says"),
    [
        ("expired", "expired"),
        ("future", "not valid yet"),
        ("wrong-name", "not for 'localhost'"),
        ("stranger", "issuer is not trusted"),
        ("self-signed", "self-signed"),
    ],
)
def test_each_kind_of_bad_certificate_is_60(get, serve, certificate, says):
    server = serve(lambda _: answer(), certificate=certificate)
    got = get(server.url())
    assert got.status == 60
    assert says in got.err
    assert get(server.url(), "--accept-any-certificate").status == 0


@pytest.mark.parametrize("engine", ["syscall", "uring"])
@pytest.mark.parametrize("size", [0, 800_000])
def test_a_server_that_wants_a_certificate_is_heard_however_it_goes(  # noqa: PLR0917 - fixtures
    get, tcp_peer, certificates, tmp_path, engine, size
):
    """It closes with the request unread, so TCP resets the connection behind its alert."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server("good"))
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    (tmp_path / "body").write_bytes(bytes(size))
    words = ["--data-binary", f"@{tmp_path / 'body'}"] if size else []

    def reject(sock):
        with pytest.raises(ssl.SSLError, match=r"(?i)peer.did.not.return.a.certificate"):
            context.wrap_socket(sock, server_side=True)

    got = get(f"https://localhost:{tcp_peer(reject).port}/", "--io-engine", engine, *words)
    assert got.status == 56
    assert re.search("the peer sent the alert (fatal )?certificate_required", got.err)


def test_no_tls_and_no_common_suite_are_35(get, tcp_peer, serve):
    port = tcp_peer(lambda sock: sock.sendall(b"HTTP/1.0 400 Speak clearly\r\n\r\n")).port
    got = get(f"https://localhost:{port}/")
    assert got.status == 35
    assert "clear text" in got.err
    server = serve(lambda _: answer(), suite=Suite.TLS_AES_128_GCM_SHA256)
    got = get(server.url(), "--tls", "1.2")
    assert got.status == 35
    assert "the peer sent the alert" in got.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-k"], "accept-any-certificate"),
        (["-x", "proxy:1"], "without a proxy"),
        (["-F", "a=b"], "--data-binary"),
        (["--next"], "start several processes"),
        (["-C", "100"], "--range"),
        (["-b", "file"], "a file of cookies"),
        (["--retry=-1"], "number of times"),
        (["--resolve", "nonsense"], "HOST:PORT:ADDRESS"),
        (["-H", "nonsense"], "no name"),
        (["-H", "Content Length: 1"], "header"),
        (["-X", "TWO WORDS"], "method"),
        (["--suite", "nonsense"], ""),
        (["-Y-1"], "stall_bytes"),
        (["-4"], "--resolve names an address"),
    ],
)
def test_words_that_cannot_be_meant_are_2(get, serve, words, says):
    got = get(serve(lambda _: answer()).url(), *words)
    assert got.status == 2
    assert says in got.err


def test_files_that_are_not_there_have_curls_statuses(get, serve, tmp_path):
    url = serve(lambda _: answer()).url()
    none = tmp_path / "none"
    assert get(url, "--ca", none).status == 77
    assert get(url, "--cert", none).status == 58
    assert get(url, "-T", none).status == 26
    assert get(url, "-d", f"@{none}").status == 26
    assert get(url, "-o", none / "file").status == 23
    assert get(url, "-o", tmp_path).status == 23
    assert not none.exists()


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_in_the_environment_is_refused_and_not_passed_over(get, serve, monkeypatch, name):
    url = serve(lambda _: answer(b"x")).url()
    monkeypatch.setenv(name, "http://proxy.example:3128")
    got = get(url)
    assert got.status == 4
    assert "speaks to servers directly" in got.err
    assert get(url, "--noproxy", "*").out == get(url, "--noproxy", "a.example,localhost").out == b"x"
    assert get(url, "--noproxy", "a.example").status == 4
    monkeypatch.setenv("no_proxy", "localhost")
    assert get(url).out == b"x"


# Standard output


def command(certificates, *words, **options):
    argv = [sys.executable, "-m", "ktlslab", "get", "--ca", str(certificates.ca), *map(str, words)]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_slow_reader_gets_all_of_it(serve, certificates, unbuffered):
    data = os.urandom(1 << 21)
    server = serve(lambda _: answer(data))
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with command(certificates, server.url(), stdout=subprocess.PIPE, env=environment, bufsize=0) as process:
        got = b""
        while piece := process.stdout.read(50_000):
            got += piece
            time.sleep(0.002)
        assert process.wait(60) == 0
    assert got == data


def test_a_pipe_that_does_not_block_gets_all_of_it_too(serve, certificates):
    data = os.urandom(1 << 20)
    server = serve(lambda _: answer(data))
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with command(certificates, server.url(), stdout=writing) as process, os.fdopen(reading, "rb") as pipe:
        os.close(writing)
        time.sleep(0.5)
        assert pipe.read() == data
        assert process.wait(60) == 0


@pytest.mark.parametrize("words", [[], ["-o", "/dev/full"], ["-o", "/dev/stdout"], ["-i"]])
def test_a_full_disk_is_23(serve, certificates, words):
    server = serve(lambda _: answer(b"x"))
    with Path("/dev/full").open("wb") as full, command(certificates, server.url(), *words, stdout=full) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 23
    assert b"ENOSPC" in said
    assert b"Traceback" not in said


def test_a_reader_that_goes_away_is_23(serve, certificates):
    server = serve(lambda _: answer(bytes(1 << 22)))
    with command(certificates, server.url(), stdout=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(60) == 23
    assert b"reader is gone" in said
    assert b"Traceback" not in said


@pytest.mark.parametrize("words", [["doctor"], ["--version"], ["--help"], ["promises", "--list"]])
def test_every_command_says_that_its_output_could_not_be_written(words):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ktlslab", *words], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 1
    assert b"ENOSPC" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_an_interrupt_leaves_no_file(serve, certificates, tmp_path):
    server = serve(raw=stop)
    with command(certificates, server.url(), "-o", tmp_path / "file") as process:
        until = time.monotonic() + 30
        while not list(tmp_path.iterdir()) and time.monotonic() < until:
            time.sleep(0.02)
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
    assert not list(tmp_path.iterdir())
