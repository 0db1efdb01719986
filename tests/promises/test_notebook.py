"""The recorded table of notebook 04 has every promise; tests/notebooks executes it."""

from __future__ import annotations

import re
from pathlib import Path

from ktlslab.promises import all_promises, read_scoreboard
from ktlslab.promises.check import UNTRIED
from ktlslab.show import scoreboard

ROOT = Path(__file__).parents[2]


def test_the_recorded_table_has_every_promise_on_three_kernels_or_more():
    frame = read_scoreboard(ROOT / "data" / "promises.parquet")
    names = {promise.name for promise in all_promises()}
    for _, rows in frame.groupby("kernel"):
        assert set(rows["promise"]) == names
    assert frame["kernel"].nunique() >= 3
    assert UNTRIED not in set(frame["verdict"]), "a guest tries all"
    assert set(frame["run_id"]) == set(frame.attrs["provenance"])


def test_user_mode_kernels_stand_beside_the_nearest_of_their_series():
    frame = read_scoreboard(ROOT / "data" / "promises.parquet")
    text = scoreboard.of_user_mode(frame).text
    assert len(text.splitlines()) == frame["machine"][frame["machine"].str.startswith("uml-")].nunique() == 3
    assert re.search(r"Linux 6\.1\.176 \(user mode\) and Linux 6\.1\.0-52-amd64, which is 6\.1\.180, differ in 0", text)
    alone = scoreboard.of_user_mode(frame[frame["machine"] == "uml-6.12"]).text
    assert "there is no other kernel of its series here" in alone
