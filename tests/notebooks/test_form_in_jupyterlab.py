"""A sweep as a person starts, watches and stops it in JupyterLab: by the form, and by a cell that is interrupted.

Screenshots are kept, light and dark, narrow and wide, in the folder that the run names.
"""

from __future__ import annotations

import contextlib
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ktlslab.linux import capabilities

pytestmark = pytest.mark.timeout(300)
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
PANEL = "[...jupyterapp.shell.widgets('main')][0]"
READY = "Boolean(window.jupyterapp && document.querySelectorAll('.jp-CodeCell').length >= 4)"
IDLE = f"""(panel => {{ panel.content.activate();
  return panel.sessionContext.session?.kernel?.status === 'idle' && jupyterapp.shell.currentWidget === panel;
}})({PANEL})"""
TEXT = f"{PANEL}.content.widgets.find(cell => cell.model.id === '%s').outputArea.node.textContent"
RUN = f"""((panel) => {{ panel.content.activeCellIndex =
  panel.content.widgets.findIndex(cell => cell.model.id === '%s');
  void jupyterapp.commands.execute('notebook:run-cell'); }})({PANEL})"""
SHOW = f"{PANEL}.content.widgets.find(cell => cell.model.id === '%s').node.scrollIntoView()"
BUTTON = "[...document.querySelectorAll('button.widget-button')].find(node => node.textContent.includes('%s'))"
BOX = "[...document.querySelectorAll('.widget-checkbox')].find(node => node.textContent.includes('%s'))"
# What a reader cannot see: widgets that are cut off, or that stand outside the notebook's column.
FAULTS = r"""(() => { const faults = [];
  for (const shown of document.querySelectorAll('.jp-OutputArea-output')) {
    const right = shown.getBoundingClientRect().right + 1;
    for (const node of shown.querySelectorAll('*')) {
      const box = node.getBoundingClientRect(), style = getComputedStyle(node);
      if (!box.width || !box.height) continue;
      if (box.right > right) faults.push('beyond the right edge: ' + node.className + node.textContent.slice(0, 60));
      if (['LABEL', 'BUTTON'].includes(node.tagName) && node.scrollWidth > node.clientWidth + 1)
        faults.push('cut off: ' + node.textContent);
    } }
  return [...new Set(faults)]; })()"""
CELL = """%%ktls_sweep mine --on here
record_layers = userspace
suites = AES-128-GCM
payloads = 64, 1 KiB
workloads = echo
io_engines = syscall
repeats = 1000
"""
NOTEBOOK = new_notebook(
    cells=[
        new_markdown_cell("# A sweep of one's own"),
        new_code_cell("%load_ext ktlslab\n%ktls_doctor", id="doctor"),
        new_code_cell("import ktlslab\n\nform = ktlslab.SweepForm()\nform", id="form"),
        new_code_cell("import ktlslab\n\nktlslab.Plan(payloads=[64, 1024])", id="plan"),
        new_code_cell(CELL, id="sweep"),
    ],
    metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
)


@pytest.fixture
def page(tmp_path, new_browser, jupyterlab, wait_for):
    """Open the notebook in JupyterLab; give the browser."""
    (tmp_path / "root").mkdir()
    (tmp_path / "pages").mkdir()
    (tmp_path / "scratch").mkdir()  # with a lock of its own: no other test's measurement is waited for
    nbformat.write(NOTEBOOK, tmp_path / "root/sweep.ipynb")
    print(f"\nscreenshots: {tmp_path / 'pages'}")  # noqa: T201 - shown where a test fails, and by -s
    lab = jupyterlab(tmp_path, SETTINGS, TMPDIR=str(tmp_path / "scratch"))
    with contextlib.closing(new_browser(tmp_path / "browser")) as browser, lab as address:
        browser.resize(1280)
        browser.open(address("/doc/tree/sweep.ipynb"), READY)
        browser.call("Emulation.setFocusEmulationEnabled", enabled=True)
        wait_for(lambda: browser.run(IDLE))
        yield browser
        browser.resize(1280, 2000)
        browser.picture(tmp_path / "pages" / "at-the-end.png")


@pytest.fixture
def pictures(page, tmp_path, wait_for):
    """Take a picture in each theme and width, and say what is wrong with what is seen."""

    def take(name, cell):
        found = []
        for theme, title in THEMES.items():
            page.run(f"jupyterapp.commands.execute('apputils:change-theme', {{theme: '{title}'}})")
            light = str(theme == "light").lower()
            wait_for(lambda light=light: page.run(f"document.body.dataset.jpThemeLight === '{light}'"))
            wait_for(lambda: page.run("!document.querySelector('#jupyterlab-splash')"))  # a change of theme shows one
            for width in (1280, 1920):
                page.resize(width, 1100)
                page.run(SHOW % cell)
                page.picture(tmp_path / "pages" / f"{name}-{theme}-{width}.png")
                found += [f"{name}, {theme}, {width}: {fault}" for fault in page.run(FAULTS)]
        assert not found, "\n".join(found)

    return take


def click(page, nodes):
    page.run(f"({nodes}).scrollIntoView({{block: 'center'}})")
    x, y = page.run(
        f"(() => {{ const box = ({nodes}).getBoundingClientRect();"
        " return [box.x + Math.min(10, box.width / 2), box.y + box.height / 2]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def test_rows_arrive_in_the_form_and_stopping_loses_none(page, pictures, tmp_path, wait_for):
    def said(pattern, cell="form"):
        return wait_for(lambda: re.search(pattern, page.run(TEXT % cell)), seconds=90)

    page.run(RUN % "doctor")
    said("What this machine can do", "doctor")
    page.run(RUN % "form")
    said("about .* (s|min)")
    before = page.run(TEXT % "form")
    click(page, BOX % "256 KiB")
    wait_for(lambda: page.run(TEXT % "form") != before)
    machine = "document.querySelector('.widget-dropdown select')"
    page.run(f"{machine}.selectedIndex = [...{machine}.options].findIndex(one => one.text.startsWith('here'))")
    page.run(f"{machine}.dispatchEvent(new Event('change', {{bubbles: true}}))")
    if not capabilities.probe().ktls:
        said("no record layer 'kernel'. Choose a guest")
        click(page, BOX % "kernel")
    said("on here, wall clock")
    blocks = "document.querySelector('.widget-inline-hbox input[type=number]')"
    page.run(f"{blocks}.value = 100; {blocks}.dispatchEvent(new Event('change', {{bubbles: true}}))")
    said(r"\d{3,} samples")
    pictures("form", "form")
    click(page, BUTTON % "Run")
    said(r"\d\d of \d+ samples")
    pictures("rows-arriving", "form")
    click(page, BUTTON % "Stop")
    kept = int(said(r"(\d+) samples in whole blocks are safe in")[1])
    pictures("stopped", "form")
    assert kept > 0
    assert len(list((tmp_path / "root/sweep.parquet.rows").glob("*.jsonl"))) == 1
    said(f"{kept} are there already")
    click(page, BUTTON % "Run")
    wait_for(lambda: len(list((tmp_path / "root/sweep.parquet.rows").glob("*.jsonl"))) == 2)
    click(page, BUTTON % "Stop")
    wait_for(lambda: re.search(r"Stopped", page.run(TEXT % "form")))


def test_a_cell_that_is_interrupted_says_in_one_line_what_is_safe(page, pictures, wait_for):
    page.run(RUN % "doctor")
    wait_for(lambda: "What this machine can do" in page.run(TEXT % "doctor"))
    page.run(RUN % "plan")
    wait_for(lambda: "Plan unnamed" in page.run(TEXT % "plan"))
    page.run(RUN % "sweep")
    bar = wait_for(lambda: re.search(r"\d+/\d+\s+\[", page.run(TEXT % "sweep")), seconds=90)
    assert page.run("document.querySelectorAll('.jp-OutputArea-output .widget-hprogress').length")
    assert page.run("document.querySelectorAll('[data-mime-type*=stderr]').length") == 0
    wait_for(lambda: re.search(r"[1-9]\d/\d+\s+\[", page.run(TEXT % "sweep")), seconds=90)
    pictures("progress", "sweep")
    page.run("void jupyterapp.commands.execute('notebook:interrupt-kernel')")
    wait_for(lambda: "Interrupted: " in page.run(TEXT % "sweep"))
    text = page.run(TEXT % "sweep")
    assert re.search(
        r"Interrupted: \d+ samples in whole blocks are safe in mine.parquet.rows. Run the cell again", text
    )
    assert "Traceback" not in text
    assert bar
    pictures("interrupted", "sweep")
