"""Sweeps on this machine with arms that need no kTLS, and one in a guest with those that do."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import ktlslab
from ktlslab.errors import KtlsLabError, MachineError, UsageError
from ktlslab.linux import probe
from ktlslab.measure.lock import measuring
from ktlslab.measure.plan import Plan
from ktlslab.measure.sweep import sweep
from ktlslab.measure.table import Journal, journal_path, read_table

KEY = ["record_layer", "io_engine", "suite", "payload_bytes", "direction", "repeat"]


def expected(plan):
    return sorted((c.record_layer, c.io_engine, c.suite, c.payload_bytes, c.direction, r) for r, c in plan.schedule())


def keys(frame):
    return sorted(map(tuple, frame[KEY].itertuples(index=False)))


def test_a_sweep_has_a_row_for_every_sample_with_its_proof_and_provenance(small, tmp_path):
    path = tmp_path / "t.parquet"
    frame = sweep(small, on="here", output=path, progress=False)
    assert keys(frame) == expected(small)
    assert frame.payload_ok.all()
    assert (frame.record_layer_observed == frame.record_layer).all()
    assert (frame.unit == "ns").all()
    assert (frame[["latency_p50", "client_cpu", "peer_cpu", "throughput_bytes_per_unit"]] > 0).all(axis=None)
    assert (frame.latency_p99 >= frame.latency_p50).all()
    (run,) = frame.attrs["provenance"].values()
    assert run["kernel"] == os.uname().release
    assert run["plan"] == json.loads(json.dumps(small.to_json()))
    assert keys(read_table(path)) == keys(frame)
    assert not journal_path(path).exists()


def test_a_kernel_arm_where_the_kernel_cannot_is_an_error_and_no_row(tmp_path):
    assert not probe.ulp(), "this test is about a machine without kTLS; tests/kernel has the other half"
    plan = Plan(name="k", record_layers=("kernel",), payloads=(64,), repeats=1)
    with pytest.raises(MachineError, match=r"no tls module.*--on newest"):
        sweep(plan, on="here", output=tmp_path / "t.parquet", progress=False)
    assert Journal.read(journal_path(tmp_path / "t.parquet")).rows == []


def test_counting_instructions_here_is_refused(small):
    with pytest.raises(UsageError, match="guest"):
        sweep(small, on="here", clock="instructions", progress=False)


def command(plan: Plan, path: Path, *more: str) -> list[str]:
    file = path.with_suffix(".plan.json")
    file.write_text(json.dumps(plan.to_json()))
    argv = [sys.executable, "-m", "ktlslab", "sweep", "--plan", str(file), "--on", "here", "-o", str(path)]
    return [*argv, *more]


def start_and_wait_for_rows(plan: Plan, path: Path, count: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(command(plan, path), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        journal = journal_path(path)
        if journal.exists() and journal.read_bytes().count(b"\n") > count:
            return process
        time.sleep(0.01)
    pytest.fail(f"the sweep ended, or wrote no {count} rows: {process.communicate()[1]}")


def workers_of(path: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(path) in line and "ktlslab" in line:
            found.append(line)
    return found


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_sweep_keeps_every_finished_row_and_resumes_without_repeating_one(small, tmp_path, end):
    plan = replace(small, repeats=40)
    path = tmp_path / "t.parquet"
    process = start_and_wait_for_rows(plan, path, 5)
    process.send_signal(end)
    _, said = process.communicate(timeout=30)
    if end == signal.SIGINT:
        assert process.returncode == 1
        assert "interrupted" in said
    deadline = time.monotonic() + 10
    while workers_of(path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_of(path) == []
    before = Journal.read(journal_path(path)).rows
    assert len(before) >= 5
    assert not path.exists()

    with pytest.raises(UsageError, match="--resume"):
        sweep(plan, on="here", output=path, progress=False)
    frame = sweep(plan, on="here", output=path, resume=True, progress=False)
    assert keys(frame) == expected(plan)
    kept = frame[frame.run_id == before[0]["run_id"]]
    assert kept.latency_p50.tolist() == [row["latency_p50"] for row in before]
    assert len(frame.attrs["provenance"]) == 2


def test_resuming_where_nothing_was_begun_is_a_sweep(small, tmp_path):
    frame = sweep(small, on="here", output=tmp_path / "t.parquet", resume=True, progress=False)
    assert keys(frame) == expected(small)


def test_resuming_with_another_plan_is_refused_and_loses_nothing(small, tmp_path):
    path = tmp_path / "t.parquet"
    process = start_and_wait_for_rows(replace(small, repeats=40), path, 3)
    process.kill()
    process.communicate(timeout=30)
    other = replace(small, payloads=(128,))
    rows = len(Journal.read(journal_path(path)).rows)
    with pytest.raises(UsageError, match="plan"):
        sweep(other, on="here", output=path, resume=True, progress=False)
    assert len(Journal.read(journal_path(path)).rows) == rows


def test_two_measurements_wait_for_each_other(tmp_path):
    lock = tmp_path / "lock"
    said: list[str] = []
    script = (
        "import sys, pathlib, time; from ktlslab.measure.lock import measuring\n"
        "with measuring(print, pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(1)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with measuring(said.append, lock):
            assert other.wait(timeout=5) == 0
    assert said == [f"waiting for the measurement of process {other.pid} to end ({lock})"]


def test_an_output_that_is_no_parquet_is_refused(small, tmp_path):
    with pytest.raises(UsageError, match="parquet"):
        sweep(small, on="here", output=tmp_path / "t.csv", progress=False)


def test_six_arms_in_a_guest_each_with_proof_and_counted_in_instructions(tmp_path):
    plan = Plan(name="g", suites=("TLS_AES_128_GCM_SHA256",), payloads=(64,), directions=("echo",), repeats=1, steps=8)
    frame = ktlslab.sweep(plan, on="newest", clock="instructions", output=tmp_path / "g.parquet", progress=False)
    assert keys(frame) == expected(plan)
    assert (frame.unit == "instructions").all()
    assert (frame.record_layer_observed == frame.record_layer).all()
    kernel = frame[frame.record_layer == "kernel"]
    assert (kernel.kernel_tx_records == 8).all()
    assert (kernel.kernel_rx_records == 8).all()
    assert (kernel[["tls_stat_tx", "tls_stat_rx"]] == 1).all(axis=None)
    others = frame[frame.record_layer != "kernel"]
    assert (others[["tls_stat_tx", "kernel_tx_records"]] == 0).all(axis=None)
    assert frame.kernel.iloc[0] != os.uname().release


def test_a_machine_that_is_none_lists_what_there_is(small):
    with pytest.raises(KtlsLabError, match=r"6\.1"):
        sweep(small, on="5.99", progress=False)
