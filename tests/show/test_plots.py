"""Plots of a made-up table: what they carry, what they tell apart without colour, what they refuse."""

from __future__ import annotations

import io
import subprocess
import sys

import pandas as pd
import pytest
from PIL import Image

from ktlslab.errors import UsageError
from ktlslab.measure.analysis import effects, intervals, noise_floor
from ktlslab.show import plots
from ktlslab.show.style import WIDTH

GRIDS = (plots.latency, plots.throughput, lambda frame, **chosen: plots.cpu(frame, of="client", **chosen))
ALL = (*GRIDS, plots.ratio, plots.sign_map, plots.cpu_split, plots.distributions, plots.figures)


def first_axes(figure):
    return figure.axes[0]


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
    assert len(draw(frame, workload="echo", suite="AES-256-GCM").axes) == 1


def test_cpu_is_the_clients_and_the_peers(frame):
    assert [axes.get_ylabel().split("\n")[0] for axes in plots.cpu(frame, workload="echo").axes[::3]] == [
        "echo, client CPU",
        "echo, peer CPU",
    ]


def test_titles_say_where_and_by_which_clock(frame, make_frame):
    assert "Linux 7.3.4-test (guest 7.3), counted in instructions" in plots.latency(frame).get_suptitle()
    emulated = plots.latency(make_frame(unit="ns", payloads=(64,))).get_suptitle()
    assert "timed in nanoseconds, on an emulated CPU" in emulated


def test_an_axis_of_seconds_says_so(make_frame):
    frame = make_frame(unit="ns", payloads=(64,))
    assert first_axes(plots.latency(frame)).get_ylabel() == "echo, latency\nseconds per operation"
    assert first_axes(plots.throughput(frame)).get_ylabel() == "echo, throughput\nbytes per second"


def test_payloads_are_labelled_by_name(frame):
    axes = plots.latency(frame, workload="echo").axes[-1]
    ticks = [axes.xaxis.get_major_formatter()(tick) for tick in axes.get_xticks()]
    assert ticks == ["64\nB", "1\nKiB", "16\nKiB", "256\nKiB"]


def test_a_point_is_the_typical_value_and_its_bar_the_interval(make_frame):
    frame = make_frame(payloads=(64, 1024), repeats=6, noise=0.01, layers=("kernel",))
    figure = plots.latency(frame, workload="echo", suite="AES-256-GCM")
    for container, engine in zip(first_axes(figure).containers, ("syscall", "uring"), strict=True):
        want = intervals(frame, "latency_p50")
        want = want[(want["io_engine"] == engine) & (want["workload"] == "echo")]
        want = want[want["suite"] == "TLS_AES_256_GCM_SHA384"].sort_values("payload_bytes")
        assert list(container.lines[0].get_ydata()) == pytest.approx(list(want["value"]))
        ends = [list(segment[:, 1]) for segment in container.lines[2][0].get_segments()]
        assert ends == [pytest.approx(list(pair)) for pair in zip(want["low"], want["high"], strict=True)]
    assert "95 % bootstrap interval" in figure.legends[0].get_title().get_text()
    assert "6 blocks" in figure.legends[0].get_title().get_text()


def test_arms_differ_without_colour(frame):
    """By marker, line and filling, as a black-and-white printer leaves them."""
    lines = [container.lines[0] for container in first_axes(plots.latency(frame, workload="echo")).containers]
    looks = {(line.get_marker(), line.get_linestyle(), line.get_markerfacecolor() == "white") for line in lines}
    assert len(looks) == len(lines)


def test_the_noise_floor_is_a_bar_of_its_size_on_an_axis_of_values(make_frame):
    frame = make_frame(payloads=(64, 1024), control=True, repeats=5, noise=0.01)
    axes = first_axes(plots.latency(frame, workload="echo"))
    floors = noise_floor(frame)
    floor = floors[(floors["workload"] == "echo") & (floors["quantity"] == "latency_p50")]["floor"].max()
    bar = next(line for line in axes.lines if line.get_label() == "noise floor")
    low, high = bar.get_ydata()
    assert high / low == pytest.approx(floor)
    assert any(text.get_text().startswith("floor ") for text in axes.texts)


def test_the_ratio_is_the_effects_and_shows_tie_and_floor(make_frame):
    frame = make_frame(payloads=(64, 1024), control=True, repeats=5, noise=0.01)
    figure = plots.ratio(frame)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["echo", "upload", "download"]
    found = effects(frame)
    found = found[(found["effect"] == "kTLS") & (found["workload"] == "echo") & (found["quantity"] == "latency_p50")]
    axes = first_axes(figure)
    assert axes.get_yscale() == "log"
    assert len(axes.containers) == 6  # three suites, two I/O engines
    shown = sorted(value for container in axes.containers for value in container.lines[0].get_ydata())
    assert shown == pytest.approx(sorted(found["ratio"]))
    band = next(part for part in axes.collections if part.get_label() == "noise floor").get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(found["floor"].max())
    assert band.min() == pytest.approx(1 / found["floor"].max())
    assert "kernel / userspace" in axes.get_ylabel()


def test_every_figure_fits_a_notebook_and_says_what_it_is(drawn):
    assert set(drawn) == {
        "sign-map-latency",
        "sign-map-cpu",
        "ratio",
        "latency",
        "cpu-client",
        "cpu-peer",
        "throughput",
        "cpu-split",
        "kernels",
        "distributions",
        "depth",
    }
    for name, figure in drawn.items():
        assert figure.get_size_inches()[0] <= WIDTH
        assert figure.alt.endswith("."), name
        assert figure.caption.endswith("."), name
        assert "counted in instructions" in figure.get_suptitle(), name
    assert repr(drawn["ratio"]).startswith("Plot(Kernel over userspace")


def test_a_figure_shows_itself_as_png_with_nothing_cut_off(drawn):
    figure = drawn["sign-map-latency"]
    data, size = figure._repr_png_()
    assert data.startswith(b"\x89PNG")
    assert size["width"] > 300
    page = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert page.x0 > -0.05
    assert page.y0 > -0.05
    assert page.x1 < width + 0.05
    assert page.y1 < height + 0.05


def test_what_a_frame_has_no_data_for_is_left_out(make_frame):
    frame = make_frame(payloads=(16384,), layers=("plain", "userspace"))
    names = set(plots.figures(frame.assign(latency_histogram=[[]] * len(frame))))
    assert names == {"latency", "cpu-client", "cpu-peer", "throughput", "cpu-split"}


def test_plain_tcp_alone_can_be_drawn(frame):
    assert first_axes(plots.latency(frame[frame["record_layer"] == "plain"])).get_title() == "no TLS"


def test_of_several_kernels_the_newest_is_drawn_and_any_other_on_request(measured):
    assert "Linux 7.3.4-test (guest 7.3)" in plots.latency(measured).get_suptitle()
    assert "Linux 6.1.0-test (guest 6.1)" in plots.latency(measured, machine="6.1").get_suptitle()
    with pytest.raises(UsageError, match=r"There are 6\.1, 7\.3"):
        plots.latency(measured, machine="5.4")


def test_what_is_not_as_usual_is_in_the_title(frame):
    deep = frame.assign(depth=16, link="veth 1ms")
    assert ", over veth 1ms, depth 16" in plots.latency(deep, workload="echo").get_suptitle().replace("\n", " ")


def test_where_a_table_varies_something_the_title_says_which_of_it_is_shown(frame, make_frame):
    assert "depth" not in plots.latency(frame).get_suptitle()
    varied = make_frame(depths=(1, 16), payloads=(64, 16384), control=True)
    drawn = (plots.latency, plots.sign_map, plots.ratio, plots.cpu_split, plots.distributions)
    for draw in drawn:
        assert ", depth 1" in draw(varied).get_suptitle().replace("\n", " "), draw.__name__
    assert ", depth" not in plots.against(varied, "depth").get_suptitle()


@pytest.mark.parametrize("draw", ALL)
def test_units_are_never_mixed(frame, make_frame, draw):
    mixed = pd.concat([frame, make_frame(unit="ns", payloads=(64,))])
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
        ({"workload": "sideways"}, "There are echo, upload, download"),
        ({"suite": "AES-128-CCM"}, "no rows of TLS_AES_128_CCM_SHA256"),
        ({"suite": "ROT13"}, "there is no suite 'ROT13'"),
    ):
        with pytest.raises(UsageError, match=said):
            plots.latency(frame, **chosen)
    with pytest.raises(UsageError, match="client, peer"):
        plots.cpu(frame, of="cat")
    with pytest.raises(UsageError, match=r"There are 64 B, 1 KiB"):
        plots.cpu_split(frame, payload=65)
    lone = frame[frame["record_layer"] != "kernel"]
    for draw in (plots.ratio, plots.sign_map):
        with pytest.raises(UsageError, match="Sweep both record layers"):
            draw(lone)


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


def test_on_a_page_a_figure_takes_the_reader_s_theme_and_a_file_is_white(drawn):
    figure = drawn["latency"]
    page, _ = figure._repr_png_()
    shown, kept = (Image.open(io.BytesIO(data)).convert("RGBA") for data in (page, figure.png()))
    assert shown.getpixel((2, 2))[3] == 0
    assert kept.getpixel((2, 2)) == (255, 255, 255, 255)
    opaque = {pixel[:3] for _, pixel in shown.getcolors(1 << 24) if pixel[3] == 255}
    assert (0, 0, 0) not in opaque  # what is black on paper would not be seen on black
    assert figure.axes[0].yaxis.label.get_color() == "black"
