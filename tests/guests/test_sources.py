from __future__ import annotations

from ktlslab.guests.archive import by_age, pinned, series_of
from ktlslab.guests.sources import deb822, mirrors, one_line, paragraphs

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


def test_only_debians_own_archive_is_taken_from_deb822():
    assert deb822(DEB822) == ["http://one.example/debian", "http://two.example/debian"]


def test_only_debians_own_archive_is_taken_from_one_line_sources():
    assert one_line(ONE_LINE) == ["http://one.example/debian", "http://two.example/debian"]


def test_both_notations_are_read_and_each_mirror_is_named_once(tmp_path, monkeypatch):
    monkeypatch.delenv("KTLSLAB_MIRROR", raising=False)
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (parts / "debian.sources").write_text(DEB822)
    (parts / "old.list.disabled").write_text("deb http://disabled.example/debian bookworm main\n")
    assert mirrors(tmp_path) == ["http://one.example/debian", "http://two.example/debian"]


def test_a_mirror_that_was_named_is_the_only_one(tmp_path, monkeypatch):
    monkeypatch.setenv("KTLSLAB_MIRROR", "http://mine.example/debian")
    assert mirrors(tmp_path) == ["http://mine.example/debian"]


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
