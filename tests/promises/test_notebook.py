"""Notebook 04 runs to its end on the recorded table, which has every promise."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ktlslab.promises import all_promises, read_scoreboard
from ktlslab.promises.check import UNTRIED
from ktlslab.show import notebooks, scoreboard

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "04-what-each-kernel-keeps.ipynb"


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


@pytest.fixture
def executed(tmp_path, monkeypatch):
    for variable in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return notebooks.execute(NOTEBOOK, tmp_path / NOTEBOOK.name)


def test_it_shows_the_map_and_the_source_of_every_check(executed):
    cells = {cell["id"]: cell for cell in json.loads(executed.read_text())["cells"]}
    shown = {name: json.dumps(cell.get("outputs", [])) for name, cell in cells.items()}
    assert [path.name for path in notebooks.pictures_of(executed)] == ["04-what-each-kernel-keeps-overview.png"]
    assert "kept by every kernel" in shown["words"]
    for promise in all_promises():
        assert f"def {promise.name}(" in shown["all"]
    assert "def a_plain_receive_loses_no_control_record" in shown["check"]
