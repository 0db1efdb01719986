"""Tables are checked when written and read; tables that are not comparable are not merged."""

import json
import math

import pandas as pd
import pytest

from ktlslab.errors import StorageError, TableError
from ktlslab.measure.table import NAMES, SCHEMA, check, comparable, merge, read_table, to_frame, write_table

PLAN = {"steps": 8, "handicap": ""}
RUN = {"clock": "wall", "commit": "c0ffee", "packages": {"ktlslab": "1"}, "plan": PLAN, "python": "3.13", "cpu": "x"}


def row(**changed):
    """Return a valid row."""
    values = {name: {str: "", int: 1, float: 1.0, bool: True, object: [[1.0, 3]]}[kind] for name, kind, _ in SCHEMA}
    values |= {"run_id": "r", "machine": "here", "kernel": "7.3", "clock": "wall", "unit": "ns", "workload": "echo"}
    values |= {"record_layer": "plain", "record_layer_observed": "plain", "io_engine": "uring", "link": "loopback"}
    return values | changed


def table(*rows, **runs):
    return to_frame(list(rows), {"r": RUN} | runs)


def test_a_table_comes_back_with_types_values_and_provenance(tmp_path):
    path = tmp_path / "t.parquet"
    histogram = [[1.5, 2], [2.5, 1]]
    given = row(
        suite="", latency_min=1.0, latency_p50=1.5, latency_p99=2.5, latency_max=2.5, latency_histogram=histogram
    )
    write_table(table(given), path)
    frame = read_table(path)
    assert list(frame.columns) == list(NAMES)
    assert frame.iloc[0].to_dict() == given
    assert all(type(count) is int for _, count in frame.latency_histogram.iloc[0])
    assert frame.attrs["provenance"] == {"r": RUN}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.json", "t.parquet"]


def test_provenance_is_not_lost_with_the_file_beside_the_table(tmp_path):
    write_table(table(row()), tmp_path / "t.parquet")
    (tmp_path / "t.json").unlink()
    assert read_table(tmp_path / "t.parquet").attrs["provenance"] == {"r": RUN}


SUITE = "TLS_AES_128_GCM_SHA256"
WRONG = {
    "a record layer that is none": ({"record_layer": "magic", "suite": SUITE}, "record_layer is 'magic'"),
    "an engine that is none": ({"io_engine": "epoll"}, "io_engine is 'epoll'"),
    "a workload that is none": ({"workload": "sideways"}, "workload is 'sideways'"),
    "a clock that is none": ({"clock": "sundial"}, "clock is 'sundial'"),
    "another clock's unit": ({"unit": "instructions"}, "unit is 'instructions', which is not the unit of its clock"),
    "plain TCP with a suite": ({"suite": SUITE}, f"suite is '{SUITE}'"),
    "TLS without a suite": ({"record_layer": "kernel"}, "suite is ''"),
    "no operation": ({"operations": 0}, "operations is .*not above 0"),
    "a negative time": ({"client_user": -0.5}, "client_user is .*below 0"),
    "a cost of nothing": ({"client_cpu": 0.0}, "client_cpu is .*not above 0"),
    "an endless time": ({"peer_cpu": math.inf}, "peer_cpu is .*not a finite number"),
    "no figure where there must be one": ({"latency_p99": math.nan}, "latency_p99 is nan"),
    "a median above the maximum": ({"latency_p50": 2.0}, "latency_p50 is 2.0, above latency_p99"),
    "no proof": ({"payload_ok": False}, "payload_ok is .*needs this proof"),
    "an empty histogram": ({"latency_histogram": []}, r"latency_histogram is \[\]"),
    "a histogram that goes back": ({"latency_histogram": [[2.0, 1], [1.0, 1]]}, "latency_histogram"),
    "a histogram of half a step": ({"latency_histogram": [[2.0, 0.5]]}, "latency_histogram"),
    "a histogram that is none": ({"latency_histogram": 7}, "latency_histogram is 7"),
    "a run that no one knows": ({"run_id": "s"}, r"run s\): run_id is 's', a run whose provenance is missing"),
    "a sample twice": ({"repeat": 1, "position": 9}, "repeat is .*has that sample already"),
}


@pytest.mark.parametrize(("changed", "said"), WRONG.values(), ids=WRONG)
def test_what_breaks_the_schema_is_named_with_its_place_and_neither_written_nor_read(changed, said, tmp_path):
    path = tmp_path / "t.parquet"
    frame = table(row(), row(repeat=2, **changed) if "repeat" not in changed else row(**changed))
    with pytest.raises(TableError, match=rf"writing .*: row 1 .*{said}"):
        write_table(frame, path)
    assert not path.exists()
    if changed.get("latency_histogram") != 7:  # Parquet itself does not accept that one
        frame.to_parquet(path)
        with pytest.raises(TableError, match=rf"reading .*: row 1 .*{said}"):
            read_table(path)


NAN_TELLS = sorted(name for name, _, meaning in SCHEMA if "NaN" in meaning)


@pytest.mark.parametrize("name", NAN_TELLS)
def test_no_figure_is_a_figure_where_the_columns_meaning_says_so(name, tmp_path):
    write_table(table(row(**{name: math.nan})), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")[name].isna().all()
    with pytest.raises(TableError, match=f"{name} is -1"):
        check(table(row(**{name: -1.0})))


def test_a_row_or_a_table_of_an_older_version_is_refused_with_what_it_lacks(tmp_path):
    incomplete = row()
    del incomplete["payload_ok"]
    with pytest.raises(TableError, match=r"payload_ok.*another version"):
        table(incomplete)
    table(row()).drop(columns=["replica", "position"]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"lacks the columns replica, position.*another version"):
        read_table(tmp_path / "t.parquet")


def test_columns_of_other_names_or_types_are_refused():
    with pytest.raises(TableError, match="unknown columns: mood"):
        check(table(row()).assign(mood="good"))
    with pytest.raises(TableError, match="column depth holds float64, not int"):
        check(table(row()).astype({"depth": float}))
    with pytest.raises(TableError, match="column kernel holds float64, not str"):
        check(table(row()).assign(kernel=7.3))


def test_reading_what_is_no_table_says_so(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_text("no parquet")
    with pytest.raises(TableError, match="ktlslab sweep"):
        read_table(path)
    with pytest.raises(TableError, match=r"missing.parquet: there is no such file\. Give"):
        read_table(tmp_path / "missing.parquet")
    write_table(table(row()), path)
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(TableError, match="ktlslab sweep"):
        read_table(path)


def test_a_table_that_cannot_be_written_names_the_place_where_the_rows_are(tmp_path):
    target = tmp_path / "folder.parquet"
    target.mkdir()
    (target / "occupied").touch()
    with pytest.raises(StorageError, match=r"rows are safe in .*folder.parquet.rows"):
        write_table(table(row()), target)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.parquet"]


def another(run="s", **changed):
    """Return a table of one row from another run, with these changes to its provenance."""
    return to_frame([row(run_id=run)], {run: RUN | changed})


ALIKE = {
    "the code's commit": {"commit": "decade"},
    "ktlslab's version": {"packages": {"ktlslab": "2"}},
    "the plan's steps": {"plan": PLAN | {"steps": 9}},
    "the arm slowed on purpose": {"plan": PLAN | {"handicap": "kernel+uring: 0.03"}},
    "Python": {"python": "3.14"},
    "the client's OpenSSL": {"client_openssl": "4"},
    "the peer's OpenSSL": {"peer_openssl": "4"},
    "what the CPU can do for a cipher": {"cpu_flags": ["aes"]},
    "the CPU": {"cpu": "y"},
    "the host's CPU": {"host_cpu": "z"},
    "the CPU's governor": {"governor": "powersave"},
    "whether the CPU is emulated": {"emulated": True},
}


@pytest.mark.parametrize(("words", "changed"), ALIKE.items(), ids=ALIKE)
def test_tables_that_are_not_comparable_are_not_merged_and_the_runs_are_named(words, changed):
    (reason,) = comparable(table(row()), another(**changed))
    assert reason.startswith(f"{words} is ")
    assert "in run r and" in reason
    assert reason.endswith("in run s")
    with pytest.raises(TableError, match=f"merging table 2.*{words} is"):
        merge([table(row()), another(**changed)])


def test_times_and_instructions_are_not_merged_but_counts_of_two_processors_are():
    counted = {"clock": "instructions", "unit": "instructions"}
    instructions = to_frame([row(**counted)], {"r": RUN | {"clock": "instructions"}})
    assert comparable(table(row()), instructions) == ["the unit is ns in one and instructions in the other"]
    elsewhere = to_frame([row(run_id="s", **counted)], {"s": RUN | {"clock": "instructions", "cpu": "y"}})
    assert comparable(instructions, elsewhere) == []
    assert len(merge([instructions, elsewhere])) == 2


def test_kernels_and_hosts_are_merged_and_all_provenance_is_kept(tmp_path):
    other = to_frame([row(run_id="s", kernel="6.1", machine="6.1", host="b")], {"s": RUN, "unused": RUN})
    merged = merge([table(row()), other])
    assert merged.repeat.tolist() == [1, 1]
    write_table(merged, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").attrs["provenance"] == {"r": RUN, "s": RUN}


def test_what_is_in_both_is_not_doubled():
    whole = table(row(), row(repeat=2), row(repeat=3, run_id="s"), s=RUN)
    pd.testing.assert_frame_equal(merge([whole, table(row(repeat=2))]), whole)
    pd.testing.assert_frame_equal(merge([table(row()), whole]), whole)


def test_two_runs_of_the_same_plan_stay_as_they_were_measured():
    first = table(row(repeat=0), row(repeat=1))
    second = first.assign(run_id="s", elapsed=7)
    second.attrs["provenance"] = {"s": RUN}
    merged = merge([first, second, first])
    assert merged[["run_id", "repeat", "elapsed"]].to_numpy().tolist() == [
        ["r", 0, 1],
        ["r", 1, 1],
        ["s", 0, 7],
        ["s", 1, 7],
    ]


def test_provenance_lies_beside_the_table_for_a_person_to_read(tmp_path):
    write_table(table(row()), tmp_path / "t.parquet")
    assert json.loads((tmp_path / "t.json").read_text()) == {"r": RUN}
