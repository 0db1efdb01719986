"""Where the CPU went, distributions, kernels side by side, depth: what they draw is what the table says."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from ktlslab.errors import UsageError
from ktlslab.measure.plan import Arm
from ktlslab.show import plots, selection
from ktlslab.show.depth import against
from ktlslab.show.histograms import cumulated, distributions, percentile
from ktlslab.show.kernelratios import kernels
from ktlslab.show.split import ENOUGH, Split, cpu_split

TICK = 4e6


@pytest.fixture(scope="module")
def wide(make_frame):
    return make_frame(payloads=(64, 16384), workloads=("echo",), repeats=4)


def lengths(axes):
    return [patch.get_width() for patch in axes.patches]


def test_bars_are_as_long_as_the_exact_clock_says(wide):
    axes = cpu_split(wide, payload=64).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "plain + syscall"
    rows = wide[(wide["payload_bytes"] == 64) & (wide["suite"].isin(["TLS_AES_256_GCM_SHA384", ""]))]
    want = rows.groupby(["record_layer", "io_engine"])[["client_cpu", "peer_cpu"]].mean().to_numpy().ravel()
    assert sorted(lengths(axes)) == pytest.approx(sorted(want))  # too few ticks: a whole bar each
    assert "instructions per operation" in axes.get_xlabel()


def test_user_and_system_are_told_apart_where_ticks_suffice(wide):
    many = wide.assign(operations=100_000, elapsed=10**12)
    figure = cpu_split(many, payload=64)
    assert len(lengths(figure.axes[0])) == 2 * 2 * 6  # user and system of client and peer of six arms
    one = many[(many["payload_bytes"] == 64) & (many["record_layer"] == "plain") & (many["io_engine"] == "syscall")]
    split = Split.of(one, "client", TICK)
    assert split.share == pytest.approx(0.4)
    ticks = one["client_cpu"].sum() * 100_000 / TICK
    assert split.error == pytest.approx(1.96 * math.sqrt(0.4 * 0.6 / ticks))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:4] == ["client, user", "client, system", "peer, user", "peer, system"]
    assert any(label.startswith("interrupts") for label in labels)


def test_few_ticks_split_nothing(wide):
    one = wide[(wide["payload_bytes"] == 64) & (wide["record_layer"] == "plain") & (wide["io_engine"] == "syscall")]
    enough = math.ceil(ENOUGH * TICK / one["client_cpu"].sum())
    assert Split.of(one.assign(operations=enough), "client", TICK).known
    assert not Split.of(one.assign(operations=enough - 1), "client", TICK).known


def test_system_calls_and_bytes_on_the_wire_stand_beside(wide):
    figure = cpu_split(wide, payload=64)
    assert sorted(set(lengths(figure.axes[1]))) == [1.0, 2.0]
    assert sorted(set(lengths(figure.axes[2]))) == [0.0, 44.0]
    untold = cpu_split(wide.assign(client_syscalls=math.nan, machine_softirq=math.nan), payload=64)
    assert lengths(untold.axes[1]) == []
    assert {text.get_text() for text in untold.axes[1].texts} == {"not available"}
    assert not any("interrupts" in text.get_text() for text in untold.legends[0].get_texts())


def test_histograms_of_all_blocks_are_one_distribution():
    values, share = cumulated(pd.Series([[[10, 1], [20, 2]], [[10, 1], [40, 4]]]))
    assert list(values) == [10, 20, 40]
    assert list(share) == pytest.approx([0.25, 0.5, 1.0])
    assert [percentile(values, share, part) for part in (0.25, 0.26, 0.5, 0.99)] == [10, 20, 20, 40]


def test_a_distribution_rises_through_each_arm(wide):
    figure = distributions(wide)
    assert [axes.get_title() for axes in figure.axes] == ["echo, 64 B", "echo, 16 KiB"]
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
        steps = [line for line in axes.lines if len(line.get_xdata()) > 1]
        assert {line.get_label() for line in steps} == {
            f"{layer} + {engine}" for layer in ("plain", "userspace", "kernel") for engine in ("syscall", "uring")
        }
        for line in steps:
            assert line.get_ydata()[-1] == pytest.approx(1)
            assert (np.diff(line.get_ydata()) >= 0).all()
    assert "instructions per operation" in figure.axes[0].get_xlabel()
    with pytest.raises(UsageError, match="no histograms"):
        distributions(wide.assign(latency_histogram=[[]] * len(wide)))


def test_kernels_are_divided_by_the_oldest(measured):
    figure = kernels(measured, workload="echo")
    assert [axes.get_title() for axes in figure.axes] == [
        "userspace + syscall",
        "userspace + uring",
        "kernel + syscall",
        "kernel + uring",
    ]
    for axes in figure.axes:
        assert len(axes.containers) == 1  # two kernels, of which the oldest is the line at 1
        assert axes.containers[0].lines[0].get_ydata() == pytest.approx(0.9, rel=0.01)
        low, high = axes.containers[0].lines[2][0].get_segments()[0][:, 1]
        assert low < 0.9 < high
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["Linux 7.3.4-test", "1: Linux 6.1.0-test"]
    with pytest.raises(UsageError, match="several --on"):
        kernels(measured[measured["machine"] == "6.1"])


def test_depth_is_drawn_for_what_has_several(measured):
    figure = against(measured, "depth", workload="echo")
    axes = figure.axes[0]
    assert axes.get_title() == "echo, 64 B"
    assert list(axes.get_xticks()) == [1, 16]
    uring = next(one for one in axes.containers if one.lines[0].get_markerfacecolor() == "#0072B2")
    first, last = uring.lines[0].get_ydata()
    assert first / last == pytest.approx(4, rel=0.02)  # the made-up gain of io_uring at 16 in flight
    assert "kernel + uring" in figure.caption
    with pytest.raises(UsageError, match="with several"):
        against(measured, "connections")
    with pytest.raises(UsageError, match="Choose depth"):
        against(measured, "payload_bytes")


def test_kernels_are_in_the_order_of_their_versions(make_frame):
    one = make_frame(payloads=(64,), layers=("plain",), workloads=("echo",), repeats=1)
    releases = ("6.12.107+deb13-amd64", "7.3.4-test", "6.1.0-50-amd64", "6.2.0")
    frame = pd.concat([one.assign(kernel=release) for release in releases])
    assert [place[1] for place in selection.places(frame)] == [
        "6.1.0-50-amd64",
        "6.2.0",
        "6.12.107+deb13-amd64",
        "7.3.4-test",
    ]


def test_a_fleets_table_is_drawn_whole(measured):
    """An executor took each workload to another host: all of them are in the plots, none in the title."""
    hosts = measured.assign(host=measured["workload"].map({"echo": "a", "upload": "b"}))
    one, two = (plots.sign_map(frame, machine="7.3") for frame in (measured, hosts))
    texts = [[text.get_text() for axes in figure.axes for text in axes.texts] for figure in (one, two)]
    assert texts[0] == texts[1]
    assert plots.latency(hosts).caption == plots.latency(measured).caption


def test_an_arm_is_named_as_in_effects():
    assert Arm.named("kernel-tx+uring") == Arm("kernel-tx", "uring")
    assert str(Arm("kernel", "uring")) == "kernel + uring"
