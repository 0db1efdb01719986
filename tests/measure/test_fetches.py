"""Whole fetches: each row says who made the records, and its stages add up; what is recorded is of one commit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ktlslab.errors import MachineError, TableError, UsageError
from ktlslab.guests import qemu
from ktlslab.linux import capabilities
from ktlslab.linux.ring import Ring
from ktlslab.measure import fetcher, fetches, peer, ways
from ktlslab.measure.fetcher import BODIES, REPEATS, STAGES
from ktlslab.measure.payloads import payload
from ktlslab.measure.plan import named
from ktlslab.measure.worker import Laboratory
from ktlslab.profiling.frames import read_profile
from ktlslab.runs import clocks
from ktlslab.runs.counting import definition

DATA = Path(__file__).parents[2] / "data"
NO_STAGE = {"before": {"export", "install"}, "now": set()}


@pytest.fixture(scope="module")
def looked():
    return fetches.look((64, 100_000), 2)


def test_each_block_has_every_body_by_both_ways_and_one_of_them_twice(looked):
    cells = looked.groupby(["body_bytes", "repeat"])[["way", "replica"]].apply(
        lambda rows: sorted(rows.to_numpy().tolist())
    )
    assert len(cells) == 4
    assert all(cell == [["before", 0], ["now", 0], ["now", 1]] for cell in cells)


def test_the_stages_of_a_fetch_add_up_and_each_way_has_its_own(looked):
    for whole, part in (("latency", "latency"), ("client_cpu", "cpu")):
        assert (looked[[f"{part}_{stage}" for stage in STAGES]].sum(axis=1) == looked[whole]).all()
    for way, none in NO_STAGE.items():
        rows = looked[looked["way"] == way]
        assert {stage for stage in STAGES if (rows[f"latency_{stage}"] == 0).all()} == none
        assert {stage for stage in STAGES if (rows[f"latency_{stage}"] > 0).all()} == set(STAGES) - none


def test_a_row_says_who_made_the_records(looked):
    layers = looked.groupby("way")[["record_layer", "io_engine"]].agg(set)
    kernel = "kernel" if capabilities.ulp() else "userspace"
    assert layers.loc["before"].tolist() == [{"userspace"}, {"syscall"}]
    assert layers.loc["now"].tolist() == [{kernel}, {"uring"}]
    assert looked["suite"].nunique() == 1, "both ways agree on the same suite"


@pytest.fixture
def asked():
    with Laboratory() as laboratory:
        ports = laboratory.ports()
        yield ways.Asked(
            host=ports.address,
            port=ports.secure,
            ca=ports.ca,
            request=peer.REQUEST.pack(peer.DOWNLOAD, 3000, 1, 0, 1) + peer.MARK,
            size=1 + 3000,
        )


@pytest.mark.parametrize("way", ways.WAYS)
def test_both_ways_bring_the_same_bytes_and_tell_of_their_stages(asked, way):
    stages = []
    fetched = ways.WAYS[way](asked, None, stages.append)
    assert fetched.answer == peer.MARK + payload(3000)
    assert stages == [stage for stage in STAGES if stage not in NO_STAGE[way]]


def test_other_bytes_than_the_peer_s_are_no_row(asked, monkeypatch):
    wrong = ways.Fetched(answer=bytearray(3001), record_layer="userspace", io_engine="syscall", suite="")
    monkeypatch.setitem(ways.WAYS, "before", lambda *_: wrong)
    with Ring() as ring, pytest.raises(MachineError, match="other bytes came"):
        fetcher._row("before", asked, ring, 3000)


def test_a_row_that_the_kernel_s_counters_deny_is_refused(asked, monkeypatch):
    claimed = ways.Fetched(answer=bytearray(1 + 3000), record_layer="kernel", io_engine="uring", suite="")
    claimed.answer[1:] = payload(3000)
    monkeypatch.setitem(ways.WAYS, "now", lambda *_: claimed)
    with Ring() as ring, pytest.raises(MachineError, match="said kernel, and the kernel counts otherwise"):
        fetcher._row("now", asked, ring, 3000)


def test_a_cpu_clock_that_ticks_too_rarely_gives_nan_and_no_zero(asked, monkeypatch):
    monkeypatch.setattr(clocks, "resolution_ns", lambda: 10_000_000)
    with Ring() as ring:
        row = fetcher._row("before", asked, ring, 3000)
    assert math.isnan(row["client_cpu"])
    assert math.isnan(row["cpu_transfer"])
    assert row["latency"] > row["latency_transfer"] > 0


def test_a_stream_that_ends_early_gives_what_came():
    parts = iter([b"ab", b"c", b""])

    def receive(room):
        part = next(parts)
        room[: len(part)] = part
        return len(part)

    assert ways._filled(10, receive) == b"abc"


def test_what_is_no_table_of_fetches_is_refused(tmp_path):
    with pytest.raises(TableError, match="there is no such file"):
        fetches.read_fetches(tmp_path / "none.parquet")
    with pytest.raises(TableError, match="it lacks way"):
        fetches.read_fetches(DATA / "quick.parquet")
    with pytest.raises(UsageError, match=r"NAME\.parquet"):
        fetches.measure("here", output=tmp_path / "x.csv")


@pytest.mark.timeout(300)
def test_a_process_of_its_own_measures_here_and_leaves_provenance(tmp_path):
    frame = fetches.measure("here", output=tmp_path / "few.parquet", bodies=[64], repeats=1)
    again = fetches.read_fetches(tmp_path / "few.parquet")
    assert len(frame) == len(again) == 3
    (run,) = again.attrs["provenance"].values()
    assert run["packages"]["rtls"]
    assert set(again["unit"]) == {"ns"}


def test_what_is_recorded_is_whole_and_the_kernel_made_the_new_way_s_records():
    frame = fetches.read_fetches(DATA / "fetches.parquet")
    assert len(frame) == 3 * len(BODIES) * REPEATS
    assert set(frame["body_bytes"]) == set(BODIES)
    assert frame.groupby("way")["record_layer"].agg(set).to_dict() == {"before": {"userspace"}, "now": {"kernel"}}
    (run,) = frame.attrs["provenance"].values()
    assert run["commit"]
    assert not run["commit"].endswith("-dirty")
    assert definition(run) == qemu.CPU
    assert set(frame["unit"]) == {"instructions"}


def test_the_profile_beside_it_is_of_the_plan():
    profile = read_profile(DATA / "ways-profile.parquet")
    (run,) = profile.provenance.values()
    assert run["plan"]["name"] == "ways"
    assert {(cell["record_layer"], cell["payload_bytes"]) for cell in run["cells"]} == {
        (cell.record_layer, cell.payload_bytes) for cell in named(DATA / "ways.toml").cells()
    }
    assert not run["commit"].endswith("-dirty")
    assert "rustls" in set(profile.functions["class"])
