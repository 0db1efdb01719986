"""An estimate from a table and a profile that real runs recorded: `small.toml` says by which command."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from pathlib import Path

import pytest

import ktlslab
from ktlslab.cli import main
from ktlslab.errors import GuestError, MachineError, TableError, UsageError
from ktlslab.estimating.estimation import busy, estimated, guest_plan, here_plan
from ktlslab.estimating.observing import observed
from ktlslab.linux import capabilities
from ktlslab.measure.plan import PLANS
from ktlslab.profiling import plugin
from ktlslab.runs.journal import interrupted, journal_path
from ktlslab.show.estimated import estimated_sign_map

HERE = Path(__file__).parent
SUITES = "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"
WHOLE_BLOCK = 10  # samples of a block in the test below: plain twice, userspace four times, stdlib-ssl, a control
CHACHA = "TLS_CHACHA20_POLY1305_SHA256"
MEASURED, PROFILED = HERE / "recorded.measured.parquet", HERE / "recorded.profiled.parquet"


@pytest.fixture(scope="module")
def table():
    return ktlslab.read_table(MEASURED)


@pytest.fixture(scope="module")
def counted():
    return ktlslab.read_profile(PROFILED)


@pytest.fixture(scope="module")
def estimate(table, counted):
    return estimated(table, counted)


def test_left_out_arms_are_predicted_within_a_tenth(estimate):
    errors = estimate.checks[estimate.checks["left_out"] == "arm"]["error"]
    assert errors.notna().all()
    assert errors.mean() < 0.1


def test_the_kernels_instructions_are_dearer_than_user_code_and_ciphers(estimate):
    weights = estimate.weights["ns"]
    assert weights["kernel code"] > weights["user code"] > weights["AES-GCM in _rust.abi3.so"] > 0


def test_every_kernel_cell_has_an_interval_or_a_reason(estimate):
    cells = estimate.predicted
    assert set(cells["record_layer"]) == {"kernel"}
    refused = cells["reason"] != ""
    assert cells["estimate_ns"].isna().eq(refused).all()
    known = cells[~refused]
    assert (known["estimate_low"] < known["estimate_high"]).all()
    assert (cells["measured_ns"].isna()).all()


def test_an_estimate_is_no_table_of_samples(estimate, tmp_path):
    estimate.write(tmp_path / "e.parquet")
    with pytest.raises(TableError, match="it is an estimate, not a table of samples"):
        ktlslab.read_table(tmp_path / "e.parquet")
    again = ktlslab.read_estimate(tmp_path / "e.parquet")
    assert str(again) == str(estimate)
    assert set(again.cells["unit"]) == {"estimated ns"}


def test_the_sign_map_says_that_it_is_an_estimate(estimate):
    figure = estimated_sign_map(estimate)
    assert figure.get_suptitle().startswith("ESTIMATE, not a measurement")
    assert any("estimated, not measured" in text.get_text() for text in figure.legends[0].get_texts())
    assert figure.png()


def test_the_command_prints_weights_errors_and_estimates(capsys, tmp_path):
    argv = ["estimate", "--measured", str(MEASURED), "--profiled", str(PROFILED), "-o", str(tmp_path / "e.parquet")]
    assert main([*argv, "--png", str(tmp_path / "e.png")]) == 0
    said = capsys.readouterr().out
    for words in (
        "ns per instruction",
        "stand-in: never measured here",
        "each arm:",
        "ESTIMATED nanoseconds",
        "Estimated, not measured: of ",
    ):
        assert words in said
    assert (tmp_path / "e.png").exists()


def test_a_step_with_a_pause_counts_as_its_cpu_time(table):
    names = ["latency_p50", "latency_p99", "latency_max"]
    paused = table.assign(**{name: table[name] * 5 for name in names})
    paused.attrs = table.attrs
    cpu = table["client_cpu"] + table["peer_cpu"]
    assert observed(paused).max() <= cpu.max()


def test_a_coarse_cpu_clock_is_refused(table):
    coarse = table.assign(client_cpu=float("nan"))
    coarse.attrs = table.attrs
    with pytest.raises(MachineError, match="CPU clock advances too coarsely"):
        observed(coarse)


def test_nothing_to_fit_is_refused(table, counted):
    kernels = table.assign(record_layer="kernel", record_layer_observed="kernel")
    kernels = kernels[kernels["suite"] != ""]
    kernels = kernels.drop_duplicates(["io_engine", "suite", "payload_bytes", "repeat"])
    kernels.attrs = table.attrs
    with pytest.raises(UsageError, match="nothing to fit"):
        estimated(kernels, counted)


def test_measured_and_refused_cells_are_told_apart(estimate):
    cells = estimate.cells.copy()
    of_kernel = cells.index[cells["record_layer"] == "kernel"]
    first, second, *rest = of_kernel
    cells.loc[first, ["measured_ns", "measured_ratio"]] = 20_000.0, 1.25
    cells.loc[[second], ["measured_ns"]] = 30_000.0
    cells.loc[[second, *rest[:3]], "reason"] = "too far off"
    said = str(dataclasses.replace(estimate, cells=cells))
    assert "; measured 20,000 ns, 1.25 of userspace; the estimate is off by " in said
    assert "REFUSED: too far off: 4 cells" in said
    assert said.count("too far off") == 1
    assert "; measured 30,000 ns\n" in said


def test_a_profile_of_other_suites_is_refused_before_anything_is_measured(table, counted, tmp_path):
    functions = counted.functions.replace({"suite": dict.fromkeys(set(counted.functions["suite"]) - {""}, CHACHA)})
    functions.attrs = counted.functions.attrs
    other = dataclasses.replace(counted, functions=functions)
    with pytest.raises(UsageError, match=f"the profile has {CHACHA}, and what is measured here TLS_AES_128_GCM"):
        estimated(table, other)
    with pytest.raises(UsageError, match=f"the profile has {CHACHA}, and what is measured here TLS_AES_128_GCM"):
        ktlslab.estimate(HERE / "small.toml", profiled=other, output=tmp_path / "e.parquet")
    assert not [*tmp_path.iterdir()]


def test_fewer_cells_than_weights_are_refused(table, counted):
    few = table[(table["payload_bytes"] == 64) & (table["record_layer"] == "userspace")]
    few.attrs = table.attrs
    with pytest.raises(UsageError, match=r"cells and ends were both measured and profiled, for \d+ weights"):
        estimated(few, counted)


def test_what_is_no_profile_or_table_is_said_so(tmp_path):
    with pytest.raises(TableError, match="there is no such file"):
        ktlslab.estimate("quick", profiled=tmp_path / "p.parquet")
    with pytest.raises(TableError, match="it is no profile"):
        ktlslab.estimate("quick", profiled=MEASURED)
    with pytest.raises(TableError, match="it is a profile, not a table of samples"):
        ktlslab.estimate("quick", measured=PROFILED, profiled=PROFILED)
    with pytest.raises(UsageError, match=r"what `ktlslab\.profile` returned"):
        ktlslab.estimate("quick", profiled=7)
    with pytest.raises(UsageError, match=r"is of type int.*ktlslab\.sweep"):
        ktlslab.estimate("quick", measured=7)


@pytest.mark.timeout(600)  # other measurements on this machine come first
def test_a_sweep_that_was_interrupted_goes_on(tmp_path):
    plan = ktlslab.Plan(name="small", suites=SUITES, payloads=(64,), workloads=("echo",), steps=6)
    output, rows = tmp_path / "e.parquet", journal_path(tmp_path / "e.measured.parquet")

    def interrupt():
        while not any(file.read_bytes().count(b"latency_p50") > WHOLE_BLOCK for file in rows.glob("*.jsonl")):
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        ktlslab.estimate(plan, profiled=PROFILED, output=output, progress=False)
    assert interrupted(tmp_path / "e.measured.parquet")
    found = ktlslab.estimate(plan, profiled=PROFILED, output=output, progress=False)
    assert len(found.runs["measured"]) == 2
    assert not rows.exists()
    assert str(ktlslab.read_estimate(output)) == str(found)


def test_a_picture_with_no_folder_is_refused_before_anything_is_measured(tmp_path, capsys):
    assert main(["estimate", "--png", str(tmp_path / "missing" / "e.png")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_a_busy_machine_is_told_before_and_after(estimate):
    assert busy(0.9, 2) == ""
    assert "busy (load 7.3 on 2 CPUs): errors may be larger" in busy(7.3, 2)
    assert "Other processes kept" in str(estimate)  # it was recorded on such a machine


def test_a_machine_without_qemu_is_found_out_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GuestError, match="qemu-system-x86_64 is missing"):
        ktlslab.estimate("quick", output=tmp_path / "e.parquet")
    assert not [*tmp_path.iterdir()]


def test_a_qemu_without_plugins_is_found_out_before_anything_is_measured(tmp_path, monkeypatch):
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text("#!/bin/sh\necho QEMU emulator version 9.9\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    plugin.takes_plugins.cache_clear()
    try:
        with pytest.raises(GuestError, match="built without plugins"):
            ktlslab.estimate("quick", output=tmp_path / "e.parquet")
    finally:
        plugin.takes_plugins.cache_clear()
    assert [*tmp_path.iterdir()] == [qemu]


def test_a_check_needs_ktls():
    if not capabilities.probe().ktls:
        with pytest.raises(MachineError, match="no kTLS, so estimates cannot be checked"):
            ktlslab.estimate("quick", check=True)


def test_here_is_no_guest():
    with pytest.raises(UsageError, match="cannot count instructions"):
        ktlslab.estimate("quick", "here")


def test_what_is_swept_here_runs_everywhere_and_what_is_profiled_has_the_kernels_arms():
    quick = PLANS["quick"]
    assert {cell.record_layer for cell in here_plan(quick, check=False).cells()} == {"plain", "userspace", "stdlib-ssl"}
    assert "kernel" in {cell.record_layer for cell in here_plan(quick, check=True).cells()}
    guest = {cell for cell in guest_plan(quick).cells() if not cell.replica}
    assert {cell for cell in quick.cells() if not cell.replica} <= guest
