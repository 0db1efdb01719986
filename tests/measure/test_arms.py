"""Every arm that needs no kTLS, with the real peer; tests/kernel/test_arms.py has those that do."""

import json
import math
import ssl

import pytest

from ktlslab.errors import KtlsLabError, MachineError
from ktlslab.linux import capabilities
from ktlslab.measure import steps
from ktlslab.measure.arms import LeftOut, check
from ktlslab.measure.payloads import Room, checksum, crc_of, payload, room_for
from ktlslab.measure.peer import OVERLAPPING_BYTES
from ktlslab.measure.plan import Cell
from ktlslab.measure.table import SCHEMA
from ktlslab.measure.worker import Laboratory

ARMS = [
    ("plain", "syscall"),
    ("plain", "uring"),
    ("userspace", "syscall"),
    ("userspace", "uring"),
    ("stdlib-ssl", "syscall"),
    ("userspace-rustls", "syscall"),
    ("userspace-rustls", "uring"),
]
SUITE = "TLS_AES_256_GCM_SHA384"
RECORD = {"TLS 1.3": 22, "TLS 1.2": 29}  # header, inner type and tag; header, explicit nonce and tag
# The columns that the worker adds to those of an arm.
LABELS = {"run_id", "host", "machine", "kernel", "clock", "unit", "repeat", "position"}


@pytest.fixture(scope="module")
def laboratory():
    with Laboratory() as laboratory:
        yield laboratory


def cell_of(layer, engine="syscall", *, suite=SUITE, size=64, workload="echo", **more):
    suite = "" if layer == "plain" else suite
    version = "" if layer == "plain" else "TLS 1.3" if suite.startswith(("TLS_AES", "TLS_CHACHA")) else "TLS 1.2"
    return Cell(
        record_layer=layer,
        io_engine=engine,
        suite=suite,
        tls_version=version,
        payload_bytes=size,
        workload=workload,
        **more,
    )


def sample(laboratory, cell, steps=4, **more):
    """Take a sample and check its proof."""
    row = {name: getattr(cell, name) for name in cell.__slots__}
    row |= laboratory.arm(cell).sample(cell, steps, **more)
    check(row)
    return row


def overhead(cell):
    return RECORD.get(cell.tls_version, 0)


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize(("workload", "depth"), [("echo", 1), ("echo", 8), ("upload", 1), ("upload", 8)])
@pytest.mark.parametrize("arm", ARMS, ids="+".join)
def test_echoes_and_uploads(laboratory, arm, workload, depth, connections):
    cell = cell_of(*arm, workload=workload, depth=depth, connections=connections)
    row = sample(laboratory, cell)
    assert row["operations"] == 4 * row["operations_per_step"] == 4 * cell.operations_per_step
    assert row["wire_tx_bytes"] == 64 + overhead(cell)
    answered = 64 + overhead(cell) if workload == "echo" else (1 + overhead(cell)) / cell.batch
    assert row["wire_rx_bytes"] == answered
    assert row["kernel_tx_records"] == row["kernel_rx_records"] == 0
    assert not row["crypto_driver"]


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize(("layer", "engine"), ARMS)
def test_downloads(laboratory, layer, engine, connections):
    cell = cell_of(layer, engine, size=20_000, workload="download", connections=connections)
    row = sample(laboratory, cell)
    assert row["wire_tx_bytes"] == (1 + overhead(cell)) / cell.batch
    assert row["wire_rx_bytes"] >= 20_000 + 2 * overhead(cell)


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize(("layer", "engine"), ARMS)
def test_uploads_out_of_a_file(laboratory, layer, engine, connections):
    cell = cell_of(layer, engine, size=20_000, workload="sendfile", connections=connections)
    row = sample(laboratory, cell)
    assert row["wire_tx_bytes"] >= 20_000 + 2 * overhead(cell)


@pytest.mark.parametrize(("layer", "engine"), ARMS)
def test_a_burst_of_echoes_that_no_buffer_holds_does_not_make_both_ends_wait(laboratory, layer, engine):
    cell = cell_of(layer, engine, size=1 << 20, depth=12)
    assert cell.payload_bytes * cell.depth > 100 * OVERLAPPING_BYTES
    assert sample(laboratory, cell, steps=1)["operations"] == 12


@pytest.mark.parametrize("workload", ["echo", "upload", "download", "sendfile"])
def test_a_payload_of_one_byte(laboratory, workload):
    assert sample(laboratory, cell_of("plain", size=1, workload=workload))["payload_ok"]


def test_a_row_has_the_columns_of_the_table(laboratory):
    row = sample(laboratory, cell_of("userspace"))
    named = {name: kind for name, kind, _ in SCHEMA if name not in LABELS}
    assert set(row) == set(named)
    assert all(isinstance(row[name], kind) for name, kind in named.items() if kind is not float)
    json.dumps(row)
    assert sum(count for _, count in row["latency_histogram"]) == 4
    assert row["latency_min"] <= row["latency_p50"] <= row["latency_p99"] <= row["latency_max"]
    assert row["warm_up"] >= 1
    assert math.isnan(row["client_syscalls"]) or row["client_syscalls"] >= 2
    assert min(row[name] for name in ("peer_cpu", "client_cpu", "elapsed")) > 0


def test_with_the_wall_clock_a_sample_lasts(laboratory):
    cell = cell_of("plain")
    arm = laboratory.arm(cell)
    row = arm.sample(cell, 4, min_ns=20_000_000)
    assert row["elapsed"] >= 5_000_000  # the warm-up may have been slower than the sample
    assert row["operations"] > 4


def test_a_handicap_makes_each_step_longer_and_costs_cpu(laboratory):
    cell = cell_of("plain", size=256)
    arm = laboratory.arm(cell)
    before = [arm.sample(cell, 32) for _ in range(3)]
    slowed = arm.sample(cell, 32, handicap=4.0)
    fastest = min(row["latency_min"] for row in before)
    assert slowed["latency_min"] > 3 * fastest
    assert slowed["client_cpu"] > 2 * fastest
    assert arm.sample(cell, 32)["latency_min"] < slowed["latency_min"]


@pytest.mark.parametrize("workload", ["echo", "upload", "download"])
def test_a_payload_that_did_not_arrive_as_it_was_to_be_is_no_row(laboratory, workload):
    cell = cell_of("userspace", size=96, workload=workload)
    arm = laboratory.arm(cell)
    assert arm.sample(cell, 4)["payload_ok"]  # its checksum is cached from now on
    payload(96)[5] ^= 1
    if workload == "download":  # the peer sends the right bytes, but others are expected
        crc_of.cache_clear()
    try:
        assert not arm.sample(cell, 4)["payload_ok"]
    finally:
        payload(96)[5] ^= 1
        crc_of.cache_clear()
    assert arm.sample(cell, 4)["payload_ok"]


@pytest.mark.parametrize(("name", "value"), [("payload_ok", False), ("record_layer_observed", "userspace")])
def test_a_sample_without_proof_is_refused(laboratory, name, value):
    row = sample(laboratory, cell_of("plain"))
    with pytest.raises(KtlsLabError, match=r"checksum differs|was userspace"):
        check(row | {name: value})


@pytest.mark.parametrize("size", [1, 64, 1000, 70_000])
def test_what_an_earlier_round_left_is_not_taken_for_what_came(size):
    room = Room()
    for _ in range(2):
        part = room.take(size * 3)
        for at in range(0, size * 3, size):
            part[at : at + size] = payload(size)
        assert checksum(part, size) == crc_of(size)
    assert checksum(room.take(size * 3), size) != crc_of(size)


@pytest.mark.parametrize("size", [1, 63, 64, 5000])
def test_a_checksum_sees_one_wrong_bit_anywhere(size):
    room = room_for(size * 4)
    for at in range(0, size * 4, size):
        room[at : at + size] = payload(size)
    assert checksum(room, size) == crc_of(size)
    for at in {0, size - 1, size, size * 2 + size // 2, size * 4 - 1}:
        room[at] ^= 4
        assert checksum(room, size) != crc_of(size)
        room[at] ^= 4


def test_arms_that_this_machine_has_not_are_left_out_with_the_reason(laboratory):
    assert not capabilities.ulp(), "this test is about a machine without kTLS; tests/kernel has the other half"
    with pytest.raises(LeftOut, match=r"opening openssl-ktls.*did not pass the records to the kernel"):
        laboratory.arm(cell_of("openssl-ktls"))
    with pytest.raises(MachineError, match="no tls module") as caught:
        laboratory.arm(cell_of("kernel"))
    assert not isinstance(caught.value, LeftOut)


@pytest.mark.parametrize("layer", ["userspace", "stdlib-ssl", "userspace-rustls"])
def test_records_that_cannot_be_limited_are_left_out(laboratory, layer):
    with pytest.raises(LeftOut, match="limit the records"):
        laboratory.arm(cell_of(layer, record_size=1024))


def test_a_suite_that_the_peer_does_not_offer_is_left_out(laboratory):
    with pytest.raises(LeftOut, match="does not offer the suite"):
        laboratory.arm(cell_of("userspace", suite="TLS_SM4_GCM_SM3"))


def test_record_size_says_nothing_to_plain_tcp(laboratory):
    assert sample(laboratory, cell_of("plain", record_size=1024, size=4096))["wire_tx_bytes"] == 4096


@pytest.mark.parametrize("suite", ["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"])
def test_a_suite_that_the_standard_library_cannot_choose_is_left_out(laboratory, suite):
    cell = cell_of("stdlib-ssl", suite=suite)
    if hasattr(ssl.SSLContext, "set_ciphersuites"):
        assert sample(laboratory, cell)["record_layer_observed"] == "stdlib-ssl"
    else:
        with pytest.raises(LeftOut, match=r"cannot choose.*TLS_AES_256_GCM_SHA384"):
            laboratory.arm(cell)


def test_a_suite_that_rustls_cannot_choose_or_has_not_is_left_out(laboratory):
    with pytest.raises(LeftOut, match=r"rtls cannot choose.*TLS_AES_256_GCM_SHA384"):
        laboratory.arm(cell_of("userspace-rustls", suite="TLS_CHACHA20_POLY1305_SHA256"))
    with pytest.raises(LeftOut, match="rustls does not have the suite"):
        laboratory.arm(cell_of("userspace-rustls", suite="TLS_ECDHE_ECDSA_WITH_AES_128_CCM"))
    cell = cell_of("userspace-rustls", suite="TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")
    assert sample(laboratory, cell)["record_layer_observed"] == "userspace-rustls"


def test_the_standard_library_speaks_the_older_version_too(laboratory):
    cell = cell_of("stdlib-ssl", suite="TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")
    assert sample(laboratory, cell)["wire_tx_bytes"] == 64 + 5 + 16  # no explicit nonce


def test_a_spin_is_as_long_as_it_says(laboratory):
    cell = cell_of("plain", connections=3)
    channels = laboratory.arm(cell)._channels
    work = steps.Round(channels, cell, 3, spin=2_000_000)
    took = work.run()
    assert work.settle().ok
    assert min(took) >= 2_000_000
