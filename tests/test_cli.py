"""The command's interface: what it prints, where, and its exit status (0 done, 1 failed, 2 usage)."""

import json
import subprocess
import sys

import pytest

from ktlslab import guests
from ktlslab.cli import main
from ktlslab.linux import capabilities
from ktlslab.promises import all_promises, read_scoreboard


@pytest.fixture
def s_server_url(s_server, certificates, tmp_path):
    (tmp_path / "page.txt").write_text("served")
    return f"https://localhost:{s_server('-WWW')}/page.txt", certificates.ca


def run(*words, **options):
    argv = [sys.executable, "-m", "ktlslab", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False, **options)


def test_doctor_says_in_plain_words_what_this_machine_can_do():
    done = run("doctor")
    assert "io_uring works" in done.stdout
    assert "guests available" in done.stdout
    expected = "kTLS works here" if capabilities.probe().ktls else "no kTLS here"
    assert expected in done.stdout
    assert done.returncode == 0


def test_doctor_says_the_same_to_programs():
    report = json.loads(run("doctor", "--json").stdout)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert found["ktls"]["ok"] is capabilities.probe().ktls
    assert found["io_uring"]["ok"] is bool(capabilities.io_uring())
    assert all(finding["ok"] or finding["remedy"] or finding["name"] == "guests" for finding in report["findings"])
    assert len(report["suites"]) == 8
    assert report["ready"] is True


def test_guest_list_names_the_kernels_at_hand():
    listed = json.loads(run("guest", "list", "--json").stdout)
    assert {kernel["series"] for kernel in listed["cached"]} >= {"6.1", "6.12"}


def test_guest_list_names_every_build_when_asked():
    listed = json.loads(run("guest", "list", "--all", "--json").stdout)
    assert len(listed["builds"]) > len(listed["versions"])
    assert all(build["release"].endswith("-amd64") for build in listed["builds"])


def test_promises_are_listed_with_group_source_and_cve():
    every = run("promises", "--list").stdout.splitlines()
    assert [line.split()[0] for line in every] == [promise.name for promise in all_promises()]
    (line,) = run("promises", "--list", "cve-2025-38616").stdout.splitlines()
    for word in ("a_reader_already_in_tcp_gets_what_tcp_has", "handoff", "data_steal", "CVE-2025-38616", "6.1.185"):
        assert word in line


def test_some_promises_are_checked_by_name_and_by_group(tmp_path):
    table = tmp_path / "p.parquet"
    done = run("promises", "peek", "a send is a record", "--on", "uml", "-o", table)
    assert done.returncode == 0, done.stderr
    assert "peek" in done.stdout
    assert set(read_scoreboard(table)["group"]) == {"peek", "send shaping"}


@pytest.mark.parametrize("library", [[], ["--library", "rustls"]], ids=["openssl", "rustls"])
def test_get_prints_the_body_and_on_request_the_stages(s_server_url, library):
    url, ca = s_server_url
    done = run("get", url, "--ca", ca, "-v", *library)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "served"
    for stage in ("connect", "handshake", "export", "install", "session"):
        assert stage in done.stderr
    assert f"by {library[-1] if library else 'openssl'})" in done.stderr


def test_asking_for_the_kernel_where_it_cannot_is_a_failure_that_says_why(s_server_url):
    url, ca = s_server_url
    done = run("get", url, "--ca", ca, "--record-layer", "kernel")
    assert (done.returncode == 0) is capabilities.probe().ktls
    if not capabilities.probe().ktls:
        assert "no tls module" in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["get", "http://localhost/"], 1, "https"),
        (["get", "https://localhost:1/"], 7, "ECONNREFUSED"),
        (["get", "https://name.invalid/"], 6, "name.invalid"),
        (["sweep", "--plan", "nonsense", "-o", "t.parquet"], 2, "quick"),
        (["sweep", "--plan", "quick", "--on", "here", "--clock", "instructions", "-o", "t.parquet"], 2, "guest"),
        (["profile", "--on", "here", "-o", "p.parquet"], 2, "--on newest"),
        (["guest", "run", "5.99", "--", "true"], 1, "6.12"),
        (["guest", "run", "/no/vmlinuz", "--", "true"], 1, "/no/vmlinuz"),
        (["promises", "--list", "splice outt"], 2, "Did you mean splice out?"),
        (["promises", "a_peek_takes_nothin", "--on", "newest"], 2, "Did you mean a_peek_takes_nothing?"),
        (["promises", "--resume"], 2, "output"),
        (["guest", "fetch", "6.1.999"], 1, "guest list --all"),
        (["nonsense"], 2, "usage"),
        ([], 2, "usage"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_a_status(words, status, says, tmp_path):
    done = run(*words, cwd=tmp_path)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_guest_passes_on_output_errors_and_exit_status():
    script = "uname -r; echo $KTLSLAB_CLOCK; echo complaint >&2; exit 7"
    done = run("guest", "run", "uml", "--", "sh", "-c", script)
    assert done.returncode == 7
    assert done.stdout.split() == [guests.fetch("uml").release, "wall"]
    assert done.stderr == "complaint\n"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_that_is_none_is_refused(seconds, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["get", "https://localhost/", f"--timeout={seconds}"])
    assert caught.value.code == 2
    assert "--timeout" in capsys.readouterr().err
