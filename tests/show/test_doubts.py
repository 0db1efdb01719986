"""How far a figure can be trusted: what is drawn is what tables, profiles and estimates say, and nothing is merged."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ktlslab.errors import UsageError
from ktlslab.estimating.estimation import estimated
from ktlslab.measure.table import read_table
from ktlslab.profiling.frames import read_profile
from ktlslab.show import doubts
from tests.show.conftest import made_up

RECORDED = Path(__file__).parents[1] / "estimating"
PLAN = {"payloads": (64, 16384), "workloads": ("echo", "upload"), "repeats": 6, "control": True, "noise": 0.001}


def scaled(frame, factor):
    """Make the kernel's records dearer by a factor."""
    kernel = frame["record_layer"] == "kernel"
    dearer = frame.assign(latency_p50=frame["latency_p50"].where(~kernel, frame["latency_p50"] * factor))
    dearer.attrs = frame.attrs
    return dearer


@pytest.fixture(scope="module")
def counted():
    return made_up(suites=("TLS_AES_256_GCM_SHA384",), **PLAN)


@pytest.fixture(scope="module")
def profile():
    return read_profile(RECORDED / "recorded.profiled.parquet")


@pytest.fixture(scope="module")
def estimate(profile):
    return estimated(read_table(RECORDED / "recorded.measured.parquet"), profile)


def test_two_cpus_are_drawn_side_by_side_and_the_signs_that_flip_are_counted(counted):
    drawn = doubts.two_cpus({"one": scaled(counted, 0.8), "other": scaled(counted, 1.5)})
    said = (
        "one: less in 8 of 8 cells, more in 0",
        "other: less in 0 of 8 cells, more in 8",
        "The sign flips in 8 cells",
    )
    assert [line.startswith(word) for line, word in zip(drawn.caption.splitlines(), said, strict=True)] == [True] * 3
    axes = drawn.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["echo, 64 B, syscall", "echo, 64 B, uring"]
    points = [line.get_xdata() for line in axes.lines if line.get_marker() in {"^", "s"}]
    assert [len(one) for one in points] == [8, 8]
    assert (points[0] < 0).all()
    assert (points[1] > 0).all()
    assert [text.get_text() for text in drawn.legends[0].get_texts()][:2] == ["one", "other"]


def test_tables_without_a_common_cell_are_no_picture(counted):
    halves = [counted[counted["workload"] == name] for name in ("echo", "upload")]
    with pytest.raises(UsageError, match="no cell of kTLS in common"):
        doubts.two_cpus(dict(zip("ab", halves, strict=True)))
    with pytest.raises(UsageError, match="no cell of kTLS in common"):
        doubts.two_cpus({})


def test_classes_add_up_to_all_that_was_counted(profile):
    cell = {"payload_bytes": 16384, "io_engine": "syscall", "suite": "TLS_AES_256_GCM_SHA384"}
    shown = doubts.classes(profile, cell, by=["record_layer"], kinds=["AEAD", "copying"])
    rows = profile.functions
    for name, value in cell.items():
        rows = rows[rows[name] == value]
    sums = rows.groupby("record_layer")["instructions"].sum()
    assert shown.head == ("instructions per operation", *sums.index)
    assert [row[0] for row in shown.rows] == ["AEAD", "copying", "everything else", "in all"]
    assert shown.rows[-1][1:] == tuple(f"{value:,.0f}" for value in sums)
    aead = rows[rows["class"].str.startswith("AEAD")].groupby("record_layer")["instructions"].sum()
    assert shown.rows[0][1:] == tuple(f"{value:,.0f}" for value in aead)
    assert shown.caption == "16 KiB, syscall, TLS_AES_256_GCM_SHA384: both ends together."


def test_bindings_show_the_share_of_each_arm_and_how_far_they_are_apart(profile):
    drawn = doubts.bindings(profile, payloads=(64, 16384), workload="echo")
    rows = profile.functions
    rows = rows[(rows["workload"] == "echo") & (rows["payload_bytes"] == 64) & (rows["end"] == "client")]
    ours = rows[rows["class"].isin(doubts.BINDING)].groupby(["record_layer", "io_engine"])["instructions"].sum()
    ours = ours.drop("stdlib-ssl", errors="ignore")
    said = drawn.caption.splitlines()[0]
    assert said.startswith("64 B: ")
    assert said.endswith(f"within {ours.max() - ours.min():,.0f}.")
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["64 B", "16 KiB"]
    with pytest.raises(UsageError, match="no cell has workload 'sendfile'"):
        doubts.bindings(profile, payloads=(64,), workload="sendfile")
    with pytest.raises(UsageError):
        doubts.bindings("a profile", payloads=(64,))


def test_what_was_weighed_stands_beside_what_was_measured_under_a_head_that_says_so(estimate):
    shown = doubts.weighed(estimate)
    assert shown.head[2:] == ("counted", "ESTIMATED from weights", "measured")
    cells = estimate.cells.set_index(["record_layer", "io_engine", "payload_bytes", "suite"])["measured_ns"]
    want = cells["userspace", "syscall", 64, "TLS_AES_256_GCM_SHA384"] / cells["plain", "syscall", 64, ""]
    row = next(row for row in shown.rows if row[0] == "echo, 64 B, syscall" and "256" in row[1])
    assert row[4] == f"{want:.2f}"
    assert "Counted on QEMU" in shown.caption
    assert "measured on AMD EPYC. " in shown.caption
    refused = estimate.cells[(estimate.cells["record_layer"] == "userspace") & estimate.cells["estimate_ns"].isna()]
    assert sum(row[3] == "refused" for row in shown.rows) == len(refused)


def test_equal_arms_stand_beside_those_that_differ(counted):
    drawn = doubts.equal_arms(counted)
    said = drawn.caption.splitlines()
    assert said[0].startswith("A/A: one arm, run twice: 4 differences, up to 0.")
    assert said[0].endswith("; 0 are called findings.")
    assert said[1].startswith("kernel over userspace records: 8 differences, up to ")
    assert said[2].startswith("The floor is 0.")
    bare = counted[counted["replica"] == 0]
    bare.attrs = counted.attrs
    assert "A/A: one arm, run twice: 0 differences" in doubts.equal_arms(bare).caption


def test_a_frame_that_is_no_table_is_refused():
    with pytest.raises(UsageError):
        doubts.equal_arms(pd.DataFrame())


def test_a_caption_is_shown_as_text(counted):
    drawn = doubts.equal_arms(counted)
    assert repr(doubts.said(drawn)) == drawn.caption
    assert "A/A: one arm, run twice" in doubts.said(drawn)._repr_html_()
    with pytest.raises(UsageError):
        doubts.said(7)
    assert repr(doubts.said("a < b")) == "a < b"
    assert "a &lt; b" in doubts.said("a < b")._repr_html_()
