"""HTTP/2: nginx, a server on the h2 package, and one that breaks the rules."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import time
import tracemalloc

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ktlslab.http.client import Client
from ktlslab.http.http2 import Http2
from ktlslab.linux import capabilities

FILE = random.Random(7).randbytes((1 << 22) + 12345)  # noqa: S311 - any bytes will do


# Servers that behave


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


def test_rustls_agrees_on_http_2_too(nginx, certificates):
    port = nginx({"file": FILE}, http2=True)
    with Client(config=certificates.config(library="rustls")) as client:
        got = client.get(f"https://localhost:{port}/file")
        assert (got.body, got.head.http_version) == (FILE, "2")


def test_nginx_gets_what_is_sent_and_curl_sends_the_same(nginx, get, certificates, tmp_path):
    (tmp_path / "file").write_bytes(FILE)
    say = 'client_max_body_size 9m; location /put { dav_methods PUT; root %s; } location /say { return 200 "%s"; }'
    variables = "$request_method $server_protocol $http_host $http_user_agent $http_x $content_length $args"
    port = nginx({}, http2=True, more=say % (tmp_path, variables))
    url = f"https://localhost:{port}"
    (tmp_path / "put").mkdir()
    got = get("-T", tmp_path / "file", f"{url}/put/there", "-w", "%{http_code} %{http_version} %{size_upload}")
    assert got.out.endswith(f"201 2 {len(FILE)}".encode()), got
    assert (tmp_path / "put" / "there").read_bytes() == FILE
    for words in (
        ["-H", "X: y"],
        ["-H", "TE: gzip"],
        ["-H", "TE: trailers"],
        ["-d", "a=b"],
        ["-I"],
        ["-X", "DELETE"],
        ["-H", "Connection: close", "-H", "X: z"],
    ):
        words += ["-s", "-i", "-A", "me", f"{url}/say?q", "-w", "%{http_version} %{http_code} %{num_headers}"]
        theirs = subprocess.run(["curl", "--cacert", certificates.ca, *words], capture_output=True, check=True).stdout
        ours = get(*words).out
        drop = [line for line in theirs.splitlines() if not line.startswith(b"date:")]
        assert [line for line in ours.splitlines() if not line.startswith(b"date:")] == drop


def test_what_nginx_begins_it_finishes_though_it_ends_the_connection(nginx, get, tmp_path):
    """After keepalive_requests it says GOAWAY before the last answer."""
    port = nginx({"file": FILE}, http2=True, more="keepalive_requests 2;")
    url = f"https://localhost:{port}/file"
    got = get(*[url] * 5, *(f"-o{tmp_path / str(n)}" for n in range(5)), "-w", "%{num_connects}")
    assert (got.status, got.out) == (0, b"10101"), got
    assert all((tmp_path / str(n)).read_bytes() == FILE for n in range(5))


def test_a_download_goes_on_and_gzip_is_undone(nginx, get, tmp_path):
    more = "gzip on; gzip_types *; gzip_min_length 1;"
    url = f"https://localhost:{nginx({'file': FILE, 'text': b'a' * 9999}, http2=True, more=more)}"
    part, out = tmp_path / "out.part", tmp_path / "out"
    part.write_bytes(FILE[:1000])
    when = (tmp_path / "nginx" / "www" / "file").stat().st_mtime
    os.utime(part, (when, when))
    got = get(f"{url}/file", "-C", "-", "-o", out, "-w", "%{http_code} %{size_download} %{http_version}")
    assert got.out == f"206 {len(FILE) - 1000} 2".encode(), got
    assert out.read_bytes() == FILE
    assert not part.exists()
    got = get(f"{url}/text", "--compressed", "-w", " %{size_download}")
    body, size = got.out.split()
    assert (body, int(size) < 100) == (b"a" * 9999, True)


def test_http1_is_spoken_where_it_is_asked_for_or_nothing_else_is(nginx, get, serve):
    port = nginx({"file": b"x"}, http2=True)
    form = ["-w", " %{http_version}"]
    assert get(f"https://localhost:{port}/file", *form).out == b"x 2"
    assert get(f"https://localhost:{port}/file", "--http1.1", *form).out == b"x 1.1"
    assert get(f"https://localhost:{port}/file", "--http1.1", "--http2", *form).out == b"x 2"
    server = serve(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny")
    assert get(server.url(), *form).out == b"y 1.1"


def test_v_and_json_say_which_way_http_2_took(nginx, get):
    url = f"https://localhost:{nginx({'file': b'body'}, http2=True)}/file"
    got = get("-v", url)
    for word in (
        "handshake",
        "session",
        "> GET /file HTTP/2",
        "> :path: /file",
        "answer",
        "200",
        "< content-length: 4",
    ):
        assert word in got.err
    said = json.loads(get("--json", url).err)
    assert (said["http_version"], said["http_code"], said["library"]) == ("2", 200, "openssl")
    assert said["record_layer"] in {"kernel", "userspace"}
    assert said["io_engine"] in {"uring", "syscall"}
    assert bool(said["why"]) == (said["record_layer"] == "userspace")


def test_json_says_which_way_each_redirect_went(serve, nginx, get):
    there = f"https://localhost:{nginx({'file': b'body'}, http2=True)}/file"
    server = serve(lambda _: f"HTTP/1.1 302 Found\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n".encode())
    said = json.loads(get("--json", "-L", server.url("/here")).err)
    (redirect,) = said["redirects"]
    assert (redirect["url"], redirect["http_code"], redirect["http_version"]) == (server.url("/here"), 302, "1.1")
    assert said["http_version"] == "2"
    assert {"record_layer", "io_engine", "library", "why", "resumed"} <= set(redirect) & set(said)


def test_a_body_takes_no_memory_and_may_be_followed_by_the_end_at_once(serve, certificates):
    size, piece = 1 << 26, bytes(1 << 14)

    def script(peer):
        stream, _, body = peer.request()
        assert len(body) == 1 << 20
        peer.http.send_headers(stream, [(":status", "200")])
        for _ in range(size // len(piece)):
            while peer.http.local_flow_control_window(stream) < len(piece):
                if not peer.read():
                    return
            peer.http.send_data(stream, piece)
            peer.flush()
        peer.http.end_stream(stream)
        peer.flush()
        peer.tls.shutdown()
        while peer.sock.recv(1 << 16):  # windows, which nobody wants to know any more
            pass

    server = serve(http2=script)
    with Client(config=certificates.config()) as client:
        got = client.post(server.url(), iter([bytes(1 << 20)]), stream=True)
        tracemalloc.start()
        try:
            assert sum(map(len, got)) == size
            assert tracemalloc.get_traced_memory()[1] < 1 << 22  # the server's included
        finally:
            tracemalloc.stop()


def test_an_upload_waits_for_the_servers_window(serve, get, tmp_path):
    (tmp_path / "file").write_bytes(FILE)

    def script(peer):
        stream, headers, body = peer.request()
        assert headers["content-length"] == str(len(FILE))
        assert body == FILE
        peer.answer(stream, b"thanks")

    assert get("-T", tmp_path / "file", serve(http2=script).url("/f")).out == b"thanks"


def test_a_body_is_not_sent_to_a_server_that_refuses_it(serve, certificates):
    """RFC 9113, 8.1: an answer, then RST_STREAM with NO_ERROR. The connection goes on."""

    def script(peer):
        for _ in range(2):
            stream, _, _ = peer.request(body=False)
            peer.answer(stream, b"too large", "413")
            peer.http.reset_stream(stream, 0)
            peer.flush()
        peer.tls.shutdown()
        while peer.read():
            pass

    server = serve(http2=script)
    with Client(config=certificates.config()) as client:
        for _ in range(2):
            got = client.post(server.url(), (bytes(1 << 16) for _ in range(1000)))
            assert (got.status, got.body) == (413, b"too large")
            assert got.exchange.sent_bytes < 1 << 24
    assert server.connections == 1


@pytest.mark.parametrize("code", [7, 13])
def test_what_the_server_has_not_begun_with_is_asked_again(serve, get, code):
    """REFUSED_STREAM, and HTTP_1_1_REQUIRED, which is then spoken; also a POST (RFC 9113, 8.7)."""
    refused = []

    def script(peer):
        stream, _, body = peer.request()
        if not refused:
            refused.append(stream)
            peer.http.reset_stream(stream, code)
            peer.flush()
            peer.read()
            return
        peer.answer(stream, b"2 " + body)

    server = serve(lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1 " + asked.body, http2=script)
    assert get(server.url(), "-d", "a=b").out == (b"2 a=b" if code == 7 else b"1 a=b")
    assert server.connections == 2


def test_between_two_requests_pings_are_no_harm_and_goaway_is_a_new_connection(serve, certificates):
    def script(peer):
        for body in (b"first", b"second"):
            if asked := peer.request():
                peer.answer(asked[0], body)
                peer.send(PingFrame(0, b"12345678"))
        peer.send(GoAwayFrame(0, 3, 0))
        peer.read()

    server = serve(http2=script)
    with Client(config=certificates.config()) as client:
        for body in (b"first", b"second", b"first"):
            assert client.get(server.url()).body == body
            time.sleep(0.2)
    assert server.connections == 2


# Servers that do not


def begin(peer):
    stream, _, _ = peer.request(body=False)
    peer.http.send_headers(stream, [(":status", "200"), ("content-length", "1000")])
    peer.flush()
    return stream


def then(*make, pause=0.0):
    """Serve a head that promises 1000 bytes, and these frames, then end."""

    def script(peer):
        stream = begin(peer)
        for one in make:
            peer.send(one(stream))
            time.sleep(pause)
        peer.tls.shutdown()
        peer.read()

    return script


def instead(make):
    """Serve frames in place of an answer, and let the client say the rest."""

    def script(peer):
        stream, _, _ = peer.request(body=False)
        peer.send(make(peer, stream))
        while peer.sock.recv(1 << 16):
            pass

    return script


def head(*pairs, end=False):
    """Serve a head of these fields."""
    flags = ("END_HEADERS", "END_STREAM") if end else ("END_HEADERS",)
    return instead(lambda peer, stream: peer.headers(stream, *pairs, flags=flags))


def for_ever(make, *, promised=True, pause=0.0):
    def script(peer):
        stream = begin(peer) if promised else peer.request(body=False)[0]
        data = make(peer, stream)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            peer.tls.sendall(data)
            time.sleep(pause)

    return script


def pushed(peer, stream):
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/")]
    return PushPromiseFrame(stream, 2, peer.http.encoder.encode(fields), flags=["END_HEADERS"])


def bomb(peer, stream):
    """Put a large field into the table of HPACK, and then refer to it thousands of times by one byte."""
    filled = peer.headers(stream, (":status", "103"), ("x", "b" * 3000)).serialize()
    return filled + HeadersFrame(stream, b"\x88" + b"\xbe" * 16000, flags=["END_HEADERS"]).serialize()


def data(body, *, end=False):
    return lambda stream: DataFrame(stream, body, flags=["END_STREAM"] if end else [])


def stop(peer):
    """Fall silent in the middle of a frame."""
    peer.send(DataFrame(begin(peer), bytes(1000)).serialize()[:500])
    time.sleep(10)


def drip(peer):
    """Send a head by the byte."""
    stream, _, _ = peer.request(body=False)
    for byte in peer.headers(stream, OK, ("x", "y" * 1000)).serialize():
        peer.send(bytes([byte]))
        time.sleep(0.05)


def cut(peer):
    """End TCP in the middle of a frame, without close_notify."""
    peer.send(DataFrame(begin(peer), bytes(1000)).serialize()[:500])
    peer.sock.shutdown(socket.SHUT_WR)
    peer.read()


def reset(peer):
    peer.send(DataFrame(begin(peer), b"x"))
    time.sleep(0.2)
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


OK, LENGTH, LAST = (":status", "200"), "content-length", ["END_HEADERS"]
UNKNOWN, EMPTY_SETTINGS = b"\0\0\x0e\xfa" + bytes(19), bytes(3) + b"\x04" + bytes(5)
PADDING = b"\0\0\x0a\0\x08\0\0\0\1\x09" + bytes(9)  # DATA that is nothing else
MANY = 900
BAD = {
    "no answer": (lambda peer: (peer.request(), peer.tls.shutdown()), 52, "ended before a response"),
    "silence": (stop, 28, "not done within 2 s"),
    "a head by the byte": (drip, 28, "not done within 2 s"),
    "cut off": (cut, 18, "after 0 of 1000 bytes"),
    "a reset of TCP": (reset, 56, ""),
    "short": (then(data(b"short")), 18, "after 5 of 1000 bytes"),
    "short, and its end": (then(data(b"short", end=True)), 18, "of 1000 bytes"),
    "nothing, and its end": (then(data(b"", end=True)), 18, "after 0 of 1000 bytes"),
    "a head that ends": (head(OK, (LENGTH, "9"), end=True), 18, "after 0 of 9 bytes"),
    "more": (then(data(bytes(1001))), 16, "Expected 1000 bytes"),
    "reset": (then(lambda s: RstStreamFrame(s, 2), pause=0.2), 92, "RST_STREAM: INTERNAL_ERROR"),
    "reset without an error": (then(lambda s: RstStreamFrame(s, 0), pause=0.2), 92, "RST_STREAM: NO_ERROR"),
    "reset, no answer": (instead(lambda _, s: RstStreamFrame(s, 8)), 92, "RST_STREAM: CANCEL"),
    "reset for an unknown reason": (instead(lambda _, s: RstStreamFrame(s, 999)), 92, "RST_STREAM: error 0x3e7"),
    "always refused": (instead(lambda _, s: RstStreamFrame(s, 7)), 92, "REFUSED_STREAM"),
    "goaway, not begun": (instead(lambda *_: GoAwayFrame(0, 0, 0)), 92, "has not begun"),
    "goaway in the middle": (then(lambda s: GoAwayFrame(0, s, 2)), 16, "GOAWAY: INTERNAL_ERROR"),
    "goaway with words": (then(lambda s: GoAwayFrame(0, s, 11, b"slower\x1b[2J")), 16, r"_CALM, slower\x1b[2J"),
    "half a goaway": (then(lambda _: b"\0\0\4\7" + bytes(9)), 16, "GOAWAY without its fields"),
    "HTTP/1.1": (instead(lambda *_: b"HTTP/1.1 400 Bad\r\n\r\n" * 9), 16, "not HTTP/2"),
    "no status": (head(("x", "y")), 16, "status"),
    "a status that is none": (head((":status", "x")), 16, "not HTTP/2"),
    "capitals": (head(OK, ("X", "y")), 16, "uppercase"),
    "101": (head((":status", "101")), 8, "switches"),
    "a length that is none": (head(OK, (LENGTH, "x")), 16, "content-length"),
    "no HPACK": (instead(lambda _, s: HeadersFrame(s, b"\xff" * 9, flags=LAST)), 16, "header block"),
    "another's stream": (instead(lambda *_: HeadersFrame(99, b"\x88", flags=LAST)), 16, "not HTTP/2"),
    "a push": (instead(pushed), 16, "pushed"),
    "a bomb of headers": (instead(bomb), 16, "more than is taken"),
    "a window too large": (then(*[lambda _: WindowUpdateFrame(0, (1 << 31) - 1)] * 2), 16, "window"),
    "a frame too large": (instead(lambda *_: b"\0\x40\1" + bytes(6)), 16, "a frame of 16385 bytes"),
    "pings": (for_ever(lambda *_: PingFrame(0, b"8 bytes.").serialize() * MANY), 16, "more than is taken"),
    "settings": (for_ever(lambda *_: EMPTY_SETTINGS * MANY), 16, "more than is taken"),
    "empty frames": (for_ever(lambda _, s: DataFrame(s).serialize() * MANY), 16, "more than is taken"),
    "frames of padding": (for_ever(lambda *_: PADDING * MANY), 16, "more than is taken"),
    "unknown frames": (for_ever(lambda *_: UNKNOWN * MANY), 16, "more than is taken"),
    "unknown frames, slowly": (for_ever(lambda *_: UNKNOWN, pause=0.1), 28, "not done within 2 s"),
    "continuation": (for_ever(lambda _, s: ContinuationFrame(s).serialize()), 16, "not HTTP/2"),
    "a head without end": (
        for_ever(lambda _, s: HeadersFrame(s).serialize() + ContinuationFrame(s).serialize() * 99, promised=False),
        *(16, "continuation"),
    ),
    "103": (
        for_ever(lambda peer, s: peer.headers(s, (":status", "103")).serialize() * MANY, promised=False),
        *(16, "more than is taken"),
    ),
    "byte by byte": (for_ever(lambda _, s: DataFrame(s, b"x").serialize(), pause=0.1), 28, "not done within 2 s"),
}


@pytest.mark.parametrize(("script", "status", "says"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("io_engine", ["syscall", "uring"])
def test_a_server_that_breaks_the_rules_is_an_error_in_time(serve, get, tmp_path, script, status, says, io_engine):  # noqa: PLR0917
    server = serve(http2=script)
    started = time.monotonic()
    got = get(server.url(), "-o", tmp_path / "file", "-m", "2", "--io-engine", io_engine)
    assert time.monotonic() - started < 3.5
    assert got.status == status, got
    assert says in got.err
    assert got.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("piece", [100_000, 1000])
@pytest.mark.parametrize(("size", "status"), [(20_000, 0), (60_000, 0), (70_000, 16), (400_000, 16)])
def test_a_large_head_works_or_fails_however_it_arrives(serve, get, size, status, piece):
    """h2's limit of 64 KiB; a frame has 16."""

    def script(peer):
        stream, _, _ = peer.request()
        block = peer.http.encoder.encode([OK, (LENGTH, "4"), ("x", "x" * size)], huffman=False)
        parts = [block[at : at + (1 << 14)] for at in range(0, len(block), 1 << 14)]
        whole = HeadersFrame(stream, parts[0]).serialize()
        whole += b"".join(ContinuationFrame(stream, part).serialize() for part in parts[1:])
        whole += ContinuationFrame(stream, b"", flags=LAST).serialize()
        whole += DataFrame(stream, b"body", flags=["END_STREAM"]).serialize()
        for at in range(0, len(whole), piece):
            peer.send(whole[at : at + piece])
        peer.read()

    got = get(serve(http2=script).url())
    assert got.status == status, got
    assert got.out == (b"" if status else b"body")


@pytest.mark.parametrize("frame", [UNKNOWN, PingFrame(0, b"8 bytes.").serialize()])
def test_a_slow_server_is_given_up_without_any_time_limit(serve, get, frame):
    """Frames that bring nothing of the answer are no progress."""
    server = serve(http2=for_ever(lambda *_: frame, pause=0.1))
    started = time.monotonic()
    got = get(server.url(), "--speed-time", "1", "--speed-limit", "20")
    assert got.status == 28
    assert "bytes came within 1 s" in got.err
    assert time.monotonic() - started < 3


def test_a_frame_that_comes_slowly_is_progress(serve, get):
    whole = DataFrame(1, bytes(1000), flags=["END_STREAM"]).serialize()

    def script(peer):
        begin(peer)
        for at in range(0, len(whole), 50):
            peer.send(whole[at : at + 50])
            time.sleep(0.1)
        peer.read()

    server = serve(http2=script)
    assert get(server.url(), "--speed-time", "1", "--speed-limit", "100").out == bytes(1000)


def test_several_answers_are_read_at_once_on_connections_of_their_own(nginx, certificates):
    port = nginx({"file": FILE}, http2=True)
    with Client(config=certificates.config()) as client:
        both = [client.get(f"https://localhost:{port}/file", stream=True) for _ in range(2)]
        pairs = zip(*both, strict=False)
        assert sum(len(one) for pair in pairs for one in pair) > 1 << 20
        for got in both:
            got.close()
        assert client.get(f"https://localhost:{port}/file").body == FILE


@given(st.lists(st.binary(max_size=40) | st.builds(
    lambda kind, flags, stream, body: len(body).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + body,
    st.integers(0, 12), st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 1 << 31]), st.binary(max_size=40),
)))  # fmt: skip
@settings(deadline=None, max_examples=300)
def test_whatever_comes_between_two_requests_is_taken_or_ends_the_connection(pieces):
    http2 = Http2()
    http2.rules.send_headers(1, [(":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/")])
    assert http2.quiet(EMPTY_SETTINGS + b"".join(pieces)) in {True, False}
