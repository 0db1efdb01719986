"""Sweeps on this machine with arms that need no kTLS, and one in a guest with arms that do."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import ktlslab
from ktlslab.errors import KtlsLabError, MachineError, StoppedError, UsageError
from ktlslab.guests import qemu
from ktlslab.linux import capabilities
from ktlslab.measure.blocks import cell_of
from ktlslab.measure.plan import Cell, Plan
from ktlslab.measure.sweeping import sweep
from ktlslab.measure.table import read_table
from ktlslab.runs.journal import Journal, journal_path, run_files
from ktlslab.runs.lock import measuring

KEY = [*Cell.__slots__, "repeat"]


def expected(plan):
    return sorted((*(getattr(cell, name) for name in Cell.__slots__), repeat) for repeat, cell in plan.schedule())


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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.json", "t.parquet"]


def test_before_it_starts_it_says_what_it_will_do(small, capsys):
    sweep(small, on="here")
    said = capsys.readouterr().err
    count = len(expected(small))
    assert f"plan small: {count // 2} cells in 6 settings, seed 1\n  on here, wall clock: {count} samples\n" in said
    assert said.index("1 run, about") < said.index(f"0/{count}")
    assert f"{count}/{count}" in said


def test_when_the_time_is_over_whole_blocks_are_there_and_no_more(small):
    plan = replace(small, repeats=400, payloads=(64,), minutes=0.1)
    frame = sweep(plan, on="here", progress=False)
    blocks = frame.groupby(["workload", "repeat"]).size()
    assert (blocks == len(plan.cells()) / 3).all()
    assert frame.repeat.max() < 399
    assert frame.groupby("workload").repeat.nunique().max() <= frame.groupby("workload").repeat.nunique().min() + 1


def test_when_the_time_is_over_before_the_first_block_it_says_so(small):
    with pytest.raises(MachineError, match=r"there is no sample.*minutes"):
        sweep(replace(small, minutes=1e-9), on="here", progress=False)


def test_an_arm_that_is_not_available_is_left_out_said_and_kept_in_the_provenance(small, tmp_path, capsys):
    assert not capabilities.ulp(), "this test is about a machine without kTLS; tests/kernel has the other half"
    path = tmp_path / "t.parquet"
    plan = replace(small, record_layers=("plain", "openssl-ktls"), payloads=(64,))
    sweep(plan, on="here", output=path)
    frame = read_table(path)
    assert keys(frame) == [key for key in expected(plan) if key[0] == "plain"]
    (run,) = frame.attrs["provenance"].values()
    ((arm, why),) = run["left_out"].items()
    assert arm.startswith("openssl-ktls+syscall")
    assert f"left out on here: {arm}: {why}\n" in capsys.readouterr().err


def test_a_plan_of_nothing_but_unavailable_arms_says_so(small):
    plan = replace(small, record_layers=("openssl-ktls",), payloads=(64,))
    with pytest.raises(MachineError, match=r"every arm was left out: openssl-ktls\+syscall"):
        sweep(plan, on="here", progress=False)


def test_a_kernel_arm_where_the_kernel_cannot_is_an_error_and_no_row(tmp_path):
    assert not capabilities.ulp(), "this test is about a machine without kTLS; tests/kernel has the other half"
    plan = Plan(name="k", record_layers=("kernel",), payloads=(64,), repeats=1)
    with pytest.raises(MachineError, match=r"no tls module.*--on newest"):
        sweep(plan, on="here", output=tmp_path / "t.parquet", progress=False)
    assert Journal.read(journal_path(tmp_path / "t.parquet")).rows == []


def test_counting_instructions_here_is_refused(small):
    with pytest.raises(UsageError, match="guest"):
        sweep(small, on="here", clock="instructions", progress=False)


def command(plan: Plan, path: Path, on: str) -> list[str]:
    file = path.with_suffix(".plan.json")
    file.write_text(json.dumps(plan.to_json()))
    return [sys.executable, "-m", "ktlslab", "sweep", "--plan", str(file), "--on", on, "-o", str(path)]


def rows_of(path: Path) -> int:
    """Count the rows, while they are being written."""
    return sum(file.read_bytes().count(b'\n{"run_id"') for file in run_files(journal_path(path)))


def start_and_wait_for_rows(plan: Plan, path: Path, count: int, on: str = "here") -> subprocess.Popen[str]:
    argv = [*command(plan, path, on), "--clock", "instructions"] if on != "here" else command(plan, path, on)
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + (60 if on == "here" else 150)
    while process.poll() is None and time.monotonic() < deadline:
        if rows_of(path) >= count:
            return process
        time.sleep(0.01)
    process.kill()
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


def wait_for_the_end(path: Path) -> None:
    """Wait until no process of a killed sweep runs any more."""
    deadline = time.monotonic() + 10
    while workers_of(path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_of(path) == []


def whole_in(rows, row, plan):
    """Whether the block of a row is complete."""
    block = [
        other for other in rows if all(other[name] == row[name] for name in ("workload", "payload_bytes", "repeat"))
    ]
    return len(block) == len(plan.settings()[cell_of(row).setting])


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_sweep_keeps_every_whole_block_and_resumes_without_repeating_a_row(small, tmp_path, end, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    plan = replace(small, payloads=(64,), repeats=3)
    path = tmp_path / "t.parquet"
    process = start_and_wait_for_rows(plan, path, 5)
    process.send_signal(end)
    _, said = process.communicate(timeout=30)
    if end == signal.SIGINT:
        assert process.returncode == 1
        assert "interrupted" in said
    wait_for_the_end(path)
    assert list(tmp_path.rglob("key.pem")) == []
    before = Journal.read(journal_path(path)).rows
    assert len(before) >= 5
    assert not path.exists()

    with pytest.raises(UsageError, match="--resume"):
        sweep(plan, on="here", output=path, progress=False)
    frame = sweep(plan, on="here", output=path, resume=True, progress=False)
    assert keys(frame) == expected(plan)
    kept = frame[frame.run_id == before[0]["run_id"]]
    assert kept.latency_p50.tolist() == [row["latency_p50"] for row in before if whole_in(before, row, plan)]
    assert (frame.groupby(["workload", "payload_bytes", "repeat"]).run_id.nunique() == 1).all()
    assert len(frame.attrs["provenance"]) == 2
    assert not journal_path(path).exists()


@pytest.mark.parametrize("named", [True, False])
def test_a_sweep_that_is_told_to_stop_says_in_one_line_what_is_safe_and_goes_on(small, tmp_path, monkeypatch, named):
    """Also where no output was named: then its rows are kept in a folder of their own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    plan, stop = replace(small, payloads=(64,), repeats=200), threading.Event()

    def after_some_rows():
        while sum(len(rows.read_bytes().splitlines()) for rows in tmp_path.rglob("*.jsonl")) < 12:
            time.sleep(0.05)
        stop.set()

    threading.Thread(target=after_some_rows, daemon=True).start()
    with pytest.raises(StoppedError, match="are safe in") as caught:
        sweep(plan, on="here", output="T.parquet" if named else None, progress=False, stop=stop)
    error = caught.value
    assert isinstance(error, KeyboardInterrupt)
    (line,) = error._render_traceback_()
    assert line.startswith(f"Interrupted: {error.samples} samples in whole blocks are safe in {error.output}.rows. The")
    assert f"output={error.output!r} and resume=True" in line
    assert named == (error.output == "T.parquet")
    assert error.samples >= 6
    wait_for_the_end(tmp_path)
    shorter = replace(plan, repeats=200, minutes=0.02)
    frame = sweep(shorter, on="here", output=error.output, resume=True, progress=False)
    assert len(frame) >= error.samples


def test_a_sweep_that_is_stopped_before_it_began_has_lost_nothing(small, tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError, match="Nothing is lost") as caught:
        sweep(small, on="here", output=tmp_path / "t.parquet", progress=False, stop=stop)
    assert caught.value.samples == 0
    assert len(sweep(small, on="here", output=tmp_path / "t.parquet", progress=False)) > 0


def test_who_waits_for_another_measurement_can_be_stopped(tmp_path):
    def stop():
        raise KeyboardInterrupt

    lock = tmp_path / "lock"
    with measuring(str, lock), pytest.raises(KeyboardInterrupt), measuring(str, lock, look=stop):
        pass


def test_going_on_with_a_finished_table_measures_nothing_twice(small, tmp_path, capsys):
    path = tmp_path / "t.parquet"
    plan = replace(small, payloads=(64,))
    before = sweep(plan, on="here", output=path, progress=False)
    again = sweep(plan, on="here", output=path, resume=True)
    assert "nothing is left to measure" in capsys.readouterr().err
    assert again.equals(before)
    assert again.attrs == before.attrs
    assert read_table(path).equals(before)
    with pytest.raises(UsageError, match="the plan has payloads"):
        sweep(small, on="here", output=path, resume=True, progress=False)
    assert read_table(path).equals(before)
    anew = sweep(plan, on="here", output=path)
    assert "t.parquet exists: it will be replaced" in capsys.readouterr().err
    assert not set(anew.run_id) & set(before.run_id)


def test_resuming_where_nothing_was_begun_is_a_sweep(small, tmp_path):
    frame = sweep(small, on="here", output=tmp_path / "t.parquet", resume=True, progress=False)
    assert keys(frame) == expected(small)


def test_resuming_with_another_plan_or_on_other_machines_is_refused_and_loses_nothing(small, tmp_path):
    path = tmp_path / "t.parquet"
    process = start_and_wait_for_rows(replace(small, repeats=5), path, 3)
    process.kill()
    process.communicate(timeout=30)
    wait_for_the_end(path)
    rows = rows_of(path)
    with pytest.raises(UsageError, match="the plan has payloads"):
        sweep(replace(small, payloads=(128,)), on="here", output=path, resume=True, progress=False)
    with pytest.raises(UsageError, match="rows of here under the wall clock"):
        sweep(replace(small, repeats=5), on="newest", output=path, resume=True, progress=False)
    assert rows_of(path) == rows >= 3


def test_two_measurements_wait_for_each_other(tmp_path):
    lock = tmp_path / "lock"
    said: list[str] = []
    script = (
        "import sys, pathlib, time; from ktlslab.runs.lock import measuring\n"
        "with measuring(print, pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(1)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with measuring(said.append, lock):
            assert other.wait(timeout=5) == 0
    (line,) = said
    assert line.startswith(f"waiting for the measurement of process {other.pid} ({sys.executable} -c import sys")
    assert line.endswith(f", started 0 min ago, to end ({lock}); it is safe to interrupt")


def test_an_output_that_is_no_parquet_is_refused(small, tmp_path):
    with pytest.raises(UsageError, match="parquet"):
        sweep(small, on="here", output=tmp_path / "t.csv", progress=False)


COUNTED = Plan(
    name="g", suites=("TLS_AES_128_GCM_SHA256",), payloads=(64,), workloads=("echo", "upload"), repeats=1, steps=8
)


@pytest.mark.timeout(300)  # an emulated guest boots slowly while others run
def test_six_arms_in_guests_side_by_side_each_with_proof_and_counted_in_instructions(tmp_path):
    frame = ktlslab.sweep(COUNTED, on="newest", clock="instructions", output=tmp_path / "g.parquet", progress=False)
    assert keys(frame) == expected(COUNTED)
    assert (frame.unit == "instructions").all()
    assert (frame.record_layer_observed == frame.record_layer).all()
    kernel = frame[frame.record_layer == "kernel"]
    assert (kernel.kernel_tx_records == kernel.operations).all()
    assert (kernel.kernel_rx_records > 0).all()
    assert (kernel[["tls_stat_tx", "tls_stat_rx"]] == 1).all(axis=None)
    others = frame[frame.record_layer != "kernel"]
    assert (others[["tls_stat_tx", "kernel_tx_records"]] == 0).all(axis=None)
    assert frame.kernel.iloc[0] != os.uname().release
    for run in frame.attrs["provenance"].values():
        assert (run["emulated_cpu"], run["cpu"], run["emulator"]) == (qemu.CPU, qemu.CPU_NAME, qemu.emulator())
    runs = frame.groupby("run_id").workload.nunique()
    assert len(runs) == min(2, len(os.sched_getaffinity(0)))  # a setting is not split between guests
    assert runs.sum() == 2


@pytest.mark.timeout(300)  # four boots of emulated guests, two by two
def test_a_killed_sweep_in_guests_resumes_whole_blocks_without_repeating_a_row(tmp_path):
    """Eight rows of two guests have a whole block, which is three rows: two arms, and one of them again."""
    plan = replace(COUNTED, record_layers=("plain", "kernel"), io_engines=("syscall",), repeats=4)
    path = tmp_path / "t.parquet"
    process = start_and_wait_for_rows(plan, path, 8, on="newest")
    process.kill()
    process.communicate(timeout=30)
    wait_for_the_end(path)
    before = Journal.read(journal_path(path)).rows
    frame = sweep(plan, "newest", clock="instructions", output=path, resume=True, progress=False)
    assert keys(frame) == expected(plan)
    assert len(before) >= 8
    whole = {(row["run_id"], row["latency_p50"]) for row in before if whole_in(before, row, plan)}
    assert whole
    assert whole <= set(zip(frame.run_id, frame.latency_p50, strict=True))
    assert (frame.groupby(["workload", "repeat"]).run_id.nunique() == 1).all()
    added = frame[~frame.run_id.isin({row["run_id"] for row in before})]
    assert (added.groupby("workload").run_id.nunique() <= 1).all()


def test_a_machine_that_is_none_lists_what_there_is(small):
    with pytest.raises(KtlsLabError, match=r"6\.1"):
        sweep(small, on="5.99", progress=False)
