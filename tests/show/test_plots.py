"""Plots of a made-up table: what they say, what they tell apart without colour, what they refuse."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from ktlslab.errors import UsageError
from ktlslab.show import plots

GRIDS = (plots.latency, plots.throughput, lambda frame, **chosen: plots.cpu(frame, of="client", **chosen))


@pytest.mark.parametrize("draw", GRIDS, ids=["latency", "throughput", "cpu"])
def test_a_panel_for_each_direction_and_suite(frame, draw):
    figure = draw(frame)
    assert len(figure.axes) == 9
    assert [axes.get_title() for axes in figure.axes[:3]] == [
        "AES-128-GCM, TLS 1.3",
        "AES-256-GCM, TLS 1.3",
        "CHACHA20-POLY1305, TLS 1.3",
    ]
    for axes in figure.axes:
        assert len(axes.containers) == 6  # every arm, plain TCP's in each suite's panel
    labels = [axes.get_ylabel() for axes in figure.axes[::3]]
    assert [label.split("\n")[0].split(",")[0] for label in labels] == ["echo", "upload", "download"]
    assert all("instruction" in label for label in labels)
    assert len(draw(frame, direction="echo", suite="AES-256-GCM").axes) == 1


def test_cpu_is_the_clients_and_the_peers(frame):
    assert [axes.get_ylabel().split("\n")[0] for axes in plots.cpu(frame, direction="echo").axes[::3]] == [
        "echo, client",
        "echo, peer",
    ]


def test_titles_say_where_and_by_which_clock(frame, make_frame):
    assert "Linux 7.3.4-test (guest 7.3), counted in instructions" in plots.latency(frame).get_suptitle()
    emulated = plots.latency(make_frame(unit="ns")).get_suptitle()
    assert "timed in nanoseconds, on an emulated CPU" in emulated


def test_an_axis_of_seconds_says_so(make_frame):
    frame = make_frame(unit="ns")
    assert plots.latency(frame).axes[0].get_ylabel() == "echo\nseconds an operation"
    assert plots.throughput(frame).axes[0].get_ylabel() == "echo\nbytes a second"


def test_payloads_are_labelled_by_name(frame):
    axes = plots.latency(frame).axes[-1]
    ticks = [axes.xaxis.get_major_formatter()(tick) for tick in axes.get_xticks()]
    assert ticks == ["64 B", "1 KiB", "16 KiB", "256 KiB"]


def test_a_point_is_the_median_and_its_bar_reaches_from_lowest_to_highest(frame):
    rows = frame[(frame["record_layer"] == "kernel") & (frame["io_engine"] == "uring")]
    rows = rows[(rows["direction"] == "echo") & (rows["suite"] == "TLS_AES_256_GCM_SHA384")]
    chosen = plots.latency(rows).axes[0].containers[0]
    small = rows[rows["payload_bytes"] == 64]["latency_p50"]
    assert chosen.lines[0].get_ydata()[0] == pytest.approx(small.median())
    ends = chosen.lines[2][0].get_segments()[0][:, 1]
    assert list(ends) == pytest.approx([small.min(), small.max()])


def test_arms_differ_without_colour(frame):
    """By marker, line and filling, as a black-and-white printer leaves them."""
    lines = [container.lines[0] for container in plots.latency(frame).axes[0].containers]
    looks = {(line.get_marker(), line.get_linestyle(), line.get_markerfacecolor() == "white") for line in lines}
    assert len(looks) == len(lines)


def test_the_ratio_is_taken_at_the_same_io_engine_and_shows_the_tie(frame):
    figure = plots.ratio(frame)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["echo", "upload", "download"]
    for axes in figure.axes:
        assert axes.get_yscale() == "log"
        low, high = axes.get_ylim()
        assert low < 1 < high
        assert len(axes.containers) == 6  # three suites, two I/O engines
    assert "latency" in figure.axes[0].get_ylabel()
    assert "kernel / userspace" in figure.axes[0].get_ylabel()


def test_every_plot_draws_itself_as_png(frame):
    drawn = plots.figures(frame)
    assert set(drawn) == {"latency", "cpu-client", "cpu-peer", "throughput", "ratio"}
    for figure in drawn.values():
        data, size = figure._repr_png_()
        assert data.startswith(b"\x89PNG")
        assert size["width"] > 300
    assert repr(drawn["ratio"]).startswith("Plot(Kernel over userspace")


def test_a_table_without_kernel_rows_has_no_ratio_plot(frame):
    assert "ratio" not in plots.figures(frame[frame["record_layer"] != "kernel"])


def test_plain_tcp_alone_can_be_drawn(frame):
    assert plots.latency(frame[frame["record_layer"] == "plain"]).axes[0].get_title() == "no TLS"


def test_several_kernels_get_a_column_each(frame):
    other = frame.assign(machine="6.1", kernel="6.1.0-test", run_id="r2")
    both = pd.concat([frame, other])
    titles = [axes.get_title() for axes in plots.latency(both, suite="AES-256-GCM", direction="echo").axes]
    assert titles == ["AES-256-GCM, TLS 1.3\nLinux 7.3.4-test", "AES-256-GCM, TLS 1.3\nLinux 6.1.0-test"]
    assert len(plots.ratio(both).axes) == 3 * 6


def test_depth_and_connections_make_arms_of_their_own(frame):
    deep = frame[frame["io_engine"] == "uring"].assign(depth=16, connections=4)
    figure = plots.latency(pd.concat([frame, deep]), direction="echo", suite="AES-256-GCM")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "kernel + uring, depth 16, 4 connections" in names
    assert len(figure.axes[0].containers) == len(names) == 9


@pytest.mark.parametrize("draw", [*GRIDS, plots.ratio, plots.summary, plots.figures])
def test_units_are_never_mixed(frame, make_frame, draw):
    mixed = pd.concat([frame, make_frame(unit="ns")])
    with pytest.raises(UsageError, match="mixes the units instructions and ns"):
        draw(mixed)


def test_what_cannot_be_shown_is_refused_with_a_reason(frame):
    for wrong, said in (
        (frame.head(0), "no rows"),
        (frame.assign(record_layer_observed="userspace"), "no proof"),
        (frame.assign(payload_ok=False), "no proof"),
    ):
        with pytest.raises(UsageError, match=said):
            plots.latency(wrong)
    for chosen, said in (
        ({"direction": "sideways"}, "There are echo, upload, download"),
        ({"suite": "AES-128-CCM"}, "no rows of TLS_AES_128_CCM_SHA256"),
        ({"suite": "ROT13"}, "no cipher suite"),
    ):
        with pytest.raises(UsageError, match=said):
            plots.latency(frame, **chosen)
    with pytest.raises(UsageError, match="client or peer"):
        plots.cpu(frame, of="cat")


def test_plots_leave_no_global_state():
    """Neither pyplot nor a backend is touched: a figure is a value."""
    code = "import sys, ktlslab.show.plots; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_what_a_guest_shows_is_light():
    code = """
import sys, ktlslab.show.handoff, ktlslab.show.server
print(*{'pandas', 'numpy', 'matplotlib'} & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
