"""A kernel that really panics, in a guest, costs one row, and the panic is what the row says.

A user-mode kernel in the first test, one on an emulated CPU in the second.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ktlslab.guests import fetch
from ktlslab.linux import capabilities
from ktlslab.promises import catalogue, collect, read_scoreboard, scoreboard
from ktlslab.promises.check import BROKEN, KEPT
from tests.promises import panicking

ROOT = Path(__file__).parents[2]
PANIC = "took the kernel down: Kernel panic - not syncing: sysrq triggered crash"


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """Replace the catalogue, here and in the guest."""
    monkeypatch.setattr(catalogue, "all_promises", panicking.everything)
    monkeypatch.setattr(collect, "_CHECKER", panicking.__name__)
    monkeypatch.chdir(ROOT)


def test_a_panic_costs_one_row_and_the_rest_is_checked_in_a_new_guest(tmp_path):
    said = []
    scoreboard("uml", output=tmp_path / "p.parquet", say=said.append)
    frame = read_scoreboard(tmp_path / "p.parquet").set_index("promise")
    assert dict(frame["verdict"]) == {
        "before": KEPT,
        "the_kernel_goes_down": BROKEN,
        "after": KEPT,
        "it_was_known_to_be_dangerous": BROKEN,
    }
    assert frame["seen"]["the_kernel_goes_down"] == PANIC
    assert frame["seen"]["it_was_known_to_be_dangerous"] == PANIC
    assert [line.partition(": ")[2] for line in said if "to check" in line] == [
        "3 to check",
        "1 to check",
        "1 to check",
    ]
    assert frame["kernel"].nunique() == frame["run_id"].nunique() == 1


def test_this_machines_own_kernel_panics_in_a_guest_of_it(monkeypatch):
    monkeypatch.setattr(capabilities, "ulp", lambda: capabilities.Answer(accepted=True))
    monkeypatch.setattr(collect.guests, "own", lambda: fetch("oldest"))
    frame = scoreboard("here").set_index("promise")
    assert set(frame["machine"]) == {"here"}
    assert frame["seen"]["it_was_known_to_be_dangerous"] == PANIC
    assert list(frame["verdict"]) == [KEPT, KEPT, KEPT, BROKEN]
