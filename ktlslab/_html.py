"""HTML for notebooks: a table, and a card of names and values, styled inline.

JupyterLab strips style sheets and classes from a notebook that it does not trust, so every element carries its own
style. Sizes are in em: they follow the reader's content font size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

LINE = "rgba(128,128,128,0.45)"
INDENT = "\N{EN SPACE}"  # at a cell's beginning: a step to the right, which wrapped lines take as well
_CODE = re.compile(r"`([^`\n]+)`")
_MAX_UNBROKEN = 26  # characters: names and numbers stay on one line, sentences may wrap


class Html(str):
    """Text that is already HTML. All other text is escaped."""

    __slots__ = ()


def markup(value: object) -> Html:
    """Return a value as HTML, with its line breaks and what stands in backticks as code; `Html` is left as it is."""
    if isinstance(value, Html):
        return value
    return Html(_CODE.sub(r"<code>\1</code>", escape(str(value))).replace("\n", "<br>"))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = ()) -> Html:
    """Return a table. The columns of `numbers` are aligned to the right; a head of empty names is left out."""
    top = f"<thead>{_line('th', head, numbers)}</thead>" if any(head) else ""
    body = "".join(_line("td", row, numbers) for row in rows)
    return Html(
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;table-layout:auto;font-size:0.88em;'
        f'margin:0.3em 0">{top}<tbody>{body}</tbody></table></div>'
    )


def card(title: str, rows: Iterable[tuple[str, object]]) -> Html:
    """Return names and values under a heading."""
    named = [(Html(f'<span style="opacity:0.7">{escape(name)}</span>'), value) for name, value in rows]
    return Html(f'<div><div style="font-weight:bold">{escape(title)}</div>{table((), named)}</div>')


def _line(tag: str, cells: Sequence[object], numbers: Sequence[int]) -> str:
    drawn = "".join(_cell(tag, cell, number=at in numbers) for at, cell in enumerate(cells))
    return f'<tr style="border-bottom:1px solid {LINE}">{drawn}</tr>'


def _cell(tag: str, cell: object, *, number: bool) -> str:
    short = not isinstance(cell, Html) and all(len(line) <= _MAX_UNBROKEN for line in str(cell).split("\n"))
    text = cell if isinstance(cell, Html) else str(cell).lstrip(INDENT)
    steps = len(str(cell)) - len(str(text))
    style = (
        f"padding:0.15em 1em 0.15em {steps}em;vertical-align:top;text-align:{'right' if number else 'left'}"
        + ";white-space:nowrap" * (short and tag == "td")
    )
    return f'<{tag} style="{style}">{markup(text)}</{tag}>'
