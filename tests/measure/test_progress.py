"""Which bar a sweep has, and where its lines go: in a notebook, without widgets, and elsewhere."""

from __future__ import annotations

import importlib.util

import pytest

from ktlslab.measure import progress


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setattr(progress, "publisher", lambda: print)


def bar_of(say):
    return say._tqdm.__module__


def test_elsewhere_it_is_text_on_standard_error(capsys):
    say = progress.Progress(shown=True)
    say.line("about 3 min")
    assert bar_of(say) == "tqdm.std"
    assert capsys.readouterr() == ("", "about 3 min\n")


@pytest.mark.usefixtures("notebook")
def test_in_a_notebook_it_is_a_widget_and_lines_are_not_red(capsys):
    say = progress.Progress(shown=True)
    say.line("about 3 min")
    assert bar_of(say) == "tqdm.notebook"
    assert capsys.readouterr() == ("about 3 min\n", "")


@pytest.mark.usefixtures("notebook")
def test_in_a_notebook_without_ipywidgets_it_is_text_and_no_warning(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert bar_of(progress.Progress(shown=True)) == "tqdm.std"
