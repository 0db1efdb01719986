r"""Figures and tables for a paper: plots at the width of its column, in PDF and SVG, and LaTeX.

    paper.save(plots.latency(frame, workload="echo", suite="AES-128-GCM"), "latency")     # latency.pdf, latency.svg
    print(paper.latex(plots.ratios(frame)[["payload_bytes", "suite", "latency_p50"]]))

Text stays text, in fonts that an editor can change (TrueType, pdf.fonttype 42; in SVG by name). What stands above a
plot in a notebook is left out of the picture and goes into the caption.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import StorageError, UsageError, errno_name
from ktlslab.packages import extra
from ktlslab.show import axes as common
from ktlslab.show.html import plural
from ktlslab.show.style import Plot

with extra("lab"):
    import matplotlib as mpl
    import pandas as pd
    from matplotlib.text import Text

if TYPE_CHECKING:
    from matplotlib.artist import Artist

WIDTHS = {"column": 3.33, "page": 7.0}  # inches: one of two columns, and both
_PANEL = 1.7  # inches: the narrowest panel whose axis can be read
_TEXT = 0.8  # of the size in a notebook
_MAX_ROWS = 60  # of a table on a page
_SPECIAL = {one: f"\\{one}" for one in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The files of a figure, and the LaTeX that shows it."""

    pdf: Path
    svg: Path
    latex: str

    def __repr__(self) -> str:
        return f"{self.pdf} and {self.svg}:\n\n{self.latex}"


def save(figure: Plot, path: str | Path, *, width: str | float = "column") -> Saved:
    """Write a plot as PATH.pdf and PATH.svg for a paper; the plot itself is left as it was.

    `width`: column (3.33 inches), page (7.0), or inches. Raises UsageError where the panels do not fit side by side,
    StorageError where a file cannot be written.
    """
    tried = "saving a figure for a paper"
    _checks.instance(tried, "figure", figure, Plot, "what a function of `ktlslab.plots` returns")
    path = _checks.path(tried, "path", path, "the path of the files, without a suffix")
    if isinstance(width, str):
        inches = WIDTHS[_checks.word(tried, "width", width, WIDTHS)]
    else:
        inches = _checks.number(tried, "width", width, 1, 20, source="a number of inches, column or page")
    panels = max((spec.get_gridspec().ncols for one in figure.axes if (spec := one.get_subplotspec())), default=1)
    if panels > 1 and inches / panels < _PANEL:
        remedy = "Draw one workload or suite, as in plots.latency(frame, workload='echo', suite='AES-128-GCM')."
        if inches < WIDTHS["page"]:
            remedy += " Or take width='page'."
        raise UsageError(tried, answered=f"{panels} panels do not fit into {inches:g} inches", remedy=remedy)
    made = [path.with_name(f"{path.name}.{kind}") for kind in ("pdf", "svg")]
    caption = _caption(figure)
    with _printed(figure, inches), mpl.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
        for one in made:
            try:
                figure.savefig(one, facecolor="white")
            except OSError as error:
                answered, remedy = errno_name(error.errno or 0), "Choose a folder that exists and may be written."
                raise StorageError(f"writing {one}", answered=answered, remedy=remedy) from error
    size = r"\columnwidth" if inches <= WIDTHS["column"] else r"\textwidth"
    lines = [rf"\includegraphics[width={size}]{{{path.name}.pdf}}", rf"\caption{{{_escaped(caption)}}}"]
    kind = "figure" if inches <= WIDTHS["column"] else "figure*"
    body = "\n".join(f"  {line}" for line in lines)
    return Saved(pdf=made[0], svg=made[1], latex=f"\\begin{{{kind}}}\n{body}\n\\end{{{kind}}}")


def latex(frame: pd.DataFrame, *, digits: int = 3, caption: str = "", label: str = "") -> str:
    """Return a frame as a LaTeX table (packages booktabs), numbers to the right and with `digits` significant digits.

    UsageError where it has no row, or more than fit on a page.
    """
    tried = "making a LaTeX table"
    _checks.instance(tried, "frame", frame, pd.DataFrame)
    _checks.whole(tried, "digits", digits, 1, 15)
    if not 0 < len(frame) <= _MAX_ROWS:
        remedy = f"Choose rows: 1 to {_MAX_ROWS}, as in frame[frame['workload'] == 'echo']."
        raise UsageError(tried, answered=f"the frame has {plural(len(frame), 'row')}", remedy=remedy)
    numbers = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame]
    lines = [
        r"\begin{table}",
        *([rf"  \caption{{{_escaped(caption)}}}"] if caption else []),
        *([rf"  \label{{{label}}}"] if label else []),
        rf"  \begin{{tabular}}{{{''.join('r' if number else 'l' for number in numbers)}}}",
        r"    \toprule",
        _line(str(name).replace("_", " ") for name in frame),
        r"    \midrule",
        *(_line(_said(value, digits) for value in row) for row in frame.itertuples(index=False, name=None)),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


@contextmanager
def _printed(figure: Plot, inches: float) -> Iterator[None]:
    """Give a plot for a while a paper's width, smaller text, a legend that fits, and no title."""
    (across, down), legends = figure.get_size_inches(), list(figure.legends)
    title = [one for one in figure.texts if one.get_text() == figure.get_suptitle()]
    keys = [_keys(legend) for legend in legends]
    rows = max((spec.get_gridspec().nrows for one in figure.axes if (spec := one.get_subplotspec())), default=1)
    texts: list[tuple[Text, Any]] = []
    try:
        for one in title:
            one.set_visible(False)
            one.set_in_layout(False)
        figure.legends.clear()
        lines = sum(common.legend(figure, some, "", width=inches / _TEXT) for some in keys)
        figure.set_size_inches(inches, 0.3 + rows * min(1.75, down / rows) + 0.19 * lines)
        texts = [(one, one.get_fontsize()) for one in figure.findobj(Text)]
        for text, points in texts:
            text.set_fontsize(points * _TEXT)
        yield
    finally:
        for text, points in texts:
            text.set_fontsize(points)
        figure.legends[:] = legends
        figure.set_size_inches(across, down)
        for one in title:
            one.set_visible(True)
            one.set_in_layout(True)


def _keys(legend: Any) -> list[Artist]:
    """Return the entries of a legend, each with its name."""
    for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
        handle.set_label(text.get_text())
    return list(legend.legend_handles)


def _caption(figure: Plot) -> str:
    """Return what stands above a plot, and what its legend says of points and bars, as sentences."""
    notes = [legend.get_title().get_text() for legend in figure.legends]
    heading = figure.heading or (figure.get_suptitle().replace("\n", " "),)
    said = [*filter(None, heading), *(note for note in notes if note not in {"", "None"})]
    return " ".join(f"{common.sentence(one)}." for one in said)


def _line(cells: Iterator[str]) -> str:
    return f"    {' & '.join(_escaped(cell) for cell in cells)} \\\\"


def _said(value: Any, digits: int) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "--"
        if value == 0 or not 1e-4 <= abs(value) < math.inf:
            return f"{value:.{digits}g}"
        return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(one, one) for one in text)
