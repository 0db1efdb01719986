"""The scoreboard in pictures: every promise is there, with a mark that needs no colour, and its check a click away."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from ktlslab.promises.catalogue import all_promises
from ktlslab.promises.check import ABSENT, BROKEN, KEPT, UNTRIED
from ktlslab.promises.table import to_frame
from ktlslab.show import promisegrid, scoreboard

KERNELS = ("6.1.0-test", "7.3.4-test")
CHOSEN = all_promises()[:30]
RISKY = "a_reader_already_in_tcp_gets_what_tcp_has"


@pytest.fixture(scope="module")
def frame():
    """Make a scoreboard of thirty promises on two kernels, of which the newer keeps two more."""
    rows = []
    for kernel in KERNELS:
        for at, promise in enumerate(CHOSEN):
            verdict = {3: BROKEN, 4: BROKEN, 5: ABSENT}.get(at, KEPT)
            verdict = KEPT if at in {4, 5} and kernel == KERNELS[1] else verdict
            row = {"machine": kernel[:3], "kernel": kernel, "group": promise.group, "promise": promise.name}
            row |= {"says": promise.says, "source": promise.source, "verdict": verdict, "seen": f"<{verdict}>"}
            row["cve"] = promise.cve
            rows.append(row | {"seconds": 0.1, "file": promise.file, "line": promise.line, "run_id": kernel})
    return to_frame(rows, {kernel: {"cpu": "a CPU", "emulated": True} for kernel in KERNELS})


def test_every_promise_has_its_square_and_what_is_not_kept_its_mark(frame):
    drawn = promisegrid.heatmap(frame)
    (axes,) = drawn.axes
    squares = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(squares) == len(frame)
    marks = 2 * (frame["verdict"] == BROKEN).sum() + (frame["verdict"] == ABSENT).sum()
    assert len(axes.lines) == marks, "two strokes for broken, one for what a kernel does not have"
    words = [text.get_text() for text in axes.texts]
    for kernel in KERNELS:
        assert f"Linux {kernel}" in words
    assert set(frame["group"]) <= set(words)
    drawn.savefig(io.BytesIO(), format="png")  # warns where something does not fit


def test_a_promise_is_at_the_same_place_for_each_kernel(frame):
    (axes,) = promisegrid.heatmap(frame).axes
    squares = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    rows = {}
    for square in squares:
        rows.setdefault(square.get_y(), []).append(square.get_x())
    for places in rows.values():
        half = len(places) // 2
        offsets = {
            round(right - left, 6) for left, right in zip(sorted(places)[:half], sorted(places)[half:], strict=True)
        }
        assert len(offsets) == 1


def test_the_verdicts_differ_in_brightness_as_well():
    def luminance(colour):
        red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright = sorted(luminance(promisegrid.FILL[verdict]) for verdict in (BROKEN, KEPT, ABSENT))
    assert bright[1] - bright[0] > 0.3
    assert bright[2] - bright[1] > 0.15


def test_a_line_opens_to_what_was_seen_and_to_the_source(frame):
    html = scoreboard.promises(frame).html
    assert len(re.findall(r"<summary", html)) == len(CHOSEN) + frame["group"].nunique()
    for promise in CHOSEN:
        assert f"def {promise.name}(" in html
        assert f"{promise.file}, line {promise.line}" in html
    assert "&lt;broken&gt;" in html
    assert "<broken>" not in html
    assert "<script" not in html
    assert "http" not in html


def test_what_differs_and_what_nobody_keeps_are_found(frame):
    assert set(scoreboard.differing(frame)["promise"]) == {CHOSEN[4].name, CHOSEN[5].name}
    assert set(scoreboard.broken_by_all(frame)["promise"]) == {CHOSEN[3].name}
    text = scoreboard.in_words(frame).text
    assert "Of 30 promises, 27 are kept by every kernel here and 1 by none." in text
    assert "The kernels differ in 2 promises." in text
    assert "Linux 6.1.0-test: 27 kept, 2 broken, 1 not in this kernel." in text


@pytest.fixture
def untried(frame):
    """Return the scoreboard where the older kernel did not try the dangerous check."""
    risky = (frame["promise"] == RISKY) & (frame["kernel"] == KERNELS[0])
    return frame.assign(verdict=frame["verdict"].mask(risky, UNTRIED), seen=frame["seen"].mask(risky, "no guest"))


def test_what_was_not_tried_is_a_dot_and_no_difference(frame, untried):
    assert RISKY in set(frame["promise"])
    (axes,) = promisegrid.heatmap(untried).axes
    assert len([patch for patch in axes.patches if isinstance(patch, Rectangle)]) == len(frame) - 1
    assert [line.get_marker() for line in axes.lines].count(".") == 1
    html = scoreboard.promises(untried).html
    assert "? not tried" in html
    assert "no guest" in html
    assert "can take a kernel down that has CVE-2025-38616" in html
    text = scoreboard.in_words(untried).text
    assert "Of 30 promises, 26 are kept by every kernel here and 1 by none." in text
    assert "The kernels differ in 2 promises." in text
    assert "Linux 6.1.0-test: 26 kept, 2 broken, 1 not in this kernel, 1 not tried." in text
    assert "Linux 7.3.4-test: 29 kept, 1 broken, 0 not in this kernel." in text
    assert RISKY not in set(scoreboard.differing(untried)["promise"])


def test_many_kernels_are_shown_below_each_other_and_by_marks(frame):
    parts = [frame.assign(kernel=frame["kernel"] + f"+{number}") for number in range(3)]
    many = to_frame(pd.concat(parts).to_dict("records"), {})
    drawn = promisegrid.heatmap(many)
    (axes,) = drawn.axes
    names = [text for text in axes.texts if text.get_text().startswith("Linux ")]
    assert len({text.get_position()[0] for text in names}) == 3
    assert len({text.get_position()[1] for text in names}) == 2
    drawn.savefig(io.BytesIO(), format="png")
    html = scoreboard.promises(many).html
    assert 'title="broken">✗ </span>' in html
    assert max(float(width) for width in re.findall(r"flex:0 0 ([\d.]+)em", html)) * 6 < 40


def test_a_scoreboard_says_where_it_is_from(frame):
    html = scoreboard.origin(frame).html
    assert "a CPU, emulated" in html
    for kernel in KERNELS:
        assert kernel in html


def test_a_check_that_is_gone_is_said_to_be(frame):
    gone = frame.assign(promise=frame["promise"] + "_of_old")
    assert "not in the ktlslab at hand" in scoreboard.promises(gone).html
    assert "There are none" in scoreboard.promises(gone.iloc[:0]).html
