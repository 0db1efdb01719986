"""One validation, one analysis of a table, however much is drawn from it."""

from __future__ import annotations

from ktlslab.show import analysis, plots, reporting
from ktlslab.show.html import Html, Lines, table


def test_a_report_analyses_its_table_once(measured, monkeypatch):
    calls = []

    def effects(*arguments):
        calls.append(arguments)
        return kept(*arguments)

    kept = analysis.effects
    monkeypatch.setattr(analysis, "effects", effects)
    frame = analysis.ready(measured)
    plots.sign_map(frame)
    plots.ratio(frame)
    reporting.page(frame, {}, "made up")
    assert len(calls) == 1


def test_a_frame_that_is_no_more_is_forgotten(measured):
    before = len(analysis._known)
    analysis.analysed(measured)
    assert len(analysis._known) == before


def test_the_provenance_stays_with_a_validated_frame(measured):
    assert analysis.ready(measured).query("depth == 1").attrs == measured.attrs
    assert analysis.ready(analysis.ready(measured)) is not measured


def test_text_in_a_table_is_escaped_and_html_is_not():
    html = table(("<a>",), [("1 < 2\n3", Html("<b>4</b>"))], numbers=(1,))
    assert "&lt;a&gt;" in html
    assert "1 &lt; 2<br>3" in html
    assert "<b>4</b>" in html
    assert "px" not in html.replace("1px solid", "")


def test_what_a_cell_shows_is_no_string():
    lines = Lines(head=("a", "b"), rows=[("1", "2")], numbers=(1,), caption="Two < three.")
    assert "Two &lt; three." in lines._repr_html_()
    assert repr(lines) == "Two < three.\na | b\n1 | 2"
