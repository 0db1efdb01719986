"""`ktlslab get` beside curl: an option that both have means the same, and each that is missing says why."""

from __future__ import annotations

import argparse
import re
import subprocess

import pytest
from servers import answer

from ktlslab.getting import options
from ktlslab.getting.missing import DIFFERENT, WHY

# `     --long <argument> words` or ` -s, --long words`. Words of an argument may hold spaces.
LINE = re.compile(r"^ (?:(-.),|   ) (--[\w.-]+)( [<\[]\S.*?[>\]])?(?: |$)")


def curls():
    """Return curl's options: the long name -> (the short one or "", whether it takes an argument)."""
    said = subprocess.run(["curl", "--help", "all"], capture_output=True, text=True, check=True).stdout
    found = [LINE.match(line) for line in said.splitlines()]
    return {match[2]: (match[1] or "", bool(match[3])) for match in found if match}


def ours():
    """Return our options, as `curls` does; those that are refused are not among them."""
    parser = argparse.ArgumentParser()
    options.add(parser.add_subparsers(), "", lambda _: 0)
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    found = {}
    for action in commands.choices["get"]._actions:
        if action.option_strings and not set(action.option_strings) & set(WHY):
            short = next((name for name in action.option_strings if len(name) == 2), "")
            takes = action.nargs is None
            found |= {name: (short, takes) for name in action.option_strings if name[:2] == "--"}
    return found


COMMON = sorted(set(ours()) & set(curls()) - {"--json"})


def test_each_of_curls_options_is_ours_or_missing_for_a_reason():
    assert len(curls()) > 200
    known = set(ours()) | set(WHY)
    assert {name for name in curls() if name not in known} == set()
    assert {short for name, (short, _) in curls().items() if short and name not in ours()} <= set(WHY)
    assert not set(WHY) & set(ours())


@pytest.mark.parametrize("name", COMMON)
def test_an_option_of_both_has_the_same_short_name_and_takes_as_much(name):
    assert ours()[name] == ((*curls()[name][:1], False) if name == "--help" else curls()[name])


# What each option of both is tried with. Not here: what is said to people (-v, -#), and what takes a server of its own
# (the tests beside this one).
TRIED = {
    "--cacert": [],
    "--compressed": ["--compressed"],
    "--connect-timeout": ["--connect-timeout", "5"],
    "--cookie": ["-b", "a=b; c=d"],
    "--create-dirs": ["--create-dirs", "-o", "deep/er"],
    "--data": ["-d", "a=b", "-d", "@../lines", "-d", "c"],
    "--data-binary": ["--data-binary", "@../lines"],
    "--data-raw": ["--data-raw", "@a"],
    "--fail": ["-f", "/404"],
    "--get": ["-G", "-d", "a=b", "-d", "c=d"],
    "--head": ["-I"],
    "--header": ["-H", "X-A: b", "-H", "Accept:", "-H", "User-Agent: z"],
    "--http1.1": ["--http1.1"],
    "--http2": ["--http2"],
    "--include": ["-i"],
    "--location": ["-L", "/302"],
    "--max-redirs": ["-L", "--max-redirs", "3", "/for-ever"],
    "--max-time": ["-m", "1", "/never"],
    "--noproxy": ["--noproxy", "*"],
    "--output": ["-o", "file"],
    "--range": ["-r", "2-5"],
    "--referer": ["-e", "https://x/"],
    "--remote-name": ["-O", "/name"],
    "--request": ["-X", "DELETE"],
    "--retry": ["--retry", "2", "--retry-delay", "1", "/503", "-o", "file"],
    "--retry-all-errors": ["--retry", "1", "--retry-all-errors", "--retry-delay", "1", "-f", "/404"],
    "--retry-connrefused": ["--retry", "1", "--retry-connrefused", "--retry-delay", "1", "https://localhost:1/"],
    "--retry-delay": ["--retry", "1", "--retry-delay", "1", "/503", "-o", "file"],
    "--show-error": ["-s", "-S"],
    "--silent": ["-s"],
    "--speed-limit": ["-Y", "100", "-y", "1", "/never"],
    "--speed-time": ["-y", "1", "/never"],
    "--upload-file": ["-T", "../lines", "/there/"],
    "--user": ["-u", "name:word"],
    "--user-agent": ["-A", ""],
    "--write-out": ["-w", "%{http_code} %{size_upload} %{size_download} %{content_type} %{num_redirects} %{method}\\n"],
}
ELSEWHERE = {"--cert", "--continue-at", "--help", "--key", "--progress-bar", "--resolve", "--ssl-sessions", "--verbose"}
ELSEWHERE |= {"--show-headers"}  # what curl 8 calls --include


def test_every_option_of_both_is_tried():
    assert set(TRIED) | ELSEWHERE >= set(COMMON)
    assert set(ours()) >= set(TRIED) | ELSEWHERE


def script(asked):
    path = asked.target.partition("?")[0]
    if path in {"/for-ever", "/302"}:
        return answer(b"", "302 Found", f"Location: {'/' if path == '/302' else path}")
    if path == "/503":
        return answer(b"busy", "503 Busy")
    if path == "/never":
        return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    if path == "/404":
        return answer(b"none", "404 Not Found")
    return answer(b"" if asked.method == "HEAD" else b"body\n", "200 OK", "Content-Type: text/plain")


@pytest.mark.parametrize("name", TRIED)
def test_an_option_of_both_does_the_same(get, serve, certificates, tmp_path, monkeypatch, name):  # noqa: PLR0917
    (tmp_path / "lines").write_bytes(b"x=\r\ny\n")

    def curl(*words):
        done = subprocess.run(["curl", "--cacert", certificates.ca, *words], capture_output=True, check=False)
        return done.returncode, done.stdout

    def ktlslab(*words):
        got = get(*words)
        return got.status, got.out

    does = []
    for run in (curl, ktlslab):
        server, folder = serve(script), tmp_path / run.__name__
        folder.mkdir()
        monkeypatch.chdir(folder)
        words = [server.url(word) if word[0:1] == "/" else word for word in TRIED[name]]
        said = run(*words, *([] if any(word.startswith("https://localhost") for word in words) else [server.url()]))
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        does.append((said, [(one.method, one.target, one.body, headers(one)) for one in server.asked], files))
    theirs, mine = does
    assert mine == theirs


def headers(asked):
    """Return the headers, but for what differs by intention: the client's name, codings, when it says Expect."""
    name = asked.headers.get("user-agent", "none").partition("/")[0].replace("curl", "ktlslab")
    rest = {key: value for key, value in asked.headers.items() if key not in {"host", "expect", "accept-encoding"}}
    return rest | {"user-agent": name, "gzip": "gzip" in asked.headers.get("accept-encoding", "")}


def test_what_is_missing_says_why_and_stands_in_the_help(get):
    got = get("https://localhost/", "-F", "a=b")
    assert got.status == 2
    assert got.err.endswith(f"-F is not available (forms): {WHY['-F'].why}\n")
    said = get("--help").out.decode()
    for text in (*(missing.why for missing in WHY.values()), *DIFFERENT.values()):
        assert text in said
