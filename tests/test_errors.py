"""How errors are shown: a card with a folded traceback in a notebook, three lines in a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

import ktlslab
from ktlslab import errors

TRIED, ANSWERED, REMEDY = "connecting to localhost", "`port` is 99999", "It is a whole number from 1 to 65535."
CELL = "import ktlslab\n\ndef mine():\n    ktlslab.connect('localhost', 99999)\n\nmine()"


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.fixture
def notebook():
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(made, timeout=60, allow_errors=True, kernel_name="python3").execute()
    return made


def test_in_a_notebook_an_error_is_a_card_with_the_traceback_folded(notebook):
    (shown,) = [out for out in notebook.cells[0].outputs if out.output_type == "display_data"]
    card, _, folded = shown.data["text/html"].partition("<details>")
    for part in ("UsageError", TRIED, ANSWERED, REMEDY):
        assert re.sub("`([^`]*)`", r"<code>\1</code>", part) in card
        assert part in shown.data["text/plain"]
    assert "Traceback" not in card
    assert "in mine" in folded
    assert "connect(" in folded


def test_the_front_ends_own_error_box_is_one_line_and_programs_get_the_whole_message(notebook):
    (error,) = [out for out in notebook.cells[0].outputs if out.output_type == "error"]
    assert error.traceback == [f"UsageError: {TRIED}"]
    assert (error.ename, error.evalue) == ("UsageError", f"{TRIED}: {ANSWERED}. {REMEDY}")


def test_an_exported_page_holds_the_card_and_the_folded_traceback(notebook):
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert REMEDY in page
    assert "<details><summary" in page
    assert "in mine" in page


def test_in_ipythons_terminal_the_three_parts_are_printed_and_no_markup(tmp_path):
    (tmp_path / "cell.py").write_text(CELL)
    argv = [sys.executable, "-m", "IPython", "--colors=NoColor", "--no-banner", str(tmp_path / "cell.py")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ))
    for part in (TRIED, ANSWERED, REMEDY):
        assert part in done.stdout + done.stderr
    assert "<details" not in done.stdout
    assert "HTML object" not in done.stdout


def test_python_itself_shows_errors_as_ever(tmp_path):
    done = subprocess.run([sys.executable, "-c", CELL], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "in mine" in done.stderr
    assert done.stderr.strip().endswith(f"UsageError: {TRIED}: {ANSWERED}. {REMEDY}")


def test_markup_in_a_message_is_shown_as_text():
    from ktlslab._traceback import html

    assert "<script>" not in html(errors.UsageError("trying <script>", answered="<b>", remedy="<i>"))


def test_every_error_is_of_one_tree():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 15
    assert all(issubclass(kind, ktlslab.KtlsLabError) for kind in kinds)
