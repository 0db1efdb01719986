"""Every check ends in a verdict (kept, broken or not in this kernel), even if it hangs or crashes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from ktlslab.promises import checker
from ktlslab.promises.check import ABSENT, BROKEN, KEPT, TLS12, TLS13, Absent, Broken
from ktlslab.promises.elsewhere import Elsewhere
from ktlslab.promises.pair import DATA, Pair

# Threads of other tests' libraries do not matter: the child does not use them.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def running(pid):
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_check_that_returns_is_kept_with_what_it_saw(made_up):
    def check(pair):
        """Plain TCP passes bytes."""
        pair.sock.sendall(b"over")
        pair.expect("the peer got", pair.peer.sock.recv(64), b"over")

    assert checker.judge(made_up(check)) == (KEPT, "the peer got: b'over'")


def test_another_answer_than_promised_is_broken_and_both_are_told(made_up):
    promise = made_up(lambda pair: pair.expect("recv", pair.recv_now(64), b"what never came"))
    assert checker.judge(promise) == (BROKEN, "recv: EAGAIN; promised: b'what never came'")


def test_bytes_that_only_differ_inside_are_told_apart(made_up):
    promise = made_up(lambda pair: pair.expect("data", b"a" * 40 + b"b" * 10, b"a" * 50))
    assert checker.judge(promise)[1] == "data: 50 bytes, others from byte 40 on, b'bbbbbbbb'; promised: 50 bytes"


def test_a_refusal_that_means_no_such_thing_is_not_broken(made_up):
    promise = made_up(lambda pair: pair.needs("an option", "ENOPROTOOPT", "ENOPROTOOPT"))
    assert checker.judge(promise) == (ABSENT, "an option: ENOPROTOOPT")


def test_a_check_that_hangs_is_broken_and_ended_with_all_it_started(made_up, tmp_path):
    def check(_pair):
        """Hang, and leave a child that hangs, too."""
        (tmp_path / "pid").write_text(str(Elsewhere(lambda: time.sleep(60)).pid))
        time.sleep(60)

    began = time.monotonic()
    assert checker.judge(made_up(check), within=3) == (BROKEN, "TLS 1.3: hung: no answer within 3 s")
    assert time.monotonic() - began < 30
    pid, deadline = int((tmp_path / "pid").read_text()), time.monotonic() + 5
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not running(pid)


def test_a_check_that_raises_or_dies_is_a_verdict(made_up):
    def raising(_pair):
        """Raise."""
        return {}["nothing"]

    def dying(_pair):
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)

    verdict, seen = checker.judge(made_up(raising))
    assert verdict == BROKEN
    assert seen.startswith("KeyError: 'nothing'")
    assert checker.judge(made_up(dying, suites=TLS13)) == (BROKEN, "the process that checked was ended")


def test_an_errno_that_no_check_expected_says_where(made_up):
    def check(pair):
        """Use a closed socket."""
        pair.expect("so far", 1, 1)
        pair.sock.close()
        pair.sock.getpeername()

    verdict, seen = checker.judge(made_up(check))
    assert verdict == BROKEN
    assert "EBADF" in seen
    assert "after so far: 1" in seen


def test_suites_are_summed_up_broken_first_and_named(made_up):
    def check(pair):
        """Answer by suite."""
        if pair.suite in TLS12:
            raise Broken("1.2 does not")
        raise Absent("nor is it there")

    assert checker.judge(made_up(check)) == (BROKEN, "TLS 1.2: 1.2 does not")


def test_a_suite_that_lacks_it_does_not_spoil_one_that_keeps_it(made_up):
    def check(pair):
        """Answer by suite."""
        pair.needs("here", "no" if pair.suite in TLS12 else "yes", "no")
        pair.expect("here", "yes", "yes")

    assert checker.judge(made_up(check)) == (KEPT, "TLS 1.3: here: yes")


def test_the_journal_says_what_began_and_how_it_ended(made_up, tmp_path):
    def check(pair):
        """Keep it."""
        pair.expect("one", 1, 1)

    journal = tmp_path / "journal"
    checker.check_all([made_up(check)], journal)
    began, ended = map(json.loads, journal.read_text().splitlines())
    assert began == {"began": "check"}
    assert (ended["promise"], ended["verdict"], ended["seen"]) == ("check", KEPT, "one: 1")


def test_the_peer_by_hand_opens_what_its_like_seals():
    with Pair(TLS13[0], None) as pair:
        pair.peer.opening = pair.peer.sealing
        pair.sock.sendall(pair.peer.seal(b"one") + pair.peer.seal(b"two", 22, padding=9))
        assert pair.peer.records(2) == [(DATA, b"one"), (22, b"two")]
        assert pair.peer.quiet() == []
