"""How an error of ktlslab's shows itself in IPython: what was tried, answered and to be done; the traceback is folded.

IPython asks an exception for the lines of its traceback by `_render_traceback_`. In a notebook a card is displayed and
one line is left for the front end's own error box; in a terminal the three parts are printed. There the traceback is
one `import traceback; traceback.print_last()` away; a script and the command line show errors as Python does.
"""

from __future__ import annotations

import sys
import traceback
from html import escape
from typing import Any

from ktlslab._html import card


def lines(error: Any) -> list[str]:  # a KtlsLabError, whose module imports this one
    """Return the lines that stand in a traceback's place; in a notebook the rest is displayed."""
    name = type(error).__name__
    parts = [f"{name}: {error.tried}"]
    parts += [f"  {part}: {text}" for part, text in (("answered", error.answered), ("remedy", error.remedy)) if text]
    if publish := _notebook():
        # IPython asks twice, the second time for its history. What is raised again has another traceback.
        if getattr(error, "_displayed", None) is not error.__traceback__:
            error._displayed = error.__traceback__  # noqa: SLF001 - a note to ourselves
            publish({"text/plain": "\n".join(parts), "text/html": html(error)})
        return parts[:1]
    return [*parts, "(the whole traceback: import traceback; traceback.print_last())"]


def html(error: Any) -> str:
    """Return a card of the three parts, with the traceback folded."""
    rows = [("tried", error.tried), ("answered", error.answered), ("what to do", error.remedy)]
    whole = "".join(traceback.format_exception(error))
    return (
        f"{card(type(error).__name__, [row for row in rows if row[1]])}"
        '<details><summary style="cursor:pointer;opacity:0.7">traceback</summary>'
        f'<pre style="font-size:0.85em;overflow-x:auto">{escape(whole)}</pre></details>'
    )


def _notebook() -> Any:
    """Return what displays data in several forms at once, None where IPython runs in no Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return shell.display_pub.publish
