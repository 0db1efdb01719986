"""`--ssl-sessions FILE`: what one run got, the next resumes."""

from __future__ import annotations

import base64
import json
import resource
import stat
import subprocess
import sys

import pytest
import trustme

from ktlslab.errors import UsageError
from ktlslab.http.client import Client
from ktlslab.stages import Resumption
from ktlslab.tls import openssl

FILE = b"x" * 100_000


@pytest.fixture
def resume(nginx, get, tmp_path):
    """resume(*words) -> what getting a file by --ssl-sessions said; its `out` is whether a session was resumed."""
    url, out = f"https://localhost:{nginx({'file': FILE}, http2=True)}/file", tmp_path / "out"

    def run(*words):
        out.unlink(missing_ok=True)
        got = get(url, "--ssl-sessions", tmp_path / "kept", "-w", "%{resumed}", "-o", out, *words)
        assert got.status or out.read_bytes() == FILE
        return got

    run.file, run.url = tmp_path / "kept", url
    return run


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_the_next_run_resumes_and_the_one_after_it(resume, version, http):
    offered = []
    for resumed in (b"False", b"True", b"True"):
        got = resume("--tls", version, http)
        assert (got.status, got.out, got.err) == (0, resumed, "")
        assert stat.S_IMODE(resume.file.stat().st_mode) == 0o600
        _, line = resume.file.read_text().splitlines()
        offered.append(json.loads(line)["session"])
    assert version == "1.2" or len(set(offered)) == 3, "a ticket of TLS 1.3 was offered twice"


def test_v_says_that_a_session_was_resumed(resume):
    assert "resumed" not in resume("-v").err
    assert "resumed" in resume("-v").err


def test_early_data_is_never_sent(nginx, get, tmp_path):
    """Though the server offers it: it could be replayed."""
    more = 'ssl_early_data on; location /early { return 200 "early data: $ssl_early_data."; }'
    words = [f"https://localhost:{nginx({}, more=more)}/early", "--ssl-sessions", tmp_path / "kept", "-w", "%{resumed}"]
    assert get(*words).out == b"early data: .False"
    session = openssl.session_of(
        base64.b64decode(json.loads((tmp_path / "kept").read_text().splitlines()[1])["session"])
    )
    assert openssl._lib.SSL_SESSION_get_max_early_data(session._session)
    assert get(*words).out == b"early data: .True"


def test_a_session_counts_only_for_what_has_checked_its_certificate(resume, certificates, tmp_path):
    """Other authorities, no check at all, or a certificate of this end: those are other sessions."""
    assert resume("--accept-any-certificate").out == b"False"
    assert resume("--accept-any-certificate").out == b"False", "one that nobody checked was kept"
    assert resume().out == b"False"
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.ca.read_bytes() + trustme.CA().cert_pem.bytes())
    assert resume("--ca", both).out == b"False"
    assert resume("--cert", certificates.server("good")).out == b"False"
    assert resume().out == resume("--ca", both).out == b"True"
    assert len(resume.file.read_text().splitlines()) == 4


def test_a_server_that_has_forgotten_a_session_is_met_anew(resume):
    resume()
    first, line = resume.file.read_text().splitlines()
    found = json.loads(line)
    resume.file.write_text(f"{first}\n{json.dumps(found | {'time': found['time'] - 8 * 86400})}\n")
    assert (resume().out, resume().out) == (b"False", b"True")


@pytest.mark.parametrize("line", ["{", "[]", "{}", '"x"', "\0", '{"host": 1}', "[" * 99999, "session"])
def test_a_line_that_is_no_session_is_left_out_with_a_sentence(resume, line):
    resume()
    first, good = resume.file.read_text().splitlines()
    if line == "session":
        line = json.dumps(json.loads(good) | {"session": "bm8gc2Vzc2lvbg=="})
        good = line
    resume.file.write_text(f"{first}\n{line}\n{good}\n")
    got = resume()
    assert (got.status, got.out) == (0, b"True" if good != line else b"False")
    assert "of no use" in got.err if good == line else "line 2 is no session" in got.err
    assert got.err.count("\n") == 1
    assert (resume().out, resume().err) == (b"True", "")


def test_an_empty_file_is_filled(resume):
    resume.file.touch(0o600)
    assert (resume().out, resume().out) == (b"False", b"True")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused(resume, mode):
    resume()
    resume.file.chmod(mode)
    got = resume()
    assert got.status == 26
    assert f"its mode is {mode:04o}" in got.err
    assert "chmod 600" in got.err
    assert stat.S_IMODE(resume.file.stat().st_mode) == mode


def test_what_is_something_else_is_not_overwritten(resume):
    resume.file.write_text("a letter\n")
    resume.file.chmod(0o600)
    got = resume()
    assert got.status == 26
    assert "not overwritten" in got.err
    assert resume.file.read_text() == "a letter\n"


@pytest.mark.parametrize("name", ["none/file", ".", "/dev/full", "/proc/version"])
def test_what_can_be_no_such_file_is_said_before_anything_is_asked(get, serve, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    server = serve(lambda _: b"")
    assert get(server.url(), "--ssl-sessions", name).status in {23, 26}
    assert not server.asked


def test_a_session_is_offered_once_also_where_several_servers_take_turns(resume, certificates, monkeypatch):
    """The file is read again whenever it is written, and still holds what was offered since."""
    resume()
    offered = []
    restored = Resumption.restored.__func__
    monkeypatch.setattr(
        Resumption, "restored", classmethod(lambda cls, *given: offered.append(given[0]) or restored(cls, *given))
    )
    port = int(resume.url.split(":")[2].split("/")[0])
    there, other = (f"https://{name}:{port}/file" for name in ("localhost", "127.0.0.1"))
    with Client(config=certificates.config(), sessions=resume.file, http="1.1") as client:
        open_still = client.get(there, stream=True)
        with client.get(other, stream=True):
            pass
        assert not client.get(there).session.resumed
        assert open_still.body == FILE
        assert client.get(there).body == client.get(other).body == FILE
    assert len(offered) == len(set(offered))


def test_what_is_no_file_name_is_refused():
    for wrong in (3, b"x", ["x"], object()):
        with pytest.raises(UsageError, match="sessions"):
            Client(sessions=wrong)


def test_rustls_resumes_nothing_and_says_so(get, tmp_path):
    got = get("https://localhost:1/", "--library", "rustls", "--ssl-sessions", tmp_path / "kept")
    assert got.status == 2
    assert "resumes nothing" in got.err
    assert not (tmp_path / "kept").exists()


def test_a_full_disk_keeps_the_old_file_and_is_23(resume, certificates, tmp_path):
    """A limit to the size of files is as good as a full disk, and needs no root."""
    resume()
    before = resume.file.read_bytes()
    argv = [sys.executable, "-m", "ktlslab", "get", resume.url, "--ca", certificates.ca, "--ssl-sessions", resume.file]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # noqa: E731
    done = subprocess.run(argv, capture_output=True, preexec_fn=limit, check=False)
    assert (done.returncode, done.stdout) == (23, FILE)
    assert b"EFBIG" in done.stderr
    assert b"Traceback" not in done.stderr
    assert resume.file.read_bytes() == before
    assert not list(tmp_path.glob(".*"))
