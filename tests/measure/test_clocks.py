"""Where the CPU clock is too coarse, CPU figures are NaN with a note: never 0, and no error."""

import math
import os
import time

import pytest

from ktlslab.measure.analysis import QUANTITIES, effects, intervals, noise_floor
from ktlslab.measure.blocks import Blocks
from ktlslab.measure.comparison import compared, difference
from ktlslab.measure.sweeping import sweep
from ktlslab.measure.table import read_table
from ktlslab.runs import clocks
from tests.measure.test_analysis import table
from tests.measure.test_blocks import row as sample

# A Python process that imports this has a CPU clock with a tick of 10 ms, as in User-Mode Linux.
COARSE = """
import time
fine = time.clock_gettime_ns
def coarse(clock):
    return fine(clock) // 10_000_000 * 10_000_000 if clock == time.CLOCK_PROCESS_CPUTIME_ID else fine(clock)
time.clock_gettime_ns = coarse
"""


def test_the_tick_of_a_clock_is_seen_by_watching_it():
    coarse = 6  # CLOCK_MONOTONIC_COARSE of clock_gettime(2): the kernel advances it at its tick
    ticks = clocks.resolution_ns(coarse) / (time.clock_getres(coarse) * 1e9)
    assert 1 <= round(ticks) == pytest.approx(ticks, rel=0.1)  # a busy machine may miss a tick
    assert clocks.resolution_ns() == 1


def test_a_figure_of_a_few_ticks_is_not_available(monkeypatch):
    monkeypatch.setattr(clocks, "resolution_ns", lambda: 10_000_000)
    assert math.isnan(clocks.cpu_figure(0, 5))
    assert math.isnan(clocks.cpu_figure(990_000_000, 5))
    assert clocks.cpu_figure(1_000_000_000, 5) == 200_000_000


def test_a_sweep_under_a_coarse_clock_has_its_table_and_the_reason(small, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(COARSE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    path = tmp_path / "t.parquet"
    sweep(small, on="here", output=path, progress=False)
    frame = read_table(path)
    assert len(frame) == len(list(small.schedule()))
    assert frame[["client_cpu", "peer_cpu"]].isna().all(axis=None)
    assert (frame[["latency_p50", "throughput_bytes_per_unit"]] > 0).all(axis=None)
    (run,) = frame.attrs["provenance"].values()
    assert run["cpu_clock_resolution_ns"] == 10_000_000
    assert any(f"too coarse for {len(frame)} of {len(frame)} samples" in note for note in run["unusual"])


def half(frame):
    """Return the frame without the client's CPU in every second block, and without the peer's CPU."""
    return frame.assign(client_cpu=frame["client_cpu"].where(frame["repeat"] % 2 == 0), peer_cpu=math.nan)


def test_effects_take_what_there_is():
    frame = table().assign(throughput_bytes_per_unit=1.0)
    found, whole = effects(half(frame)), effects(half(frame), ["latency_p50"])
    assert set(found["quantity"]) == set(QUANTITIES) - {"peer_cpu"}
    assert found[found["quantity"] == "latency_p50"].reset_index(drop=True).equals(whole)
    cpu = found[found["quantity"] == "client_cpu"]
    assert (cpu["blocks"] == 3).all()
    assert cpu[["ratio", "low", "high", "floor"]].notna().all(axis=None)


@pytest.mark.parametrize("call", [effects, noise_floor])
def test_where_no_sample_has_a_figure_there_is_no_row(call):
    found = call(half(table()), ["peer_cpu"])
    assert found.empty
    assert {"quantity", "floor"} <= set(found.columns)
    assert intervals(half(table()), "peer_cpu").empty


def test_two_tables_are_compared_by_what_both_have():
    one, two = (table(seed=seed).assign(throughput_bytes_per_unit=1.0) for seed in (1, 2))
    cells = difference(one.assign(peer_cpu=1.0), half(two))
    assert set(cells["quantity"]) == set(QUANTITIES) - {"peer_cpu"}
    assert "No difference found" in compared(one.assign(peer_cpu=1.0), half(two)).sentence


def test_precision_is_judged_by_what_there_is(small):
    from dataclasses import replace

    plan = replace(small, repeats=4, max_repeats=30, precision=0.01)
    blocks = Blocks(plan)
    rows = []
    for repeat, _, cell in blocks:
        rows.append(sample(repeat, cell, 1000.0) | {"client_cpu": math.nan if repeat != 1 else 7.0})
        blocks.take(rows[-1])
    assert max(row["repeat"] for row in rows) == 3
