"""What data/ records can be read, says where it comes from, and comes out the same when some of it is measured anew."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ktlslab.measure.analysis import effects, false_alarms
from ktlslab.measure.blocks import cell_of
from ktlslab.measure.plan import Plan
from ktlslab.measure.sweeping import sweep
from ktlslab.measure.table import read_table

DATA = Path(__file__).resolve().parents[1] / "data"
TABLES = ("quick", "standard", "standard-wall")
CELL = ["record_layer", "io_engine", "suite", "payload_bytes"]
# What a rerun of the same kernel and libraries may be off, and what it may be off where an archive has moved on. A part
# of a plan is not the plan: fewer sessions and settings shift an operation by some hundred instructions, which is a
# percent of the cheapest ones.
SAME, SIMILAR = 0.02, 0.06


@pytest.mark.parametrize("name", TABLES)
def test_a_recorded_table_is_whole(name):
    frame = read_table(DATA / f"{name}.parquet")
    runs = frame.attrs["provenance"]
    assert set(frame["run_id"]) == set(runs)
    assert {run["plan"]["name"] for run in runs.values()} == {name.partition("-")[0]}
    assert all(run["commit"] and not run["commit"].endswith("-dirty") for run in runs.values())
    found = effects(frame)
    assert {"kTLS", "io_uring", "interaction", "TLS tax", "A/A"} <= set(found["effect"])
    assert (found["floor"] >= 1).all()


def test_the_standard_plan_was_recorded_on_three_kernels_by_instructions_and_on_one_in_time():
    counted, timed = (read_table(DATA / f"{name}.parquet") for name in TABLES[1:])
    assert counted.groupby("machine")["unit"].unique().map(list).tolist() == [["instructions"]] * 3
    assert [list(timed[name].unique()) for name in ("machine", "unit")] == [[max_series(counted)], ["ns"]]


@pytest.mark.parametrize("name", ["equal-arms", "equal-arms-here"])
def test_of_equal_arms_that_really_ran_five_in_a_hundred_at_most_are_said_to_differ(name, record_property):
    alarms, comparisons = false_alarms(read_table(DATA / f"{name}.parquet"))
    record_property("false alarms", f"{alarms} of {comparisons}")
    assert comparisons > 400
    assert alarms / comparisons <= 0.05


def test_what_is_recorded_is_small():
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 5 << 20


@pytest.mark.timeout(300)
def test_some_cells_measured_anew_come_out_the_same(tmp_path):
    recorded = read_table(DATA / "standard.parquet")
    recorded = recorded[recorded["machine"] == max_series(recorded)]
    whole = Plan.from_json(next(iter(recorded.attrs["provenance"].values()))["plan"])
    # All arms of these settings: how many sessions are open at the peer costs an echo of 64 B a percent.
    plan = replace(whole, name="again", payloads=(64, 16384), workloads=("echo",), also=whole.also[:1])
    again = sweep(plan, on="newest", clock="instructions", output=tmp_path / "again.parquet", progress=False)
    before, now = (typical(frame, plan) for frame in (recorded, again))
    off = (now / before - 1).abs()
    assert len(off) == len(plan.cells()) - 2  # the two controls
    allowed = SAME if facts(recorded) == facts(again) else SIMILAR
    assert (off["latency_p50"] < allowed).all(), off["latency_p50"].to_string()
    assert (off["client_cpu"] < 0.05 + allowed).all(), off["client_cpu"].to_string()


def typical(frame, plan):
    """Return the median of each cell that the plan has."""
    cells = set(plan.cells())
    chosen = frame[[cell_of(row) in cells for row in frame.to_dict("records")]]
    return chosen[chosen["replica"] == 0].groupby(CELL)[["latency_p50", "client_cpu"]].median()


def facts(frame):
    """Return what decides how many instructions there are: the kernel and the libraries."""
    run = frame.attrs["provenance"][frame["run_id"].iloc[0]]
    names = ("kernel", "client_openssl", "peer_openssl", "python", "packages", "cpu_flags")
    return json.dumps({name: run.get(name) for name in names}, sort_keys=True)


def max_series(frame):
    return max(frame["machine"].unique(), key=lambda name: [int(part) for part in name.split(".")])
