"""How IPython shows a ktlslab error: what was tried, what was answered, what to do.

IPython calls an exception's `_render_traceback_` for the lines to print. In a notebook, a card with a folded traceback
is displayed, and one line is left for the front end's own error box. In a terminal, the three parts are printed, and
`import traceback; traceback.print_last()` shows the traceback. Scripts and the command line show errors as Python does.
"""

from __future__ import annotations

import sys
import traceback
from html import escape
from typing import Any

from ktlslab._html import card


def lines(error: Any) -> list[str]:  # a KtlsLabError, whose module imports this one
    """Return the lines that replace the traceback; in a notebook, display the rest as a card."""
    name = type(error).__name__
    parts = [f"{name}: {error.tried}"]
    parts += [f"  {part}: {text}" for part, text in (("answered", error.answered), ("remedy", error.remedy)) if text]
    if publish := publisher():
        # IPython asks twice, the second time for its history. What is raised again has another traceback.
        if getattr(error, "_displayed", None) is not error.__traceback__:
            error._displayed = error.__traceback__  # noqa: SLF001 - a note to ourselves
            publish({"text/plain": "\n".join(parts), "text/html": html(error)})
        return parts[:1]
    return [*parts, "(the whole traceback: import traceback; traceback.print_last())"]


def html(error: Any) -> str:
    """Return a card of the three parts with a folded traceback."""
    rows = [("tried", error.tried), ("answered", error.answered), ("what to do", error.remedy)]
    whole = "".join(traceback.format_exception(error))
    return (
        f"{card(type(error).__name__, [row for row in rows if row[1]])}"
        '<details><summary style="cursor:pointer;opacity:0.7">traceback</summary>'
        f'<pre style="font-size:0.85em;overflow-x:auto">{escape(whole)}</pre></details>'
    )


def publisher() -> Any:
    """Return the function that displays data in several formats, or None outside a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return shell.display_pub.publish
