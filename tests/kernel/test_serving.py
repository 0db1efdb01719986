"""The workload `serve` with kTLS: each used session shows its records in the kernel, by both engines."""

import pytest

from ktlslab.measure.arms import check
from ktlslab.measure.plan import Cell
from ktlslab.measure.worker import Laboratory


@pytest.fixture(scope="module")
def laboratory():
    with Laboratory() as laboratory:
        yield laboratory


@pytest.mark.parametrize(("request_bytes", "response_bytes"), [(64, 1024), (40_000, 100_000)])
@pytest.mark.parametrize("engine", ["syscall", "uring"])
def test_the_kernel_makes_the_records_of_every_answer(laboratory, engine, request_bytes, response_bytes):
    cell = Cell(
        record_layer="kernel",
        io_engine=engine,
        suite="TLS_AES_256_GCM_SHA384",
        tls_version="TLS 1.3",
        payload_bytes=response_bytes,
        request_bytes=request_bytes,
        workload="serve",
        depth=3,
        connections=12,
    )
    row = {name: getattr(cell, name) for name in cell.__slots__} | laboratory.arm(cell).sample(cell, 4)
    check(row)
    assert row["tls_stat_tx"] == row["tls_stat_rx"] == 12
    assert row["kernel_tx_records"] >= 12 * -(-response_bytes // 16384)
    assert row["kernel_rx_records"] == 12 * -(-request_bytes // 16384)
    assert row["session_bytes"] < 100 * 1024
