"""What this machine can do and what a user-mode kernel can, as notebook 00 shows it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from ktlslab import guests
from ktlslab.errors import GuestError, KtlsLabError
from ktlslab.linux import capabilities
from ktlslab.show import machines

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_the_choice_of_jupyter_kernels_names_this_kernel_and_two_kinds_of_guests():
    rows = machines.choices().rows
    assert ("with kTLS" if capabilities.probe().ktls else "without kTLS") in rows[0][1]
    assert "user mode" in rows[1][0]
    assert "ktlslab kernelspec install" in rows[1][3] or "is there" in rows[1][3]
    assert "--kernel newest" in rows[2][3] or "is there" in rows[2][3]


def test_what_is_missing_for_guests_is_said(monkeypatch):
    class Need:
        name, present = "the-missing-program", False

    monkeypatch.setattr(guests, "prerequisites", lambda **_: [Need])
    monkeypatch.setattr(machines, "installed", lambda **_: {})
    assert "once the-missing-program is here" in repr(machines.choices())
    monkeypatch.setattr(machines, "installed", lambda **_: {"uml": None})
    assert machines.choices().rows[1][3] == "is there: uml, uml"


def test_the_notebooks_are_listed_with_the_kernel_that_each_asks_for(tmp_path):
    rows = {number: (title, kernel) for number, title, kernel in machines.notebooks(NOTEBOOKS).rows}
    assert rows["00"] == ("What can this machine do?", "Python 3 (ipykernel)")
    assert rows["06"][1] == "with kTLS (user mode)"
    assert "No notebooks lie here" in repr(machines.notebooks(tmp_path))


def test_here_every_suite_has_an_answer():
    shown = machines.suites()
    assert len(shown.head) == 2
    assert [row[0] for row in shown.rows][:1] == ["TLS 1.2 AES-128-GCM"]
    assert {row[1] for row in shown.rows} <= {"TX and RX", "TX", "RX", "no", "yes"}


@pytest.mark.timeout(120)
def test_a_user_mode_kernel_takes_what_this_one_may_not():
    shown = machines.suites("uml")
    lines = {row[0]: row[2] for row in shown.rows}
    assert lines["TLS 1.3 AES-256-GCM"] == "TX and RX"
    assert lines["io_uring"] == "yes"
    assert "uml: Linux " in shown.head[2]


@pytest.mark.timeout(120)
def test_a_first_session_is_the_kernel_s_where_there_is_kernel_tls():
    here, there = machines.session(), machines.session("uml")
    assert f"On Linux {platform.release()}. The server received b'hello'" in here.caption
    if not capabilities.probe().ktls:
        assert "why not the kernel: this kernel has no tls module" in here.caption
        assert machines.where_ktls_is() == "uml"
    assert "The client's record layer: kernel+" in there.caption
    assert there.rows[-1][0] == "/proc/net/tls_stat"
    assert "TlsTxSw +" in there.rows[-1][1]


def test_a_guest_that_does_not_answer_is_an_error_that_says_what_came(monkeypatch):
    def failed(*_arguments, **_options):
        return guests.Completed(returncode=1, stdout=b"", stderr=b"Traceback\nMemoryError")

    monkeypatch.setattr(guests, "run", failed)
    with pytest.raises(GuestError, match="MemoryError"):
        machines.session("uml")


def test_a_kernel_that_does_not_exist_is_refused():
    with pytest.raises(KtlsLabError):
        machines.suites("no-such-kernel")


def test_the_question_that_a_guest_is_asked_is_answered_by_this_python():
    told = {}
    exec(machines._ASK.format("taken"), {"print": lambda line: told.setdefault("line", line)})  # noqa: S102
    assert told["line"].startswith(machines._ANSWER)
