"""Handouts: nothing from elsewhere, no script, solutions apart, and copies that are for reading only."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ktlslab.errors import KtlsLabError
from ktlslab.show import handouts

ROOT = Path(__file__).parents[2]
WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "0%| | 0/96"}


@pytest.fixture
def executed(tmp_path):
    shown = [new_output("display_data", WIDGET), new_output("stream", name="stdout", text="measured\n")]
    shown.append(new_output("execute_result", {**WIDGET, "text/html": "<b>a form's picture</b>"}, execution_count=1))
    cells = [
        new_markdown_cell("# The handoff, <b>byte</b> by byte"),
        new_code_cell("1 + 1", outputs=shown),
        new_markdown_cell("**1** Which?\n\n<details><summary>Hint</summary>\n\nThe second.\n\n</details>"),
        new_markdown_cell("<details><summary>Solutions</summary>\n\n`number = 2`\n\n</details>", id="solutions"),
    ]
    path = tmp_path / "01-one.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"widgets": {"a": 1}}), path)
    return path


def test_what_is_made(executed, tmp_path, monkeypatch):
    monkeypatch.setattr(handouts, "browser", lambda: None)
    folder = tmp_path / "handouts"
    index, *made = handouts.make([executed], folder)
    assert [path.name for path in made] == ["01-one.ipynb", "01-one.html", "solutions.html"]
    page, solutions = (folder / "01-one.html").read_text(), (folder / "solutions.html").read_text()
    assert "measured" in page
    assert "<b>a form's picture</b>" in page
    assert "0/96" not in page
    assert "The second." in page
    assert "number = 2" not in page
    assert "0%|" not in page
    assert "number = 2" in solutions
    assert "<summary>" not in solutions
    said = index.read_text()
    assert 'href="01-one.html"' in said
    assert 'href="solutions.html"' in said
    assert ".pdf" not in said
    copy = folder / "01-one.ipynb"
    assert copy.stat().st_mode & 0o222 == 0
    assert "measured" in copy.read_text()
    assert "number = 2" not in copy.read_text()
    nbformat.validate(nbformat.read(copy, as_version=4))
    handouts.make([executed], folder)  # again: a file for reading only is replaced


def test_a_page_needs_nothing_from_elsewhere(executed):
    page = handouts.as_page(nbformat.read(executed, as_version=4), "one")
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert not re.search(r"@import|url\(['\"]?https?:", page)


def test_the_notebooks_need_no_script_on_a_page():
    """Formulas would: MathJax draws them."""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                assert not re.search(r"\$[^`$\n]+\$|```mermaid", "".join(cell["source"])), path.name


def test_a_pdf_by_chromium_is_a4(executed, tmp_path):
    made = handouts.make([executed], tmp_path / "handouts")
    pdf = next(path for path in made if path.name == "01-one.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    width, height = (float(size) for size in re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf).groups())
    assert (width, height) == (pytest.approx(595, abs=1), pytest.approx(842, abs=1))


def test_what_cannot_be_printed_says_how_to(tmp_path, monkeypatch):
    monkeypatch.setattr(handouts, "browser", lambda: "/bin/false")
    page = tmp_path / "page.html"
    page.write_text("<p>")
    with pytest.raises(KtlsLabError, match="from any browser"):
        handouts.as_pdf(page)


def test_the_teachers_page_names_notebooks_that_there_are():
    text = (ROOT / "notebooks/TEACHING.md").read_text()
    headings = set()
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        first = "".join(json.loads(path.read_text())["cells"][0]["source"])
        headings.add(re.match("# ([^:\\n]+)", first)[1].strip())
    named = set(re.findall(r"\*([A-Z][^*\n]{8,40})\*", text)) - {"Restart and run all above", "Run All Cells"}
    assert named
    assert named <= headings
