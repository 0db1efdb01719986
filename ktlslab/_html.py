"""How an artefact shows itself in a notebook: a small table of names and values, and nothing secret."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def card(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a table with a heading; values are escaped."""
    cell = "text-align:left;padding:1px 12px 1px 0;vertical-align:top"
    body = "".join(
        f'<tr><td style="{cell};opacity:.7">{escape(name)}</td>'
        f'<td style="{cell};font-family:monospace">{escape(str(value))}</td></tr>'
        for name, value in rows
    )
    return f"<table><caption style='text-align:left;font-weight:bold'>{escape(title)}</caption>{body}</table>"
