"""Arms in which the kernel makes records, against the real peer; what a row claims is held against what TCP carried."""

import ssl

import pytest

from ktlslab.errors import MachineError
from ktlslab.linux import capabilities, ktls
from ktlslab.measure import worker
from ktlslab.measure.arms import LeftOut, check
from ktlslab.measure.link import Link
from ktlslab.measure.plan import Cell
from ktlslab.measure.worker import Laboratory
from ktlslab.tls.suites import Suite

TLS13 = "TLS_AES_256_GCM_SHA384"
TLS12 = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
RECORD = {TLS13: 22, TLS12: 29}  # header, inner type and tag; header, explicit nonce and tag
LAYERS = ["kernel", "kernel-tx", "kernel-rx"]
ENGINES = ["syscall", "uring"]
BURSTS = 4


@pytest.fixture(scope="module")
def laboratory():
    with Laboratory() as laboratory:
        yield laboratory


def sample(laboratory, layer, engine="syscall", *, suite=TLS13, size=64, workload="echo", **more):
    """Take a sample with its proof; returns the row and its cell."""
    cell = Cell(
        record_layer=layer,
        io_engine=engine,
        suite=suite,
        tls_version=Suite[suite].version.label if suite else "",
        payload_bytes=size,
        workload=workload,
        **more,
    )
    row = {name: getattr(cell, name) for name in cell.__slots__} | laboratory.arm(cell).sample(cell, BURSTS)
    check(row)
    return row, cell


def records(layer, tx, rx):
    """Return what the kernel's sequence numbers move by where so many records are sent and received."""
    return {"kernel": (tx, rx), "kernel-tx": (tx, 0), "kernel-rx": (0, rx)}[layer]


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("depth", [1, 8])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layer", LAYERS)
def test_echoes_and_uploads(laboratory, layer, engine, depth, connections):
    for workload in ("echo", "upload"):
        row, cell = sample(laboratory, layer, engine, workload=workload, depth=depth, connections=connections)
        answers = row["operations"] if workload == "echo" else BURSTS * connections
        assert (row["kernel_tx_records"], row["kernel_rx_records"]) == records(layer, row["operations"], answers)
        assert row["operations"] == BURSTS * cell.operations_per_step
        assert row["wire_tx_bytes"] == 64 + RECORD[TLS13]
        assert row["crypto_driver"]
        assert row["tls_stat_tx"] == connections * (layer != "kernel-rx")
        assert row["tls_stat_rx"] == connections * (layer != "kernel-tx")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layer", LAYERS)
def test_downloads(laboratory, layer, engine):
    row, cell = sample(laboratory, layer, engine, workload="download", size=40_000)
    assert (row["kernel_tx_records"], row["kernel_rx_records"]) == records(layer, BURSTS, BURSTS * 3 * cell.batch)
    assert row["wire_rx_bytes"] == 40_000 + 3 * RECORD[TLS13]


@pytest.mark.parametrize("suite", [TLS13, TLS12])
@pytest.mark.parametrize(
    ("layer", "engine"),
    [("kernel", "syscall"), ("kernel", "uring"), ("kernel-rx", "uring"), ("openssl-ktls", "syscall")],
)
def test_uploads_out_of_a_file(laboratory, layer, engine, suite):
    row, _ = sample(laboratory, layer, engine, workload="sendfile", size=40_000, suite=suite)
    made = round((row["wire_tx_bytes"] - 40_000) / RECORD[suite])
    assert row["wire_tx_bytes"] == 40_000 + made * RECORD[suite]
    assert made >= 3
    if layer in {"kernel", "openssl-ktls"}:
        assert row["kernel_tx_records"] == made * row["operations"]


@pytest.mark.parametrize("suite", [TLS13, TLS12])
def test_openssl_hands_its_keys_to_the_kernel_and_that_shows(laboratory, suite):
    for workload, depth in (("echo", 1), ("echo", 8), ("upload", 1), ("download", 1)):
        row, cell = sample(laboratory, "openssl-ktls", suite=suite, workload=workload, depth=depth)
        sent = BURSTS if workload == "download" else row["operations"]
        assert row["kernel_tx_records"] == sent
        if suite == TLS12:
            assert row["kernel_rx_records"] == (BURSTS if workload == "upload" else row["operations"])
            assert row["tls_stat_rx"] == 1
        assert row["tls_stat_tx"] == 1
        assert row["crypto_driver"]
    (channel,) = laboratory.arm(cell)._channels
    assert ktls.attached(channel.socket)
    assert isinstance(channel.socket, ssl.SSLSocket)


@pytest.mark.parametrize("suite", [TLS13, TLS12])
def test_the_standard_library_does_without_the_kernel_unless_it_is_asked(laboratory, suite):
    row, cell = sample(laboratory, "stdlib-ssl", suite=suite)
    assert row["kernel_tx_records"] == row["kernel_rx_records"] == row["tls_stat_tx"] == 0
    assert not row["crypto_driver"]
    (channel,) = laboratory.arm(cell)._channels
    assert not ktls.attached(channel.socket)


@pytest.mark.parametrize("suite", [TLS13, TLS12])
@pytest.mark.parametrize(
    ("layer", "engine"), [("kernel", "uring"), ("kernel-tx", "syscall"), ("openssl-ktls", "syscall")]
)
def test_limited_records_show_on_the_wire(laboratory, layer, engine, suite):
    more = {"suite": suite, "size": 10_000, "workload": "upload", "record_size": 1_000}
    if not capabilities.max_payload():
        with pytest.raises(LeftOut, match="TLS_TX_MAX_PAYLOAD_LEN"):
            sample(laboratory, layer, engine, **more)
        return
    row, _ = sample(laboratory, layer, engine, **more)
    assert row["wire_tx_bytes"] == 10_000 + 10 * RECORD[suite]
    assert row["kernel_tx_records"] == 10 * row["operations"]


@pytest.mark.parametrize("link", ["veth", "veth 1ms", "veth 1ms 0.1%"])
@pytest.mark.parametrize(("layer", "engine"), [("plain", "uring"), ("userspace", "syscall"), ("kernel", "uring")])
def test_arms_over_a_pair_of_namespaces(laboratory, layer, engine, link):
    """The same records on the wire, and a round trip takes the delay twice."""
    suite = "" if layer == "plain" else TLS13
    for workload in ("echo", "upload"):
        row, cell = sample(laboratory, layer, engine, suite=suite, workload=workload, link=link)
        assert row["wire_tx_bytes"] == 64 + (RECORD[TLS13] if suite else 0)
        if layer == "kernel":
            assert row["kernel_tx_records"] == row["operations"]
        delay = Link.parse(link).delay_ms * 1e6
        assert row["latency_min"] * cell.operations_per_step >= 2 * delay


def test_a_link_that_this_kernel_cannot_lay_is_left_out_by_its_name(laboratory, monkeypatch):
    def refuse(_):
        raise MachineError("setting up a link", answered="no veth here", remedy="Load it.")

    monkeypatch.setattr(worker, "lay", refuse)
    with pytest.raises(LeftOut, match=r"setting up a link: no veth here\. Load it\."):
        sample(laboratory, "kernel", link="veth 7ms")


def test_a_cipher_that_this_kernel_has_not_is_left_out(laboratory):
    assert capabilities.ulp()
    with pytest.raises(LeftOut, match="does not have this cipher"):
        sample(laboratory, "kernel", suite="TLS_ECDHE_ECDSA_WITH_ARIA_128_GCM_SHA256")


def test_the_record_layer_is_called_by_what_moved_and_not_by_what_was_asked_for(laboratory):
    _, cell = sample(laboratory, "kernel")
    (channel,) = laboratory.arm(cell)._channels
    tx, rx = ktls.Direction.TX, ktls.Direction.RX
    assert channel.observed({tx: 1, rx: 1}) == "kernel"
    assert channel.observed({tx: 1, rx: 0}) == "kernel-tx"
    assert channel.observed({tx: 0, rx: 1}) == "kernel-rx"
    assert channel.observed({tx: 0, rx: 0}) == "none"
