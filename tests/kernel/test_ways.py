"""Where the kernel makes the records: what io_uring carries is payload, and each reason for falling back happens."""

from __future__ import annotations

import pytest

from ktlslab.linux import capabilities
from ktlslab.measure import fetcher
from ktlslab.measure.worker import Laboratory
from ktlslab.show import fallbacks, ways
from ktlslab.show.server import answer_to, demo_server

BYTES = len(answer_to(b"GET /40000 HTTP/1.1"))
ALWAYS = {"CIPHER_REFUSED", "VERSION_REFUSED", "SUITE_UNKNOWN", "NOT_ESTABLISHED", "KERNEL_REFUSED", "NO_IO_URING"}


@pytest.fixture(scope="module")
def server():
    with demo_server() as server:
        yield server


def test_io_uring_carries_plain_bytes_and_the_keys_go_in_by_three_calls(server):
    before, now = ways.traces(server)
    assert (before.record_layer, now.record_layer) == ("userspace", "kernel")
    assert not any("TLS" in step.call.arguments for step in before.steps)
    said = [step.said for step in now.steps if step.stage == "install" and not step.asks]
    assert said == ['setsockopt TCP_ULP "tls"', "setsockopt TLS_TX", "setsockopt TLS_RX"]
    moved = [one for step in now.steps if step.stage == "transfer" for one in step.operations]
    assert sum(one.result for one in moved if one.name == "RECV" and one.result > 0) == BYTES
    assert [one.name for one in moved].count("RECVMSG") == 2, "the server's two tickets"
    assert sum(sum(step.carried(sends)) for step in before.steps for sends in (True, False)) > BYTES


def test_each_reason_that_this_kernel_can_have_happens_and_no_other(server):
    found = {one.why: one for one in fallbacks.made(server)}
    expected = set(ALWAYS)
    if not capabilities.max_payload():
        expected.add("RECORDS_LIMITED")
    if not capabilities.uring_setsockopt():
        expected.add("NO_RING_SETSOCKOPT")
    assert set(found) == expected
    assert found["VERSION_REFUSED"].went_on == "kernel-tx+uring, the whole page"
    assert found["NO_IO_URING"].went_on == "kernel+syscall, the whole page"
    assert all("whole page" in found[name].went_on for name in ("SUITE_UNKNOWN", "KERNEL_REFUSED"))
    lines = fallbacks.table_of(found.values())
    assert {row[4] for row in lines.rows if row[0] in expected} == {"here"}


def test_a_fetch_says_that_the_kernel_made_the_records():
    with Laboratory() as laboratory:
        rows = list(fetcher.measured(laboratory, [20_000], 1))
    assert {(row["way"], row["record_layer"]) for row in rows} == {("before", "userspace"), ("now", "kernel")}
    assert len(rows) == 3
