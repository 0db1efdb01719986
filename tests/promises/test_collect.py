"""The table: from a journal, even one cut short by a crash, to rows, text and a file."""

from __future__ import annotations

import json

import pytest

from ktlslab.errors import MachineError, TableError, UsageError
from ktlslab.linux import capabilities
from ktlslab.promises import collect as host
from ktlslab.promises import read_scoreboard, scoreboard
from ktlslab.promises.check import BROKEN, KEPT
from ktlslab.runs.machines import Machine

NAMES = ["a_send_is_a_record", "msg_eor_ends_the_record", "a_peek_takes_nothing"]
PANIC = """[   13.8] RIP: 0010:__skb_to_sgvec+0x255/0x270
[   13.8] Kernel panic - not syncing: Fatal exception
"""


@pytest.fixture
def kernel_dies_once(monkeypatch):
    """Simulate a machine whose kernel crashes in the second check; return the jobs that it got."""
    jobs = []

    def once(_where, job, _scratch, _image):
        jobs.append(job.plan)
        journal = host._Journal(provenance={"kernel": "x"})
        for name in job.plan:
            if name == NAMES[1]:
                journal.began = name
                return journal, host.last_words(PANIC)
            journal.verdicts[name] = {"verdict": KEPT, "seen": "well", "seconds": 0.1}
        return journal, ""

    monkeypatch.setattr(host, "_once", once)
    monkeypatch.setattr(host, "machines_of", lambda name, clock: [Machine(name=name, kernel=None, clock=clock)])
    monkeypatch.setattr(capabilities, "ulp", lambda: capabilities.Answer(accepted=True))
    return jobs


def test_a_check_that_takes_the_kernel_along_is_a_row_and_the_rest_goes_on(kernel_dies_once, tmp_path):
    said = []
    frame = scoreboard("here", names=NAMES, output=tmp_path / "p.parquet", say=said.append)
    assert kernel_dies_once == [NAMES, NAMES[2:]]
    assert list(frame["promise"]) == NAMES
    assert list(frame["verdict"]) == [KEPT, BROKEN, KEPT]
    assert frame["seen"][1] == "the kernel went down: panic, Fatal exception, in __skb_to_sgvec"
    assert any("went down" in line for line in said)
    again = read_scoreboard(tmp_path / "p.parquet")
    assert again.to_dict("records") == frame.to_dict("records") or frame["seconds"].isna().any()
    (run,) = again.attrs["provenance"].values()
    assert run["run_id"] == again["run_id"][0]
    assert json.loads((tmp_path / "p.json").read_text())


@pytest.mark.usefixtures("kernel_dies_once")
def test_the_summary_counts_by_group_and_lists_what_is_broken():
    lines = host.summary(scoreboard("here", names=NAMES)).split("\n")
    assert lines[0].startswith("here")
    assert lines[0].endswith("  2 kept,   1 broken")
    assert any(line.split() == ["send", "shaping", "1", "kept,", "1", "broken"] for line in lines)
    assert "  broken: msg eor ends the record" in lines


def test_a_guest_that_never_says_a_word_is_started_twice_and_then_an_error(kernel_dies_once, monkeypatch):
    def silent(_where, job, _scratch, _image):
        kernel_dies_once.append(job.plan)
        return host._Journal(), "the kernel was silent"

    monkeypatch.setattr(host, "_once", silent)
    with pytest.raises(MachineError, match="silent"):
        scoreboard("here", names=NAMES)
    assert len(kernel_dies_once) == 2


def test_a_journal_that_was_cut_short_keeps_what_it_has(tmp_path):
    path = tmp_path / "journal"
    done = {"promise": "one", "verdict": KEPT, "seen": "", "seconds": 1}
    path.write_text("\n".join([json.dumps({"began": "one"}), json.dumps(done), json.dumps({"began": "two"}), '{"prom']))
    journal = host._Journal.read(path)
    assert journal.verdicts == {"one": done}
    assert journal.began == "two"


def test_what_cannot_be_meant_is_said(tmp_path):
    with pytest.raises(UsageError, match="none called nonsense"):
        scoreboard("here", names=["nonsense"])
    with pytest.raises(UsageError, match="parquet"):
        scoreboard("here", output=tmp_path / "p.csv")
    with pytest.raises(TableError, match="ktlslab promises -o"):
        read_scoreboard(tmp_path / "none.parquet")


def test_a_machine_without_ktls_is_an_error_that_names_the_way_out():
    assert not capabilities.ulp(), "this test is about a machine without kTLS; tests/kernel has the other half"
    with pytest.raises(MachineError, match="--on newest"):
        scoreboard("here")
