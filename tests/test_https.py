"""An HTTPS client on a session, against real servers."""

from __future__ import annotations

import random

import pytest
from conftest import send_close_notify

from ktlslab.errors import CertificateError, StreamError, TruncatedError, UsageError
from ktlslab.http import client as https
from ktlslab.linux import capabilities
from ktlslab.tls.suites import Version

FILE = random.Random(7).randbytes(1 << 20)  # noqa: S311 - any bytes will do


@pytest.mark.parametrize("record_layer", ["userspace", "auto"])
@pytest.mark.parametrize("version", Version)
def test_a_mebibyte_from_nginx_is_the_file_byte_by_byte(nginx, certificates, record_layer, version, io_engine):
    port = nginx({"file.bin": FILE}, version)
    options = {"config": certificates.config(), "record_layer": record_layer, "io_engine": io_engine}
    got = https.get(f"https://localhost:{port}/file.bin", **options)
    assert (got.status, got.reason) == (200, "OK")
    assert got.body == FILE
    assert got.header("content-length") == str(len(FILE))
    assert got.session.version is version
    assert got.session.alpn == "http/1.1"
    assert got.session.io_engine == io_engine
    assert got.session.record_layer == ("kernel" if record_layer == "auto" and capabilities.ulp() else "userspace")


def test_a_missing_page_is_an_answer_and_no_error(nginx, certificates):
    port = nginx({})
    got = https.get(f"https://localhost:{port}/none?a=b", config=certificates.config())
    assert got.status == 404
    assert b"404" in got.body


def test_openssls_own_status_page_is_read_to_its_end(s_server, certificates):
    port = s_server("-www", "-alpn", "http/1.1")
    got = https.get(f"https://localhost:{port}/", config=certificates.config())
    assert got.status == 200
    assert got.body.rstrip().endswith(b"</HTML>")


def answering(*parts, close_notify=True):
    def serve(tls, _sock):
        tls.recv(1 << 16)
        for part in parts:
            tls.sendall(part)
        if close_notify:
            send_close_notify(tls)

    return serve


def test_a_chunked_body_is_put_together(tls_peer, certificates):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    port = tls_peer(answering(head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")).port
    assert https.get(f"https://localhost:{port}/", config=certificates.config()).body == b"abcde"


def test_a_body_that_ends_with_the_connection_needs_close_notify(tls_peer, certificates):
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    port = tls_peer(answering(head, b"all of it")).port
    assert https.get(f"https://localhost:{port}/", config=certificates.config()).body == b"all of it"
    port = tls_peer(answering(head, b"half of", close_notify=False)).port
    with pytest.raises(TruncatedError, match="Bytes may be missing"):
        https.get(f"https://localhost:{port}/", config=certificates.config())


def test_a_body_shorter_than_announced_is_an_error(tls_peer, certificates):
    port = tls_peer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour")).port
    with pytest.raises(StreamError, match="after 4 of 10 bytes of the body"):
        https.get(f"https://localhost:{port}/", config=certificates.config())


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b""])
def test_what_is_no_http_is_an_error_that_says_so(tls_peer, certificates, answer):
    port = tls_peer(answering(answer)).port
    with pytest.raises(StreamError, match=r"GET .*(not HTTP/1\.1|ended before a response)"):
        https.get(f"https://localhost:{port}/", config=certificates.config())


def test_the_path_and_query_and_host_are_what_the_url_says(tls_peer, certificates):
    def serve(tls, _sock):
        asked = tls.recv(1 << 16)
        tls.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        return asked

    peer = tls_peer(serve)
    https.get(f"https://user@localhost:{peer.port}/a/b?c=d", config=certificates.config())
    lines = peer.join().split(b"\r\n")
    assert lines[0] == b"GET /a/b?c=d HTTP/1.1"
    assert f"host: localhost:{peer.port}".encode() in [line.lower() for line in lines]


@pytest.mark.parametrize("url", ["http://localhost/", "https://", "ftp://x/", "", "https:///x"])
def test_what_is_no_https_url_is_a_usage_error(url):
    with pytest.raises(UsageError, match="Write https://HOST"):
        https.get(url)


@pytest.mark.parametrize("url", ["https://localhost:99999/", "https://localhost:port/", "https://[::1/"])
def test_a_url_that_cannot_be_parsed_is_a_usage_error(url):
    with pytest.raises(UsageError):
        https.get(url)


def test_a_bad_certificate_is_an_error(s_server, certificates):
    with pytest.raises(CertificateError, match="expired"):
        https.get(f"https://localhost:{s_server('-www', certificate='expired')}/", config=certificates.config())
