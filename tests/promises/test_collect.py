"""The table: from a journal, even one cut short by a crash, to rows, text and a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ktlslab.errors import KernelUnavailableError, MachineError, TableError, UsageError
from ktlslab.guests import Kernel, cached
from ktlslab.linux import capabilities
from ktlslab.promises import collect as host
from ktlslab.promises import read_scoreboard, scoreboard
from ktlslab.promises.catalogue import named
from ktlslab.promises.check import BROKEN, KEPT, UNTRIED
from ktlslab.promises.journal import Journal, note, note_verdict
from ktlslab.promises.table import PROMISE_COLUMNS, summary
from ktlslab.runs.machines import Machine

ROOT = Path(__file__).parents[2]
NAMES = ["a_send_is_a_record", "msg_eor_ends_the_record", "a_peek_takes_nothing"]
PANIC = """[   13.8] RIP: 0010:__skb_to_sgvec+0x255/0x270
[   13.8] Kernel panic - not syncing: Fatal exception
"""


@pytest.fixture
def ktls_here(monkeypatch):
    """Pretend that this machine, or a guest of its kernel, has kTLS and checks: yield the jobs that each one got."""
    jobs = []

    def once(where, job, journal):
        jobs.append((bool(where.kernel), job.plan))
        note(journal, {"provenance": {"kernel": "x", "run_id": job.run_id}})
        for name in job.plan:
            note(journal, {"began": name})
            if name == NAMES[1]:
                return host.last_words(PANIC)
            note_verdict(journal, name, KEPT, "well", 0.1)
        return ""

    monkeypatch.setattr(host, "_once", once)
    monkeypatch.setattr(host, "machines_of", lambda name, clock, **_: [Machine(name=name, kernel=None, clock=clock)])
    monkeypatch.setattr(capabilities, "ulp", lambda: capabilities.Answer(accepted=True))
    return jobs


def test_a_check_that_takes_the_kernel_along_is_a_row_and_the_rest_goes_on(ktls_here, tmp_path):
    said = []
    frame = scoreboard("here", names=NAMES, output=tmp_path / "p.parquet", say=said.append)
    assert ktls_here == [(False, NAMES), (False, NAMES[2:])]
    assert list(frame["promise"]) == NAMES
    assert list(frame["verdict"]) == [KEPT, BROKEN, KEPT]
    assert frame["seen"][1] == "took the kernel down: Kernel panic - not syncing: Fatal exception, in __skb_to_sgvec"
    assert any("took the kernel down" in line for line in said)
    again = read_scoreboard(tmp_path / "p.parquet")
    assert again.to_dict("records") == frame.to_dict("records") or frame["seconds"].isna().any()
    (run,) = again.attrs["provenance"].values()
    assert run["run_id"] == again["run_id"][0]
    assert json.loads((tmp_path / "p.json").read_text())


@pytest.mark.usefixtures("ktls_here")
def test_the_summary_counts_by_group_and_lists_what_is_broken():
    lines = summary(scoreboard("here", names=NAMES)).split("\n")
    assert lines[0].startswith("here")
    assert lines[0].endswith("  2 kept,   1 broken")
    assert any(line.split() == ["send", "shaping", "1", "kept,", "1", "broken"] for line in lines)
    assert "  broken: msg eor ends the record" in lines


def test_a_guest_that_never_says_a_word_is_started_twice_and_then_an_error(ktls_here, monkeypatch):
    def silent(_where, job, _journal):
        ktls_here.append(job.plan)
        return "the kernel was silent"

    monkeypatch.setattr(host, "_once", silent)
    with pytest.raises(MachineError, match="silent"):
        scoreboard("here", names=NAMES)
    assert len(ktls_here) == 2


def test_a_journal_that_was_cut_short_keeps_what_it_has_and_goes_on(tmp_path):
    path = tmp_path / "journal"
    done = {"promise": "one", "verdict": KEPT, "seen": "", "seconds": 1}
    lines = [{"boot": "a"}, {"began": "one"}, done, {"began": "two"}]
    path.write_text("\n".join([*map(json.dumps, lines), '{"prom']))
    journal = Journal.read(path)
    assert (journal.verdicts, journal.began, journal.boot) == ({"one": done}, "two", "a")
    note_verdict(path, "two", BROKEN, "it went down")
    assert Journal.read(path).verdicts["two"]["seen"] == "it went down"
    note(path, {"began": "three"})
    note(path, {"boot": ""})
    assert Journal.read(path).began is None, "a new start tries it again"


RISKY = "a_reader_already_in_tcp_gets_what_tcp_has"


@pytest.fixture
def own(monkeypatch):
    """own(version, kernel) sets this machine's upstream version, and what is found as its kernel for a guest."""

    def set_to(version, kernel=None):
        def find():
            if kernel is None:
                raise KernelUnavailableError("looking for it", answered="it is nowhere", remedy="Go on.")
            return kernel

        monkeypatch.setattr(host, "_own_version", lambda: version)
        monkeypatch.setattr(host.guests, "own", find)

    return set_to


def test_what_may_take_this_machine_down_is_tried_in_a_guest_of_its_kernel(ktls_here, own):
    own("6.1.176", cached()[0])
    said = []
    frame = scoreboard("here", names=[NAMES[0], RISKY, NAMES[2]], say=said.append)
    assert ktls_here == [(False, [NAMES[0], NAMES[2]]), (True, [RISKY])]
    assert set(frame["verdict"]) == {KEPT}
    assert set(frame["machine"]) == {"here"}
    (run,) = frame.attrs["provenance"].values()
    assert run["in_a_guest"] == [RISKY]
    assert any("CVE-2025-38616" in line and "in a guest" in line for line in said)


def test_without_such_a_guest_it_is_not_tried_and_the_table_says_why(ktls_here, own, tmp_path):
    own("6.1.176")
    scoreboard("here", names=[NAMES[0], RISKY], output=tmp_path / "p.parquet")
    frame = read_scoreboard(tmp_path / "p.parquet").set_index("promise")
    assert ktls_here == [(False, [NAMES[0]])]
    assert frame["verdict"][RISKY] == UNTRIED
    assert "it is nowhere" in frame["seen"][RISKY]
    assert frame["cve"][RISKY] == "CVE-2025-38616"
    assert "not tried: a reader already in tcp" in summary(frame.reset_index())


def test_dangerous_tries_it_here_after_a_warning_and_all_else(ktls_here, own):
    own("6.1.176")
    said = []
    frame = scoreboard("here", names=[RISKY, NAMES[2]], dangerous=True, say=said.append)
    assert ktls_here == [(False, [NAMES[2]]), (False, [RISKY])], "last"
    assert any("WARNING" in line and "CVE-2025-38616" in line for line in said)
    assert list(frame["promise"]) == [RISKY, NAMES[2]], "in the table they keep their order"


def test_in_a_guest_what_endangers_it_comes_last_and_alone(ktls_here, monkeypatch):
    for version, jobs in (("6.1.176-1", [[NAMES[0]], [RISKY]]), ("6.1.192-2", [[RISKY, NAMES[0]]])):
        monkeypatch.setattr(Kernel, "version", version)
        monkeypatch.setattr(
            host, "machines_of", lambda *_, **__: [Machine(name="6.1", kernel=cached()[0], clock="wall")]
        )
        ktls_here.clear()
        frame = scoreboard("6.1", names=[RISKY, NAMES[0]])
        assert ktls_here == [(True, job) for job in jobs]
        assert list(frame["promise"]) == [RISKY, NAMES[0]]


def test_a_mended_kernel_is_in_no_danger(ktls_here, own):
    own("6.1.185")
    assert list(scoreboard("here", names=RISKY)["verdict"]) == [KEPT]
    assert ktls_here == [(False, [RISKY])]


@pytest.mark.parametrize(
    ("version", "danger"),
    [
        *(("6.1.176", True), ("6.1.185", False), ("6.1.192-2", False), ("6.12.42", True), ("6.13.1", True)),
        *(("6.12.118+deb13-amd64", False), ("6.17", False), ("6.17.0-5-generic", False), ("7.3.4-amd64", False)),
        ("odd", True),
    ],
)
def test_a_check_endangers_kernels_before_the_fix_of_their_series(version, danger):
    assert named(RISKY).endangers(version) is danger
    assert not named(NAMES[0]).endangers(version)


def test_an_interrupted_run_goes_on_where_it_was(ktls_here, monkeypatch, tmp_path):
    going = host._once

    def interrupted(where, job, journal):
        going(where, replace(job, plan=job.plan[:1]), journal)
        note(journal, {"began": job.plan[1]})
        raise KeyboardInterrupt

    monkeypatch.setattr(host, "_once", interrupted)
    asked = {"names": [NAMES[0], NAMES[2]], "output": tmp_path / "p.parquet"}
    with pytest.raises(KeyboardInterrupt):
        scoreboard("here", **asked)
    monkeypatch.setattr(host, "_once", going)
    with pytest.raises(UsageError, match="--resume"):
        scoreboard("here", **asked)
    monkeypatch.setattr(host, "machines_of", lambda *_, **__: [Machine(name="6.1", kernel=cached()[0], clock="wall")])
    with pytest.raises(UsageError, match="there are verdicts of others"):
        scoreboard("6.1", resume=True, **asked)
    monkeypatch.setattr(host, "machines_of", lambda *_, **__: [Machine(name="here", kernel=None, clock="wall")])
    frame = scoreboard("here", resume=True, **asked)
    assert [plan for _, plan in ktls_here] == [NAMES[:1], NAMES[2:]]
    assert list(frame["verdict"]) == [KEPT, KEPT], "the check that was interrupted is tried again"
    assert frame["run_id"].nunique() == 1
    assert {path.name for path in tmp_path.iterdir()} == {"p.parquet", "p.json"}


def test_the_check_that_took_this_machine_down_is_broken_after_its_next_start(ktls_here, monkeypatch, tmp_path):
    def down(_where, job, journal):
        note(journal, {"provenance": {"run_id": job.run_id}})
        note_verdict(journal, job.plan[0], KEPT, "well", 0.1)
        note(journal, {"began": job.plan[1]})
        raise KeyboardInterrupt  # for the test, a panic is the end of the process that waits

    going = host._once
    monkeypatch.setattr(host, "_once", down)
    asked = {"names": NAMES, "output": tmp_path / "p.parquet"}
    with pytest.raises(KeyboardInterrupt):
        scoreboard("here", **asked)
    monkeypatch.setattr(host, "_once", going)
    monkeypatch.setattr(host, "boot_id", lambda: "another boot")
    frame = scoreboard("here", resume=True, **asked).set_index("promise")
    assert frame["verdict"][NAMES[1]] == BROKEN
    assert "this machine started anew" in frame["seen"][NAMES[1]]
    assert [plan for _, plan in ktls_here] == [[NAMES[2]]]


def test_an_old_table_is_read_as_one_without_dangerous_checks(tmp_path):
    frame = read_scoreboard(ROOT / "data" / "promises.parquet")
    frame.drop(columns="cve").to_parquet(tmp_path / "old.parquet")
    old = read_scoreboard(tmp_path / "old.parquet")
    assert list(old.columns) == list(PROMISE_COLUMNS)
    assert set(old["cve"]) == {""}


def test_what_cannot_be_meant_is_said(tmp_path):
    with pytest.raises(UsageError, match="none called nonsense"):
        scoreboard("here", names=["nonsense"])
    with pytest.raises(UsageError, match="parquet"):
        scoreboard("here", output=tmp_path / "p.csv")
    with pytest.raises(UsageError, match="without `output`"):
        scoreboard("here", names=NAMES, resume=True)
    with pytest.raises(TableError, match="ktlslab promises -o"):
        read_scoreboard(tmp_path / "none.parquet")


def test_a_machine_without_ktls_is_an_error_that_names_the_way_out():
    assert not capabilities.ulp(), "this test is about a machine without kTLS; tests/kernel has the other half"
    with pytest.raises(MachineError, match="--on newest"):
        scoreboard("here")
