"""The sign map: every cell's number, sign and hatching are those of its effect."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv, to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

from ktlslab.measure.analysis import effects
from ktlslab.show.signmap import NOTHING, sign_map, signed


@pytest.fixture(scope="module")
def mixed(make_frame):
    """Make a frame in which the kernel is dearer at one payload, and as dear as userspace at another."""
    frame = make_frame(payloads=(64, 1024, 16384), control=True, repeats=5, noise=0.002)
    kernel = frame["record_layer"] == "kernel"
    for payload, factor in ((64, 1.3), (1024, 1.0)):
        chosen = kernel & (frame["payload_bytes"] == payload)
        userspace = frame[(frame["record_layer"] == "userspace") & (frame["payload_bytes"] == payload)]
        keys = ["workload", "suite", "io_engine", "repeat"]
        costs = userspace.set_index(keys)["latency_p50"]
        wanted = frame.loc[chosen, keys].apply(tuple, axis=1).map(costs) * factor
        spread = frame.loc[chosen, "repeat"].map({0: 0.999, 1: 1.001, 2: 1.0, 3: 1.002, 4: 0.998})
        frame.loc[chosen, "latency_p50"] = wanted * spread
    return frame


def cells(axes):
    """Return (column, row) -> (number, hatch, colour) of a panel."""
    boxes = {
        (round(box.get_x() + 0.5), round(box.get_y() + 0.5)): box for box in axes.patches if isinstance(box, Rectangle)
    }
    texts = {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}
    return {at: (texts[at], box.get_hatch(), box.get_facecolor()) for at, box in boxes.items()}


def test_every_cell_carries_its_effect(mixed):
    figure = sign_map(mixed)
    found = effects(mixed, ("latency_p50",))
    found = found[found["effect"] == "kTLS"]
    assert [axes.get_title() for axes in figure.axes] == ["uring", "syscall"]
    rows = ["AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305"]
    left = figure.axes[0]
    labels = dict(zip(left.get_yticks(), (label.get_text() for label in left.get_yticklabels()), strict=True))
    for axes in figure.axes:
        drawn = cells(axes)
        assert len(drawn) == 3 * 3 * 3
        part = found[found["at"] == axes.get_title()]
        for _, effect in part.iterrows():
            x = [64, 1024, 16384].index(effect["payload_bytes"])
            heading = ["echo", "upload", "download"].index(effect["workload"]) * 4
            suite = {"TLS_AES_128": 0, "TLS_AES_256": 1, "TLS_CHACHA2": 2}[effect["suite"][:11]]
            number, hatch, colour = drawn[x, heading + 1 + suite]
            assert labels[heading + 1 + suite].startswith(rows[suite])
            assert number == signed(effect["ratio"])
            assert (hatch == NOTHING) == (effect["verdict"] == "none")
            if effect["verdict"] != "none":  # blue is less, orange is more
                hue = rgb_to_hsv(to_rgb(colour))[0]
                assert (hue > 0.5) == (effect["verdict"] == "less")
    verdicts = set(found["verdict"])
    assert verdicts == {"less", "more", "none"}


def test_signs_are_told_in_words_too(mixed):
    figure = sign_map(mixed)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "\N{MINUS SIGN}: kernel has less latency than userspace",
        "+: kernel has more",
        "no difference found",
    ]
    assert "18 cells" not in figure.caption
    assert "Of 54 cells the kernel record layer has less latency in" in figure.caption
    assert "percent" in figure.get_suptitle()


def test_a_colour_of_which_there_is_little_survives_as_png(measured):
    figure = sign_map(measured)
    pixels = np.asarray(Image.open(io.BytesIO(figure.png())).convert("RGB"), dtype=float).reshape(-1, 3)
    for patch in figure.legends[0].get_patches()[:2]:
        wanted = 255 * np.array(to_rgb(patch.get_facecolor()))
        assert np.abs(pixels - wanted).sum(axis=1).min() < 12


def test_more_throughput_is_blue(make_frame):
    frame = make_frame(payloads=(64,), control=True, repeats=4)
    drawn = cells(sign_map(frame, quantity="throughput_bytes_per_unit").axes[0])
    numbers, _, colours = zip(*drawn.values(), strict=True)
    assert all(number.startswith("+") for number in numbers)
    assert all(rgb_to_hsv(to_rgb(colour))[0] > 0.5 for colour in colours)


def test_a_panel_for_each_kernel_and_engine(measured):
    assert [axes.get_title() for axes in sign_map(measured).axes] == [
        "Linux 6.1.0-test, uring",
        "Linux 6.1.0-test, syscall",
        "Linux 7.3.4-test, uring",
        "Linux 7.3.4-test, syscall",
    ]


def test_numbers_have_their_sign():
    assert [signed(ratio) for ratio in (0.5, 0.88, 0.966, 1.0, 1.034, 2.5)] == [
        "\N{MINUS SIGN}50",
        "\N{MINUS SIGN}12",
        "\N{MINUS SIGN}3.4",
        "+0.0",
        "+3.4",
        "+150",
    ]
