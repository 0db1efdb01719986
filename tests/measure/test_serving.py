"""The workload `serve` without kTLS: both engines, both ends checked, and plans that cannot be."""

import pytest

from ktlslab.errors import UsageError
from ktlslab.measure import fitting
from ktlslab.measure.arms import check
from ktlslab.measure.plan import Cell, Plan
from ktlslab.measure.worker import Laboratory
from ktlslab.runs.machines import Machine

HERE = Machine(name="here", kernel=None, clock="wall")
SUITE = "TLS_AES_256_GCM_SHA384"
SERVE = {"workloads": "serve", "requests": 64, "payloads": 1024, "record_layers": ("plain", "userspace")}


@pytest.fixture(scope="module")
def laboratory():
    with Laboratory() as laboratory:
        yield laboratory


def cell_of(layer, engine, request, response, depth=3):
    suite, version = ("", "") if layer == "plain" else (SUITE, "TLS 1.3")
    return Cell(
        record_layer=layer,
        io_engine=engine,
        suite=suite,
        tls_version=version,
        payload_bytes=response,
        request_bytes=request,
        workload="serve",
        depth=depth,
        connections=5,
    )


@pytest.mark.parametrize(("request_bytes", "response_bytes"), [(1, 1), (64, 1024), (100_000, 10), (64, 1_000_000)])
@pytest.mark.parametrize("engine", ["syscall", "uring"])
@pytest.mark.parametrize("layer", ["plain", "userspace"])
def test_each_request_is_answered_and_both_are_intact(laboratory, layer, engine, request_bytes, response_bytes):
    cell = cell_of(layer, engine, request_bytes, response_bytes)
    row = {name: getattr(cell, name) for name in cell.__slots__} | laboratory.arm(cell).sample(cell, 4)
    check(row)
    assert row["operations"] == 12
    extra = 22 if layer == "userspace" else 0
    assert row["wire_tx_bytes"] == response_bytes + extra * -(-response_bytes // 16384)
    assert row["wire_rx_bytes"] == request_bytes + extra * -(-request_bytes // 16384)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"requests": ()}, "needs `requests`"),
        ({"record_layers": ("plain", "kernel-tx")}, "no record layer 'kernel-tx'"),
        ({"depths": 8, "connections": 4}, "depth 8 on 4 connections"),
        ({"connections": 10_001}, "out of range"),
        ({"workloads": "echo", "connections": 300}, "300 connections, each with an operation in flight"),
    ],
)
def test_a_plan_that_cannot_be_says_why(wrong, says):
    with pytest.raises(UsageError, match=says):
        Plan(**SERVE | wrong)


def test_a_plan_that_does_not_fit_names_what_it_needs_and_what_there_is(monkeypatch):
    plan = Plan(**SERVE, connections=10_000)
    monkeypatch.setattr(fitting.memory, "available_bytes", lambda: 1 << 30)
    with pytest.raises(UsageError, match=r"10000 connections need 6\.\d GiB of memory, and 1\.0 GiB are available"):
        fitting.refuse_what_does_not_fit(plan, [HERE])
    monkeypatch.setattr(fitting.memory, "available_bytes", lambda: 1 << 40)
    monkeypatch.setattr(fitting.descriptors, "possible", lambda: 4000)
    with pytest.raises(UsageError, match="10000 connections, and a process may have 4000 open"):
        fitting.refuse_what_does_not_fit(plan, [HERE])


def test_a_guest_gets_more_memory_only_where_its_plan_needs_it():
    assert fitting.guest_bytes(Plan(**SERVE, connections=10)) == fitting.GUEST_BYTES
    assert fitting.guest_bytes(Plan(**SERVE, connections=10_000)) > 3 * fitting.GUEST_BYTES
