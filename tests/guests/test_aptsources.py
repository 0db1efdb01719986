from __future__ import annotations

import os
import subprocess

from ktlslab.guests import apt
from ktlslab.guests.aptsources import AptSource, deb822, one_line, paragraphs, sources
from ktlslab.guests.archive import by_age, pinned, series_of

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://one.example/debian
# another comment
 http://two.example/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .

Types: deb
URIs: http://one.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""

ONE_LINE = """\
# deb http://off.example/debian bookworm main
deb http://one.example/debian bookworm main contrib # a comment
deb [ arch=amd64 signed-by=/k.gpg ] http://two.example/debian trixie-backports main
deb http://one.example/debian-security bookworm-security main
deb https://vendor.example/apt nodistro main
deb https://vendor.example/docker bookworm stable
deb-src http://source.example/debian bookworm main
"""


def test_deb822_paragraphs_give_their_suites_of_main_that_are_enabled():
    assert deb822(DEB822) == [
        AptSource("http://one.example/debian", "bookworm"),
        AptSource("http://one.example/debian", "bookworm-updates"),
        AptSource("http://two.example/debian", "bookworm"),
        AptSource("http://two.example/debian", "bookworm-updates"),
        AptSource("http://one.example/debian-security", "bookworm-security"),
    ]


def test_one_line_sources_give_their_suites_of_main_that_are_enabled():
    assert one_line(ONE_LINE) == [
        AptSource("http://one.example/debian", "bookworm"),
        AptSource("http://two.example/debian", "trixie-backports"),
        AptSource("http://one.example/debian-security", "bookworm-security"),
        AptSource("https://vendor.example/apt", "nodistro"),
    ]


def looked_at(apt):
    return {uri: [suite for at, suite in sources(apt) if at == uri] for uri, _ in sources(apt)}


MAIN = ["bookworm", "bookworm-updates", "bookworm-backports", "trixie", "trixie-updates", "trixie-backports"]
SECURITY = ["bookworm-security", "trixie-security"]


def test_every_suite_of_debians_own_archives_is_looked_at_once_and_no_vendors(tmp_path, monkeypatch):
    monkeypatch.delenv("KTLSLAB_MIRROR", raising=False)
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (parts / "debian.sources").write_text(DEB822)
    (parts / "old.list.disabled").write_text("deb http://disabled.example/debian bookworm main\n")
    assert looked_at(tmp_path) == {
        "http://one.example/debian": MAIN,
        "http://two.example/debian": MAIN,
        "http://one.example/debian-security": SECURITY,
        "http://two.example/debian-security": SECURITY,  # beside the main one, as far as it is there
    }


def test_a_security_archive_has_the_address_that_the_sources_name(tmp_path, monkeypatch):
    monkeypatch.delenv("KTLSLAB_MIRROR", raising=False)
    lines = ["deb http://a.example/pub/linux/ bookworm main", "deb http://b.example/safe bookworm-security main"]
    (tmp_path / "sources.list").write_text("\n".join(lines))
    assert looked_at(tmp_path) == {"http://a.example/pub/linux": MAIN, "http://b.example/safe": SECURITY}


def test_a_mirror_that_was_named_is_the_only_one(tmp_path, monkeypatch):
    monkeypatch.setenv("KTLSLAB_MIRROR", "http://mine.example/debian")
    (tmp_path / "sources.list").write_text(ONE_LINE)
    assert looked_at(tmp_path) == {
        "http://mine.example/debian": MAIN,
        "http://mine.example/debian-security": SECURITY,
    }


def test_a_kernel_is_what_is_pinned_to_its_own_version():
    depends = "dracut | other (>= 0.1), linux-binary-7.3-amd64 (= 7.3.4-1), kmod, linux-modules-7.3-amd64 (= 7.3.4-1)"
    assert pinned(depends, "7.3.4-1") == ["linux-binary-7.3-amd64", "linux-modules-7.3-amd64"]
    assert pinned("kmod, linux-base (>= 4.3~)", "6.1.176-1") == []


def test_series_are_read_from_versions_and_sorted_by_number():
    assert [series_of(text) for text in ("6.1.176-1", "6.12.95-1~bpo12+1", "7.3.4+deb13-amd64")] == [
        "6.1",
        "6.12",
        "7.3",
    ]
    assert sorted(["6.12", "7.3", "6.1", "6.2"], key=by_age) == ["6.1", "6.2", "6.12", "7.3"]


def test_control_paragraphs_keep_continuation_lines():
    assert paragraphs("A: 1\n 2\nB: 3\n\n\nC: 4\n") == [{"a": "1\n2", "b": "3"}, {"c": "4"}]


def test_what_the_archive_just_said_is_not_asked_for_again(tmp_path, monkeypatch):
    """Unless the sources are others, the answer is old or gone, or the archive is a folder, which may grow."""

    def run(argv, **_):
        asked.append(argv[-1])
        lists.mkdir(parents=True, exist_ok=True)
        (lists / "one.example_Packages").touch()
        return subprocess.CompletedProcess(argv, 0, "Get:1 http://one.example bookworm InRelease\n", "")

    def times(*updates):
        asked.clear()
        for source in updates:
            monkeypatch.setattr(apt, "sources", lambda uri=source, **_: [AptSource(uri, "bookworm")])
            apt.Apt().update()
        return len(asked)

    asked, lists = [], tmp_path / "apt/lists"
    monkeypatch.setenv("KTLSLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(apt, "_run", run)
    one, other, folder = "http://one.example/debian", "http://two.example/debian", "file:///srv/debian"
    assert times(one, one, one) == 1
    assert times(other, one) == 2
    assert times(folder, folder) == 2
    assert times(one, one) == 1
    os.utime(tmp_path / "apt/sources.fetched", (0, 0))
    assert times(one, one) == 1
    (lists / "one.example_Packages").unlink()
    assert times(one, one) == 1
