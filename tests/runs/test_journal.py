"""A journal can be read after its writer was killed."""

import json

import pytest

from ktlslab.errors import TableError
from ktlslab.runs.journal import Journal, journal_path, run_path


def line(entry):
    return json.dumps(entry) + "\n"


def test_an_unfinished_last_line_costs_only_itself(tmp_path):
    whole = line({"provenance": {"run_id": "1"}}) + line({"repeat": 1})
    run_path(tmp_path, "1").write_text(whole + line({"repeat": 2})[:-5])
    run_path(tmp_path, "2").write_text(line({"provenance": {"run_id": "2"}}) + line({"repeat": 2}))
    journal = Journal.read(tmp_path)
    assert [row["repeat"] for row in journal.rows] == [1, 2]
    assert set(journal.runs) == {"1", "2"}


def test_what_is_known_at_a_runs_end_replaces_what_was_known_at_its_start(tmp_path):
    told = [line({"provenance": {"run_id": "1", "unusual": notes}}) for notes in ([], ["hot"])]
    run_path(tmp_path, "1").write_text("".join(told))
    assert Journal.read(tmp_path).runs["1"]["unusual"] == ["hot"]


@pytest.mark.parametrize("damage", ["garbage", "7", "\x00\xff"])
def test_a_damaged_journal_is_named_with_its_line(tmp_path, damage):
    run_path(tmp_path, "1").write_text(line({"repeat": 1}) + damage + "\n" + line({"repeat": 2}))
    with pytest.raises(TableError, match=r"1\.jsonl: line 2"):
        Journal.read(tmp_path)


def test_a_journal_is_read_as_it_was_written_and_never_written_over(tmp_path):
    made = Journal(
        rows=[{"run_id": run, "repeat": repeat} for run in ("1", "2") for repeat in (0, 1)],
        runs={run: {"run_id": run} for run in ("1", "2")},
    )
    folder = tmp_path / "t.rows"
    made.write(folder)
    assert Journal.read(folder) == made
    with pytest.raises(OSError, match="not empty"):
        Journal().write(folder)
    assert Journal.read(folder) == made
    assert list(tmp_path.iterdir()) == [folder]


def test_a_journal_that_is_not_there_is_empty(tmp_path):
    assert Journal.read(journal_path(tmp_path / "t.parquet")) == Journal()
