"""The journal survives what a kill leaves of it; the table says what it is, or says what is wrong with it."""

import json

import pytest

from ktlslab.errors import StorageError, TableError
from ktlslab.measure.table import COLUMNS, Journal, mend_journal, read_table, to_frame, write_table


def row(**changed):
    return {name: kind() for name, kind, _ in COLUMNS} | changed


def line(entry):
    return json.dumps(entry) + "\n"


def test_an_unfinished_last_line_costs_only_itself(tmp_path):
    path = tmp_path / "t.parquet.rows.jsonl"
    path.write_text(line({"provenance": {"run_id": "r"}}) + line(row(repeat=1)) + line(row(repeat=2))[:-20])
    journal = Journal.read(path)
    assert [r["repeat"] for r in journal.rows] == [1]
    assert set(journal.runs) == {"r"}
    mend_journal(path)
    with path.open("a") as out:
        out.write(line(row(repeat=3)))
    assert [r["repeat"] for r in Journal.read(path).rows] == [1, 3]


def test_a_damaged_journal_is_named_with_its_line(tmp_path):
    path = tmp_path / "j"
    path.write_text(line(row()) + "garbage\n" + line(row()))
    with pytest.raises(TableError, match="line 2"):
        Journal.read(path)


def test_a_table_comes_back_with_types_and_provenance(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(to_frame([row(suite="", latency_p50=1.5)], {"r": {"kernel": "k"}}), path)
    frame = read_table(path)
    assert list(frame.columns) == [name for name, _, _ in COLUMNS]
    assert frame.latency_p50.tolist() == [1.5]
    assert frame.attrs["provenance"] == {"r": {"kernel": "k"}}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.json", "t.parquet"]


def test_a_row_that_lacks_a_column_is_refused():
    incomplete = row()
    del incomplete["payload_ok"]
    with pytest.raises(TableError, match="payload_ok"):
        to_frame([incomplete], {})


def test_reading_what_is_no_table_says_so(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_text("no parquet")
    with pytest.raises(TableError, match="ktlslab sweep"):
        read_table(path)
    with pytest.raises(TableError, match=r"missing.parquet"):
        read_table(tmp_path / "missing.parquet")


def test_a_table_that_cannot_be_written_names_the_place_where_the_rows_are(tmp_path):
    target = tmp_path / "folder.parquet"
    target.mkdir()
    (target / "occupied").touch()
    with pytest.raises(StorageError, match=r"rows are safe in .*folder.parquet.rows.jsonl"):
        write_table(to_frame([row()], {}), target)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.parquet"]
