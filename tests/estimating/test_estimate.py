"""An estimate from a table and a profile that real runs recorded: `small.toml` says by which command."""

from __future__ import annotations

from pathlib import Path

import pytest

import ktlslab
from ktlslab.cli import main
from ktlslab.errors import MachineError, TableError, UsageError
from ktlslab.estimating.estimation import estimated, guest_plan, here_plan
from ktlslab.estimating.observing import observed
from ktlslab.linux import capabilities
from ktlslab.measure.plan import PLANS
from ktlslab.show.estimated import estimated_sign_map

HERE = Path(__file__).parent
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
    with pytest.raises(TableError):
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
    for words in ("ns per instruction", "stand-in: never measured here", "each arm:", "ESTIMATED nanoseconds"):
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
