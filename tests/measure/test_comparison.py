"""Comparing two tables finds what changed and only that, and refuses tables that cannot be compared."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktlslab.cli import main
from ktlslab.errors import UsageError
from ktlslab.measure.comparison import compared, difference
from ktlslab.measure.table import SCHEMA, to_frame, write_table

SUITE = "TLS_AES_256_GCM_SHA384"


def table(*, seed, slowed=1.0, noise=0.002, blocks=6, payloads=(64, 1024, 16384), machine="7.3", clock="instructions"):
    """Return a valid table; `slowed` is a factor on the latency and CPU of kernel+syscall."""
    draw = np.random.default_rng(seed)
    unit = {"instructions": "instructions", "wall": "ns"}[clock]
    rows = []
    arms = list(itertools.product(("userspace", "kernel"), ("syscall", "uring"), (0, 1)))
    for payload, workload, block, arm in itertools.product(payloads, ("echo", "upload"), range(blocks), arms):
        layer, engine, replica = arm
        if replica and (layer, engine) != ("kernel", "uring"):
            continue
        cost = 50_000 + 4 * payload
        factor = slowed if (layer, engine) == ("kernel", "syscall") else 1.0
        latency, client, peer, rate = (math.exp(noise * draw.standard_normal()) for _ in range(4))
        row = {name: kind() for name, kind, _ in SCHEMA}
        row |= {"run_id": f"r{seed}", "host": "bench", "machine": machine, "kernel": f"{machine}.4", "clock": clock}
        row |= {"unit": unit, "record_layer": layer, "record_layer_observed": layer, "io_engine": engine}
        row |= {"suite": SUITE, "tls_version": "TLS 1.3", "payload_bytes": payload, "workload": workload, "depth": 1}
        row |= {
            "connections": 1,
            "record_size": 16384,
            "request_bytes": 0,
            "link": "loopback",
            "replica": replica,
            "repeat": block,
        }
        row |= {"operations": 32, "operations_per_step": 1, "elapsed": 32 * cost, "latency_histogram": [[cost, 32]]}
        row |= {"latency_p50": cost * latency * factor, "latency_p99": 2.0 * cost, "latency_max": 3.0 * cost}
        row |= {"latency_min": cost / 2, "client_cpu": cost * client * factor, "peer_cpu": cost * peer}
        rows.append(row | {"throughput_bytes_per_unit": payload / cost * rate, "payload_ok": True})
    return to_frame(rows, {f"r{seed}": {"run_id": f"r{seed}", "kernel": f"{machine}.4", "commit": f"c{seed}"}})


def test_two_runs_of_the_same_thing_do_not_differ():
    found = compared(table(seed=1), table(seed=2))
    assert found.changed.empty
    assert found.sentence == "No difference found from A to B, in 96 figures of 24 common cells."
    assert set(found.cells["reason"]) <= {"interval", "floor", "chance"}


def test_three_percent_on_purpose_are_found_where_they_are_and_nowhere_else():
    changed = compared(table(seed=1), table(seed=2, slowed=1.03)).changed
    assert len(changed) == 3 * 2 * 2  # payloads, workloads, latency and client CPU
    assert set(changed["record_layer"] + changed["io_engine"]) == {"kernelsyscall"}
    assert set(changed["quantity"]) == {"latency_p50", "client_cpu"}
    assert set(changed["verdict"]) == {"more"}
    assert changed["ratio"].between(1.02, 1.04).all()
    assert ((changed["low"] < 1.03) & (changed["high"] > 1.03)).mean() > 0.8


def test_a_boot_that_is_cheaper_in_every_block_moves_cpu_more_than_latency():
    changed = compared(table(seed=1), table(seed=2, slowed=1.009)).changed
    assert set(changed["quantity"]) == {"latency_p50"}
    assert set(compared(table(seed=1), table(seed=2, slowed=1.015)).changed["quantity"]) == {
        "latency_p50",
        "client_cpu",
    }


def test_many_noisy_figures_are_no_reason_for_a_change():
    """With large noise and no repeatability, some of hundreds of intervals exclude 1."""
    alarms = []
    for seed in range(10):
        pair = (table(seed=2 * seed + at, noise=0.05, blocks=5) for at in (0, 1))
        alarms.append(not compared(*pair, tolerance=0.0).changed.empty)
    assert sum(alarms) <= 2


def test_a_change_within_the_tolerance_is_none():
    pair = table(seed=1), table(seed=2, slowed=1.03)
    found = difference(*pair, tolerance=0.05)
    assert set(found["verdict"]) == {"none"}
    assert (found["floor"] > 1.05).all()
    with pytest.raises(UsageError, match=r"`tolerance` is 1\.5"):
        difference(*pair, tolerance=1.5)


@given(st.integers(0, 1000), st.floats(0.9, 1.1))
@settings(max_examples=5, deadline=None)
def test_swapped_tables_invert_ratios_and_verdicts(seed, slowed):
    pair = table(seed=seed, payloads=(64,)), table(seed=seed + 1, slowed=slowed, payloads=(64,))
    there, back = difference(*pair), difference(*pair[::-1])
    assert np.allclose(there["ratio"] * back["ratio"], 1)
    assert np.allclose(there["low"] * back["high"], 1)
    turned = back["verdict"].map({"less": "more", "more": "less", "none": "none"})
    assert list(there["verdict"]) == list(turned)


def test_one_machine_each_is_a_comparison_of_kernels():
    found = compared(table(seed=1, machine="6.1"), table(seed=2, machine="7.3"))
    assert set(found.cells["machine"]) == {"7.3"}
    assert set(found.cells["from_machine"]) == {"6.1"}
    assert any("6.1.4" in note and "7.3.4" in note for note in found.notes)


def test_several_machines_match_by_name_and_the_rest_is_said():
    both = pd.concat([table(seed=1, machine="6.1"), table(seed=1)])
    found = compared(both, table(seed=2))
    assert set(found.cells["from_machine"]) == {"7.3"}
    assert len(found.only_a) == 24
    assert all("6.1" in cell for cell in found.only_a)
    with pytest.raises(UsageError, match=r"they have no machine in common: 6\.1, 7\.3 and 6\.12"):
        compared(both, table(seed=2, machine="6.12"))


def test_cells_of_one_table_alone_are_said():
    found = compared(table(seed=1), table(seed=2, payloads=(64, 1024, 65536)))
    assert len(found.only_a) == len(found.only_b) == 8
    assert "only in A: 8 cells, such as userspace+syscall" in str(found)
    assert "echo 65536 B on 7.3" in found.only_b[0]
    with pytest.raises(UsageError, match="no cell in common"):
        compared(table(seed=1, payloads=(64,)), table(seed=2, payloads=(1024,)))


def test_other_units_are_refused():
    with pytest.raises(UsageError, match="their units differ: instructions and ns"):
        compared(table(seed=1), table(seed=2, clock="wall"))


def test_what_differs_in_origin_is_said():
    assert "commit: c1 in A, c2 in B" in compared(table(seed=1), table(seed=2)).notes


def test_too_few_blocks_are_said():
    found = compared(table(seed=1, blocks=2), table(seed=2))
    assert set(found.cells["reason"]) == {"blocks"}
    assert "96 figures had fewer than 3 blocks" in found.sentence


def test_tables_without_equal_arms_are_compared_by_repeatability_alone():
    pair = [frame[frame["replica"] == 0] for frame in (table(seed=1), table(seed=2))]
    found = compared(*pair)
    cpu = found.cells["quantity"].isin(["client_cpu", "peer_cpu"])
    assert np.allclose(found.cells["floor"], np.where(cpu, 1.01, 1.005))
    assert any("without an A/A arm" in note for note in found.notes)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    tables = {"a": table(seed=1), "b": table(seed=2), "slow": table(seed=3, slowed=1.03)}
    tables["wall"] = table(seed=4, clock="wall")
    for name, frame in tables.items():
        write_table(frame, folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize(
    ("names", "options", "status"),
    [
        (("a", "b"), [], 0),
        (("a", "slow"), [], 1),
        (("a", "slow"), ["--tolerance", "0.05"], 0),
        (("a", "slow"), ["--quantity", "peer_cpu"], 0),
    ],
)
def test_the_command_answers_by_its_exit_status(files, capsys, names, options, status):
    assert main(["compare", *(str(files / f"{name}.parquet") for name in names), *options]) == status
    said = capsys.readouterr()
    assert ("No difference found" in said.out) == (status == 0)
    assert not said.err


@pytest.mark.parametrize(
    ("b", "options", "reason"),
    [
        ("wall.parquet", [], "their units differ"),
        ("missing.parquet", [], "missing.parquet"),
        ("b.parquet", ["--quantity", "colour"], "colour"),
    ],
)
def test_trouble_is_told_from_a_difference(files, capsys, b, options, reason):
    assert main(["compare", str(files / "a.parquet"), str(files / b), *options]) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert not said.out


def test_programs_read_json(files, capsys):
    assert main(["compare", str(files / "a.parquet"), str(files / "slow.parquet"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["compared"] == 96
    assert len(told["changed"]) == 12
    assert told["changed"][0]["ratio"] == pytest.approx(1.03, abs=0.01)
    assert told["sentence"].startswith("12 differences found from A to B, in 96 figures of 24 common cells: 0 less")
