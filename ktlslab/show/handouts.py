"""What a class gets on paper or as files: `notebooks/run --handouts`.

Of every executed notebook: a page that needs nothing from elsewhere and no script, the same as PDF for A4, and a copy
of the notebook with its outputs that an editor opens for reading only. Solutions are apart, in a document of their own.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ktlslab.errors import KtlsLabError
from ktlslab.packages import extra

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SOLUTIONS = "solutions"  # the id of the cells with them, and the name of the document
_SECONDS = 120
_HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
# Paper does not scroll: what is wider than a page wraps, and is set smaller. Hints are unfolded.
_PRINTED = """
@page { size: A4; margin: 12mm; }
@media print {
  body { padding: 0 !important; }
  .jp-InputPrompt, .jp-OutputPrompt { display: none !important; }
  .jp-OutputArea-output, .jp-OutputArea-output div { overflow: visible !important; }
  .jp-RenderedHTMLCommon { font-size: 11px !important; }
  .jp-OutputArea-output table { font-size: 8.5px !important; }
  .jp-OutputArea-output td, .jp-OutputArea-output th { padding: 1px 0.5em 1px 0 !important; }
  .jp-OutputArea-output td { white-space: normal !important; }
  .jp-InputArea pre, .jp-OutputArea-output pre, .jp-OutputArea-output [style*="white-space:pre"] {
    white-space: pre-wrap !important;
  }
  .jp-InputArea pre, .jp-OutputArea-output pre { font-size: 10px !important; }
  .jp-OutputArea-output [style*="white-space:pre"] { font-size: 9px !important; }
  h1, h2, h3, .jp-Cell-inputWrapper { break-after: avoid; }
  tr, img, .jp-CodeCell .jp-Cell-inputWrapper { break-inside: avoid; }
  details td, .jp-InputArea pre, .jp-OutputArea-output pre { overflow-wrap: anywhere !important; }
  .jp-RenderedImage img { max-width: 100% !important; height: auto !important; }
  .jp-MarkdownCell details::details-content { content-visibility: visible !important; height: auto !important; }
}
"""


def as_page(notebook: Any, title: str) -> str:
    """Return an executed notebook as one HTML page, without scripts. A widget is left out, or its still picture stays.

    MissingExtraError where nbconvert is not installed: JupyterLab brings it.
    """
    with extra("lab"):
        from nbconvert import HTMLExporter  # noqa: PLC0415 - Jupyter is an extra

    still = copy.deepcopy(notebook)
    still.metadata.pop("widgets", None)
    for cell in still.cells:
        if "outputs" in cell:
            cell.outputs = list(filter(None, map(_without_widget, cell.outputs)))
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="")  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(still, {"metadata": {"name": title}})
    body = re.sub(r"<script\b.*?</script>", "", body, flags=re.DOTALL)
    return str(body.replace("</head>", f"<style>{_PRINTED}</style></head>", 1))


def browser() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def as_pdf(page: Path) -> Path:
    """Print a page as PDF beside it, by Chromium. KtlsLabError where that fails."""
    target = page.with_suffix(".pdf")
    program = browser()
    assert program, "the caller looks for a browser first"  # noqa: S101 - for the type checker
    with tempfile.TemporaryDirectory(prefix="ktlslab-chromium-") as folder:
        argv = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={folder}"]
        argv += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND", "--no-pdf-header-footer"]
        argv += [f"--print-to-pdf={target}", page.as_uri()]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
            failed = "" if done.returncode == 0 and target.exists() else done.stderr.strip()[-500:] or "no PDF"
        except subprocess.TimeoutExpired:
            failed = f"nothing within {_SECONDS} s"
    if failed:
        raise KtlsLabError(f"printing {page.name}", answered=failed, remedy=f"Print {page} from any browser.")
    return target


def make(notebooks: Sequence[Path], folder: Path) -> list[Path]:
    """Write the handouts of executed notebooks into a folder, and return their files, the list of them first.

    Without Chromium there are no PDFs. Raises KtlsLabError where one cannot be printed.
    """
    with extra("lab"):
        import nbformat  # noqa: PLC0415
        from nbformat.v4 import new_markdown_cell, new_notebook  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    solved, titles, made = [], {}, []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        titles[path.stem] = _title(notebook) or path.stem
        apart = [cell for cell in notebook.cells if cell.get("id") == SOLUTIONS]
        notebook.cells = [cell for cell in notebook.cells if cell.get("id") != SOLUTIONS]
        made.append(_read_only(notebook, folder / path.name))
        solved += [new_markdown_cell(f"## {titles[path.stem]}\n\n{_unfolded(cell.source)}") for cell in apart]  # type: ignore[no-untyped-call]
        made.append(folder / f"{path.stem}.html")
        made[-1].write_text(as_page(notebook, titles[path.stem]), encoding="utf-8")
    if solved:
        document = new_notebook(cells=[new_markdown_cell("# Solutions"), *solved])  # type: ignore[no-untyped-call]
        titles[SOLUTIONS] = "Solutions"
        made.append(folder / f"{SOLUTIONS}.html")
        made[-1].write_text(as_page(document, "Solutions"), encoding="utf-8")
    if browser():
        made += [as_pdf(page) for page in made if page.suffix == ".html"]
    index = folder / "index.html"
    index.write_text(_index(titles, {path.name for path in made}), encoding="utf-8")
    return [index, *made]


def _read_only(notebook: Any, target: Path) -> Path:
    """Write a notebook that an editor opens for reading only."""
    target.unlink(missing_ok=True)
    target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    target.chmod(0o444)
    return target


def _without_widget(output: Any) -> Any:
    """Return an output as a page without scripts can show it: of a widget its HTML, if it has some."""
    if output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None) is None:
        return output
    return output if "text/html" in output["data"] else None


def _title(notebook: Any) -> str:
    found = (_HEADING.search(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    return next((match[1] for match in found if match), "")


def _unfolded(source: str) -> str:
    return re.sub(r"</?details>|<summary>.*?</summary>", "", source).strip()


def _index(titles: dict[str, str], names: set[str]) -> str:
    """Return the list of the handouts as a page."""
    lines = []
    for stem, title in titles.items():
        others = [f'<a href="{stem}{kind}">{kind[1:]}</a>' for kind in (".pdf", ".ipynb") if f"{stem}{kind}" in names]
        lines.append(f'<li><a href="{stem}.html">{escape(title)}</a> {" ".join(others)}</li>')
    style = "body{font:1em/1.6 sans-serif;max-width:45em;margin:2em auto;padding:0 1em;color-scheme:light dark}"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>ktlslab: the notebooks</title>'
        f"<style>{style}</style></head><body><h1>ktlslab: the notebooks</h1><ul>{''.join(lines)}</ul></body></html>\n"
    )
