"""io_uring as notebook 07 shows it, on this machine's kernel, and what was recorded of it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ktlslab import read_table
from ktlslab.errors import RingUnavailableError, UsageError
from ktlslab.linux.ring import Operation
from ktlslab.show import rings

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours.fileno(), theirs.fileno()


@pytest.fixture(scope="module")
def frame():
    return read_table(DATA / "standard.parquet")


def meanings(shown):
    return [row[1:2] + row[3:] for row in shown.rows]


def test_completions_come_as_operations_finish_and_name_theirs(pair):
    room = bytearray(8)
    shown = rings.run(Operation.recv(pair[1], room), Operation.send(pair[0], b"ping"))
    assert [row[0] for row in shown.rows] == ["2", "1"]
    assert shown.caption.startswith("2 operations in one submission")
    assert room[:4] == b"ping"


def test_a_chain_breaks_at_the_first_that_fails(pair):
    sends = [Operation.send(fd, b"x", linked=at < 2) for at, fd in enumerate((pair[0], 9999, pair[0]))]
    assert meanings(rings.run(*sends)) == [
        ("send, linked to the next", "1 byte"),
        ("send, linked to the next", "EBADF (Bad file descriptor)"),
        ("send", "ECANCELED (Operation canceled)"),
    ]


def test_what_does_not_complete_is_cancelled_and_said(pair, monkeypatch):
    monkeypatch.setattr(rings, "_WAIT_S", 0.05)
    assert "cancelled" in repr(rings.run(Operation.recv(pair[0], bytearray(8))))


def test_one_receive_takes_all_that_comes():
    assert rings.multishot([b"a", b"b"]).rows == [("b'a'", "b'a'"), ("b'b'", "b'b'")]


def test_without_io_uring_each_says_so(monkeypatch):
    def refused(*_arguments, **_options):
        raise RingUnavailableError("opening a ring", answered="EPERM", remedy="")

    monkeypatch.setattr(rings, "Ring", refused)
    for shown in (rings.run(Operation.nop()), rings.multishot([b"a"]), rings.zero_copy()):
        assert "io_uring is not available here: EPERM" in repr(shown)
        assert "io_uring is not available" in shown._repr_html_()


def test_what_is_no_operation_is_refused():
    with pytest.raises(UsageError, match=r"Operation\.send"):
        rings.run("send")


def test_recorded_system_calls_fall_with_depth_where_a_ring_shares_them(frame):
    shown = rings.calls(frame)
    lines = {row[:3]: list(map(float, row[3:])) for row in shown.rows}
    assert shown.head[3:] == ("depth 1", "depth 4", "depth 16", "depth 64")
    for layer in ("plain", "kernel"):
        by_ring = lines["echo", layer, "uring"]
        assert by_ring == sorted(by_ring, reverse=True)
        assert by_ring[-1] < lines["echo", layer, "syscall"][-1] / 4
    assert "recorded: system calls" in shown.caption


def test_recorded_ratios_have_a_verdict_at_every_depth(frame):
    shown = rings.pays(frame)
    assert {row[:2] for row in shown.rows} >= {("echo", "kernel"), ("upload", "plain")}
    for row in shown.rows:
        for cell in row[2:]:
            ratio, verdict = cell.split()
            assert verdict in {"less", "none", "more"}
            assert verdict == "none" or (float(ratio) > 1) == (verdict == "more")


def test_depths_are_a_row_each_and_a_table_without_them_is_refused(frame):
    table = rings.depths(frame)
    assert list(table.columns) == ["syscall", "uring"]
    assert list(table.index) == [1, 4, 16, 64]
    with pytest.raises(UsageError, match="no depth above 1"):
        rings.calls(frame[frame["depth"] == 1])
