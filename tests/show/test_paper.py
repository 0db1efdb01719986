"""What goes into a paper: the width, fonts that can be edited, no title in the picture, tables that LaTeX takes."""

from __future__ import annotations

import re
import zlib

import pandas as pd
import pytest

from ktlslab.errors import StorageError, UsageError
from ktlslab.show import paper, plots


@pytest.fixture
def one(frame):
    return plots.latency(frame, workload="echo", suite="AES-256-GCM")


def pdf_text(path):
    """Return a PDF with its compressed parts inflated."""
    data = path.read_bytes()
    for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        try:
            data += zlib.decompress(part)
        except zlib.error:
            continue
    return data


def test_a_column_is_as_wide_as_a_paper_s_and_its_text_can_be_edited(one, tmp_path):
    saved = paper.save(one, tmp_path / "latency")
    data = pdf_text(saved.pdf)
    width = float(re.search(rb"/MediaBox ?\[ ?0 0 ([\d.]+)", data)[1])
    assert width == pytest.approx(3.33 * 72, abs=0.5)
    assert b"/Subtype /Type42" in data or b"/FontFile2" in data
    assert b"/Subtype /Type3" not in data
    svg = saved.svg.read_text()
    assert "<text" in svg
    assert "payload per operation" in svg


def test_the_title_is_in_the_caption_and_not_in_the_picture(one, tmp_path):
    saved = paper.save(one, tmp_path / "latency")
    assert "Latency by payload" not in saved.svg.read_text()
    assert r"\includegraphics[width=\columnwidth]{latency.pdf}" in saved.latex
    assert "Latency by payload" in saved.latex
    assert "counted in instructions" in saved.latex
    assert r"95 \% bootstrap interval" in saved.latex
    assert saved.latex in repr(saved)


def test_the_plot_is_left_as_it_was(one, tmp_path):
    size, title = tuple(one.get_size_inches()), one.get_suptitle()
    before = one.png()
    paper.save(one, tmp_path / "latency")
    assert tuple(one.get_size_inches()) == size
    assert one.get_suptitle() == title
    assert len(one.legends) == 1
    assert one.png() == before


def test_what_does_not_fit_is_refused_with_a_way_out(frame, tmp_path):
    wide = plots.latency(frame)
    with pytest.raises(UsageError, match=r"3 panels do not fit into 3.33 inches.*width='page'"):
        paper.save(wide, tmp_path / "wide")
    assert r"\begin{figure*}" in paper.save(wide, tmp_path / "wide", width="page").latex
    with pytest.raises(UsageError, match="colum"):
        paper.save(wide, tmp_path / "wide", width="colum")
    with pytest.raises(UsageError, match="a number of inches"):
        paper.save(wide, tmp_path / "wide", width=100)
    with pytest.raises(StorageError, match="ENOENT"):
        paper.save(wide, tmp_path / "no/such/folder", width="page")


def test_a_table_in_latex():
    frame = pd.DataFrame({"cell_name": ["64 B & more", "50 %"], "ratio": [1.0, float("nan")], "bytes": [64, 262144]})
    said = paper.latex(frame, caption="What it costs", label="tab:cost")
    assert r"\begin{tabular}{lrr}" in said
    assert r"64 B \& more & 1.00 & 64 \\" in said
    assert r"50 \% & -- & 262,144 \\" in said
    assert "cell name & ratio & bytes" in said
    assert r"\toprule" in said
    assert r"\label{tab:cost}" in said


@pytest.mark.parametrize("rows", [0, 61])
def test_a_table_without_rows_or_with_too_many_is_refused(rows):
    with pytest.raises(UsageError, match=f"the frame has {rows} rows"):
        paper.latex(pd.DataFrame({"a": range(rows)}))
