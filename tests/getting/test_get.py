"""`ktlslab get` against servers that behave: what is asked, what is printed, what is kept."""

from __future__ import annotations

import gzip
import json
import os
import socket
import stat
import subprocess
import sys
import time

import pytest
from servers import answer

DATA = bytes(range(256)) * 4096  # a mebibyte


def test_the_body_goes_to_standard_output_and_nothing_else(get, serve):
    server = serve(lambda _: answer(DATA))
    got = get(server.url())
    assert (got.status, got.err) == (0, "")
    assert got.out == DATA


@pytest.mark.parametrize(
    ("words", "method", "body", "headers"),
    [
        ([], "GET", b"", {"accept": "*/*", "user-agent": "ktlslab"}),
        (["-X", "DELETE"], "DELETE", b"", {}),
        (["-I"], "HEAD", b"", {}),
        (["-d", "a=1", "-d", "b=2"], "POST", b"a=1&b=2", {"content-type": "application/x-www-form-urlencoded"}),
        (["--data-raw", "@x"], "POST", b"@x", {}),
        (["-d", "x", "-H", "Content-Type: text/plain"], "POST", b"x", {"content-type": "text/plain"}),
        (["-H", "X-A: 1", "-H", "X-B: 2", "-A", "me"], "GET", b"", {"x-a": "1", "x-b": "2", "user-agent": "me"}),
        (["-u", "user:word"], "GET", b"", {"authorization": "Basic dXNlcjp3b3Jk"}),
        (["-r", "0-9"], "GET", b"", {"range": "bytes=0-9"}),
        (["-b", "a=b", "-e", "https://x/"], "GET", b"", {"cookie": "a=b", "referer": "https://x/"}),
    ],
)
def test_what_is_asked_is_what_the_words_say(get, serve, words, method, body, headers):  # noqa: PLR0917
    server = serve(lambda _: answer())
    assert get(server.url(), *words).status == 0
    (asked,) = server.asked
    assert (asked.method, asked.body) == (method, body)
    assert headers.items() <= asked.headers.items()
    assert asked.headers["host"] == f"localhost:{server.port}"


def test_a_header_without_a_value_is_left_out(get, serve):
    server = serve(lambda _: answer())
    get(server.url(), "-H", "Accept:", "-H", "User-Agent:")
    assert not {"accept", "user-agent"} & set(server.asked[0].headers)


def test_files_are_sent_as_they_are_or_without_line_ends(get, serve, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"one\r\ntwo\n" + DATA)
    server = serve(lambda _: answer())
    for words in (["-T", file], ["--data-binary", f"@{file}"], ["-d", f"@{file}"]):
        assert get(server.url("/there/"), *words).status == 0
    put, binary, text = server.asked
    assert (put.method, put.target) == ("PUT", "/there/file")
    assert put.body == binary.body == file.read_bytes()
    assert text.body == file.read_bytes().replace(b"\r", b"").replace(b"\n", b"")
    assert put.headers["content-length"] == str(file.stat().st_size)


def test_get_puts_the_data_into_the_query(get, serve):
    server = serve(lambda _: answer())
    get(server.url("/p?a=1"), "-G", "-d", "b=two words")
    assert server.asked[0].target == "/p?a=1&b=two%20words"


def test_several_urls_of_a_host_share_a_connection(get, serve):
    server = serve(lambda asked: answer(asked.target.encode()))
    got = get(server.url("/1"), server.url("/2"), server.url("/3"), "-w", "[%{num_connects}]")
    assert got.out == b"/1[1]/2[0]/3[0]"
    assert server.connections == 1


def test_a_kept_connection_that_the_server_closed_is_replaced(serve, certificates):
    from ktlslab.http.client import Client

    def close_after_one(tls, _sock):
        tls.recv(1 << 16)
        tls.sendall(answer(b"x"))
        tls.shutdown()

    server = serve(raw=close_after_one)
    with Client(config=certificates.config()) as client:
        for _ in range(3):
            assert client.get(server.url()).body == b"x"
    assert server.connections == 3


def test_what_a_server_says_unasked_is_no_answer_to_the_next_request(serve, certificates):
    from ktlslab.http.client import Client

    def talk(tls, _sock):
        tls.recv(1 << 16)
        tls.sendall(answer(b"first"))
        time.sleep(0.1)
        tls.sendall(answer(b"smuggled"))
        tls.recv(1 << 16)

    server = serve(raw=talk)
    with Client(config=certificates.config()) as client:
        assert client.get(server.url()).body == b"first"
        time.sleep(0.3)
        assert client.get(server.url()).body == b"first"
    assert server.connections == 2


def test_redirects_are_followed_if_asked_and_secrets_stay_with_their_server(get, serve):
    other = serve(lambda _: answer(b"there"))

    def script(asked):
        if asked.target == "/far":
            return answer(b"", "302 Found", f"Location: {other.url('/x')}")
        return answer(b"here") if asked.target == "/b%20c" else answer(b"no", "303 See Other", "Location: /b c")

    server = serve(script)
    assert get(server.url("/a")).out == b"no"
    got = get("-L", server.url("/a"), "-d", "x", "-w", " %{num_redirects} %{url_effective}")
    assert got.status == 0, got
    assert got.out.decode() == f"here 1 {server.url('/b%20c')}"
    assert [asked.method for asked in server.asked[1:]] == ["POST", "GET"]
    assert get("-L", server.url("/far"), "-u", "a:b", "-H", "X: y").out == b"there"
    assert "authorization" in server.asked[-1].headers
    assert "authorization" not in other.asked[0].headers
    assert other.asked[0].headers["x"] == "y"


def test_a_307_keeps_method_and_body(get, serve):
    server = serve(lambda asked: answer() if asked.target == "/b" else answer(b"", "307 T", "Location: b"))
    assert get("-L", server.url("/a"), "-d", "x").status == 0
    assert [(asked.method, asked.body) for asked in server.asked] == [("POST", b"x")] * 2


def test_redirects_without_end_are_an_error(get, serve):
    server = serve(lambda _: answer(b"", "302 Found", "Location: /"))
    got = get("-L", "--max-redirs", "5", server.url())
    assert got.status == 47
    assert "after 5 redirects" in got.err
    assert len(server.asked) == 6


def test_a_redirect_to_http_is_not_followed(get, serve):
    server = serve(lambda _: answer(b"", "302 Found", "Location: http://localhost/"))
    got = get("-L", server.url())
    assert got.status == 1
    assert "the scheme is 'http'" in got.err


def test_heads_are_printed_where_asked(get, serve):
    server = serve(lambda asked: answer(b"" if asked.method == "HEAD" else b"body", "200 OK", "X-A: b"))
    assert get("-i", server.url()).out == b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-A: b\r\n\r\nbody"
    assert get("-I", server.url()).out == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\r\n\r\n"


def test_an_answer_of_400_or_more_is_printed_and_with_fail_a_status(get, serve):
    server = serve(lambda _: answer(b"none", "404 Not Found"))
    got = get(server.url())
    assert (got.status, got.out) == (0, b"none")
    got = get("-f", server.url())
    assert (got.status, got.out) == (22, b"")
    assert "404 Not Found" in got.err
    assert get("-f", "-s", server.url()).err == ""


def test_files_get_their_names_and_nothing_is_left_beside_them(get, serve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server = serve(lambda _: answer(DATA))
    assert get(server.url(), "-o", "a").status == 0
    assert get("-O", server.url("/b%20c?x=y")).status == 0
    assert get(server.url(), "-o", "new/d", "--create-dirs").status == 0
    assert get(server.url("/1"), server.url("/2"), "-o", "e", "-o", "f").status == 0
    names = {"a", "b c", "new/d", "e", "f"}
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == names
    assert all((tmp_path / name).read_bytes() == DATA for name in names)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_a_file_may_not_be_named_out_of_its_folder(get, serve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server = serve(lambda _: answer(b"x"))
    for path in ("/", "/..", "/a%2f..%2fb", "/x/"):
        assert get("-O", server.url(path)).status == 2
    assert not list(tmp_path.iterdir())


def test_gzip_is_undone_where_it_was_asked_for(get, serve, tmp_path):
    server = serve(lambda _: answer(gzip.compress(DATA), "200 OK", "Content-Encoding: gzip"))
    assert get("--compressed", server.url()).out == DATA
    assert get("--compressed", server.url(), "-o", tmp_path / "file").status == 0
    assert (tmp_path / "file").read_bytes() == DATA
    assert gzip.decompress(get(server.url()).out) == DATA


def test_v_shows_the_way_and_json_says_it_to_programs(get, serve, tmp_path):
    server = serve(lambda _: answer(b"body", "200 OK", "X-A: b"))
    got = get("-v", server.url())
    for word in ("connect", "handshake", "session", "record", "> GET / HTTP/1.1", "< X-A: b", "answer"):
        assert word in got.err or word == "record"
    got = get("--json", server.url())
    assert got.out == b"body"
    said = json.loads(got.err)
    assert said["http_code"] == 200
    assert said["record_layer"] in {"kernel", "userspace"}
    assert said["tls_version"] == "TLS 1.3"
    assert [step["stage"] for step in said["stages"]][:2] == ["connect", "handshake"]
    assert 0 < said["time_connect"] < said["time_appconnect"] < said["time_starttransfer"] <= said["time_total"]
    got = get("--json", server.url(), "-o", tmp_path / "file")
    assert json.loads(got.out)["filename_effective"] == str(tmp_path / "file")


def test_w_knows_curls_variables(get, serve):
    server = serve(lambda _: answer(b"body", "200 OK", "Content-Type: a/b"))
    form = r"\n%{http_code} %{size_download} %{content_type} %{remote_port} %{scheme} 100%% %{nonsense}|%{stderr}done"
    got = get(server.url(), "-w", form)
    assert got.out.decode() == f"body\n200 4 a/b {server.port} https 100% |"
    assert got.err == "done"


def test_what_curl_says_of_the_same_transfer_is_the_same(get, serve, certificates):
    server = serve(lambda _: answer(b"body", "201 Created", "X-A: b"))
    words = [
        "-i",
        "-d",
        "x=1",
        "-H",
        "X: y",
        "-A",
        "z",
        "-w",
        "%{http_code} %{size_download} %{num_connects}",
        server.url(),
    ]
    done = subprocess.run(["curl", "-s", "--cacert", certificates.ca, *words], capture_output=True, check=True)
    got = get("-s", *words)
    assert got.out == done.stdout
    theirs, ours = server.asked
    assert (theirs.method, theirs.target, theirs.body) == (ours.method, ours.target, ours.body)
    assert theirs.headers == ours.headers


def test_resolve_names_the_address_and_the_certificate_is_still_the_hosts(get, serve):
    server = serve(lambda _: answer(b"x"))
    url = f"https://elsewhere.example:{server.port}/"
    resolved = f"elsewhere.example:{server.port}:127.0.0.1"
    got = get("--resolve", resolved, url)
    assert got.status == 60
    assert "not for 'elsewhere.example'" in got.err
    assert get("--resolve", resolved, "--accept-any-certificate", url).out == b"x"
    assert server.asked[0].headers["host"] == f"elsewhere.example:{server.port}"
    both = f"localhost:{server.port}:127.0.0.9,127.0.0.1"  # nobody listens at the first
    assert get("--resolve", both, server.url()).out == b"x"


def test_a_bare_host_is_one_of_https(get, serve):
    server = serve(lambda _: answer(b"x"))
    assert get(f"localhost:{server.port}").out == b"x"
    assert get(f"localhost:{server.port}/p").out == b"x"
    assert [asked.target for asked in server.asked] == ["/", "/p"]


@pytest.mark.parametrize(
    ("path", "target"),
    [("/a b", "/a%20b"), ("/ä?ö=ü", "/%C3%A4?%C3%B6=%C3%BC"), ("/a%20b", "/a%20b"), ("?q", "/?q"), ("/x#y", "/x")],
)
def test_spaces_and_all_scripts_may_stand_in_a_url(get, serve, path, target):
    server = serve(lambda _: answer(b"x"))
    assert get(server.url(path)).out == b"x"
    assert server.asked[0].target == target


def test_an_international_host_is_asked_for_by_its_ascii_name(get, serve):
    server = serve(lambda _: answer(b"x"))
    options = ["--resolve", f"straße.example:{server.port}:127.0.0.1", "--accept-any-certificate"]
    assert get(*options, f"https://Straße.example:{server.port}/").out == b"x"
    assert server.asked[0].headers["host"] == f"xn--strae-oqa.example:{server.port}"
    assert get(f"https://x{'ü' * 70}.example/").status == 3


def test_a_download_goes_on_where_it_ended(get, serve, tmp_path):
    stamp = "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT"
    file = tmp_path / "file"

    def cut(tls, _sock):
        tls.recv(1 << 16)
        tls.sendall(answer(DATA, "200 OK", stamp)[: 1 << 19])

    got = get("-C", "-", serve(raw=cut).url(), "-o", file)
    assert got.status == 18
    assert not file.exists()
    come = (tmp_path / "file.part").stat().st_size
    assert 0 < come < len(DATA)

    def rest(asked):
        assert asked.headers["if-range"] == "Wed, 21 Oct 2015 07:28:00 GMT"
        start = int(asked.headers["range"].removeprefix("bytes=").rstrip("-"))
        return answer(DATA[start:], "206 Partial", stamp, f"Content-Range: bytes {start}-{len(DATA) - 1}/{len(DATA)}")

    server = serve(rest)
    assert get("--continue", server.url(), "-o", file).status == 0
    assert file.read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_has_changed_meanwhile_is_fetched_anew(get, serve, tmp_path):
    (tmp_path / "file.part").write_bytes(b"old")
    assert get("-C", "-", serve(lambda _: answer(DATA)).url(), "-o", tmp_path / "file").status == 0
    assert (tmp_path / "file").read_bytes() == DATA


def test_another_range_than_the_wanted_is_refused(get, serve, tmp_path):
    (tmp_path / "file.part").write_bytes(b"old")
    server = serve(lambda _: answer(b"x", "206 Partial", "Content-Range: bytes 0-0/9"))
    got = get("-C", "-", server.url(), "-o", tmp_path / "file")
    assert got.status == 33
    assert not (tmp_path / "file").exists()


def test_retry_tries_again_after_what_may_pass(get, serve):
    answers = iter([answer(b"", "503 Busy"), answer(b"", "429 Slow"), answer(b"done")])
    server = serve(lambda _: next(answers))
    got = get("--retry", "3", "--retry-delay", "0.05", "-f", server.url())
    assert (got.status, got.out) == (0, b"done")
    assert got.err.count("trying again in 0.05 s") == 2
    answers = iter([answer(b"busy", "503 Busy"), answer(b"done")])
    got = get("--retry", "3", "--retry-delay", "0.05", serve(lambda _: next(answers)).url())
    assert got.out == b"done"
    server = serve(lambda _: answer(b"", "404 No"))
    assert get("--retry", "3", "-f", server.url()).status == 22
    assert len(server.asked) == 1


def test_a_body_is_not_sent_to_a_server_that_refuses_it(get, serve, tmp_path):
    (tmp_path / "file").write_bytes(bytes(1 << 22))

    def refuse(tls, _sock):
        asked = tls.recv(1 << 16)
        assert b"Expect: 100-continue" in asked
        tls.sendall(answer(b"too large", "413 Too Large", "Connection: close"))
        tls.shutdown()

    got = get("-T", tmp_path / "file", serve(raw=refuse).url("/f"), "-w", " %{http_code}")
    assert got.out == b"too large 413"


def test_a_large_body_is_sent_where_nobody_says_continue(get, serve, tmp_path):
    (tmp_path / "file").write_bytes(DATA * 2)

    def silent(tls, _sock):
        data = b""
        while len(data) < 2 * len(DATA):
            data += tls.recv(1 << 16)
        tls.sendall(answer(b"got it"))
        tls.recv(1)

    assert get("-T", tmp_path / "file", serve(raw=silent).url("/f")).out == b"got it"


def test_memory_does_not_grow_with_the_body(serve, certificates, tmp_path):
    """In a process of its own, whose peak counts: 200 MB to a file and to standard output."""
    piece, count = bytes(1 << 20), 200

    def flood(tls, _sock):
        tls.recv(1 << 16)
        tls.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(piece) * count}\r\n\r\n".encode())
        for _ in range(count):
            tls.sendall(piece)
        tls.recv(1)

    server = serve(raw=flood)
    # Not ru_maxrss, which is at least what the parent had when it started this process.
    peak = "sys.stderr.write(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    command = f"import sys; from ktlslab.cli import main; status = main(sys.argv[1:]); {peak}; sys.exit(status)"
    words = ["get", "--ca", str(certificates.ca), server.url()]
    for to in (["-o", str(tmp_path / "file")], []):
        argv = [sys.executable, "-c", command, *words, *to]
        done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
        assert int(done.stderr) >> 10 < 100, "MiB at the peak"
    assert (tmp_path / "file").stat().st_size == len(piece) * count
    body = (
        f"import sys, ktlslab; got = ktlslab.get(sys.argv[2], config=ktlslab.ClientConfig(ca=sys.argv[1])).body; {peak}"
    )
    argv = [sys.executable, "-c", body, str(certificates.ca), server.url()]
    done = subprocess.run(argv, stderr=subprocess.PIPE, check=True)
    assert int(done.stderr) >> 10 < 1.5 * count, "MiB at the peak, for a body that is kept"


@pytest.mark.parametrize("io_engine", ["syscall", "uring"])
def test_nothing_is_waited_for_once_the_body_is_whole(get, serve, io_engine):
    """The server neither closes nor reads on."""

    def linger(tls, _sock):
        tls.recv(1 << 16)
        tls.sendall(answer(b"all of it"))
        time.sleep(5)

    started = time.monotonic()
    assert get(serve(raw=linger).url(), "--io-engine", io_engine).out == b"all of it"
    assert time.monotonic() - started < 0.9  # at a close, a second would be waited


def test_a_dead_address_costs_a_quarter_of_a_second_and_not_the_whole_time(
    serve, certificates, monkeypatch, full_listener
):
    """A listener whose queue is full drops what comes, as a dead IPv6 address does (RFC 8305)."""
    from ktlslab.http.client import Client

    server = serve(lambda _: answer(b"x"))
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(*kind, full_listener), (*kind, ("127.0.0.1", server.port))]
    )
    started = time.monotonic()
    with Client(config=certificates.config()) as client:
        assert client.get(server.url()).body == b"x"
    assert time.monotonic() - started < 2
