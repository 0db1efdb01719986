"""The printed matrix, and how it is recorded."""

from __future__ import annotations

import json
from dataclasses import asdict

import pandas as pd

from ktlslab.show.interop import INTEROP_COLUMNS, read_interop
from tests.interop.recording import record
from tests.interop.running import ALL, ARMS, Chosen, Row
from tests.interop.stacks import DEFAULT, FEATURES
from tests.interop.table import recorded, table

ROW = {
    "role": "client",
    "stack": "nginx",
    "library": "OpenSSL",
    "package": "nginx",
    "stack_version": "1",
    "suite": "TLS_AES_128_GCM_SHA256",
    "tls": "TLS 1.3",
    "feature": "default",
    "record_layer": "kernel",
    "io_engine": "uring",
    "outcome": "right",
}


def rows(machine, *outcomes):
    known = {"machine": machine, "kernel": f"{machine}-test", "run_id": f"run-{machine}"}
    return [{**asdict(Row(**{**ROW, "outcome": outcome})), **known} for outcome in outcomes]


def test_what_is_wrong_and_what_is_left_out_is_named_below_the_counts():
    said = table([*rows("a", "right", "AlertError: no"), *rows("b", "right", "left out: it does not start")])
    assert "2 of 4" in said.split("\n")[1]
    assert "WRONG: a-test, nginx, TLS_AES_128_GCM_SHA256, default, kernel, uring, AlertError: no" in said
    assert "nginx, default: left out: it does not start (b-test)" in said
    assert "2 of 4 cells right on a-test, b-test" in said


def test_rows_travel_by_the_report_of_the_tests(tmp_path):
    (row,) = rows("a", "right")
    value = json.dumps(row).replace('"', "&quot;")
    held = f'<properties><property name="interop" value="{value}"/></properties>'
    (tmp_path / "here.xml").write_text(f"<testsuite><testcase>{held}</testcase></testsuite>")
    assert recorded(tmp_path / "here.xml") == [row]
    assert recorded(tmp_path / "none.xml") == []


def test_a_kernel_that_runs_again_replaces_its_rows_and_no_others(tmp_path):
    path = tmp_path / "t.parquet"
    record(rows("a", "right", "right"), {"run-a": {"commit": "1"}}, path)
    record(rows("b", "right"), {"run-b": {"commit": "2"}}, path)
    again = [{**row, "run_id": "run-c"} for row in rows("a", "wrong")]
    record(again, {"run-c": {"commit": "3"}}, path)
    read = read_interop(path)
    assert list(zip(read["machine"], read["outcome"], strict=True)) == [("b", "right"), ("a", "wrong")]
    assert set(read.attrs["provenance"]) == {"run-b", "run-c"}
    assert list(pd.DataFrame(rows("a", "right")).columns.sort_values()) == sorted(INTEROP_COLUMNS)


def test_cells_that_run_again_replace_themselves_and_no_others(tmp_path):
    path = tmp_path / "t.parquet"
    wrong, kept = rows("a", "wrong", "right")
    wrong["suite"], kept["suite"] = "one", "other"
    record([wrong, kept], {"run-a": {"commit": "1"}}, path)
    record([{**wrong, "outcome": "right", "run_id": "run-b"}], {"run-b": {"commit": "2"}}, path, whole=False)
    read = read_interop(path)
    assert list(zip(read["suite"], read["outcome"], strict=True)) == [("one", "right"), ("other", "right")]
    assert set(read.attrs["provenance"]) == {"run-a", "run-b"}


def test_the_chosen_part_holds_every_stack_in_its_versions_every_feature_and_both_engines():
    chosen = Chosen(thin=True)
    seen = {(stack.name, type(stack)): list(chosen.cells(stack)) for stack in chosen.stacks()}
    assert len(seen) == len(ALL)
    for stack in ALL:
        (_, cells), *_ = (pair for pair in seen[stack.name, type(stack)] if pair[0] == DEFAULT)
        assert {suite.version for suite, _ in cells} == {suite.version for suite in stack.suites}
    assert {feature for found in seen.values() for feature, _ in found} == set(FEATURES)
    assert {arm for found in seen.values() for _, cells in found for _, arm in cells} == set(ARMS)
