"""Every notebook's page as a person sees it: in JupyterLab, light and dark, exported and printed, narrow and wide.

Executed by someone else and therefore untrusted: JupyterLab takes out of HTML what it does not allow. Screenshots are
kept, in the folder that the run names.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)  # the first test may be the one that executes all notebooks
FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
EXERCISES = "08-the-handoff-race"
CENTRES = {"01-the-handoff": "keystream-text", "09-inside-the-kernel": "send-text"}  # what else is looked at closely
WIDTHS = (1280, 1920)
NARROW = 1000  # what is left of a window of 1300 pixels beside JupyterLab's file browser
A4 = 703  # pixels between margins of 12 mm
SETTINGS = {  # every cell is drawn, seen or not, and nothing lies above them
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
READY = """(() => { const app = window.jupyterapp, cells = document.querySelectorAll('.jp-CodeCell').length;
  return Boolean(app && cells >= %d && !document.querySelector('.jp-Spinner')); })()"""
# Open a notebook, and close what was open before: an empty JupyterLab would show its launcher.
OPEN = """(async () => {
  const before = [...jupyterapp.shell.widgets('main')];
  await jupyterapp.commands.execute('docmanager:open', {path: '%s.ipynb'});
  for (const old of before) old.dispose();
})()"""
# What is wrong with what the cells of a page show. Text in <pre> of a check's source or a print is text.
FAULTS = r"""(() => {
  const paper = matchMedia('print').matches, faults = [];
  const OUTPUT = '.jp-OutputArea-output';
  const say = (what, node) => faults.push(what + ': ' + node.textContent.trim().slice(0, 90));
  for (const shown of document.querySelectorAll(paper ? `${OUTPUT}, .jp-InputArea .highlight` : OUTPUT)) {
    const texts = document.createTreeWalker(shown, NodeFilter.SHOW_TEXT);
    while (texts.nextNode())
      if (/<\/?(table|t[drh]|div|span|details|br?|p)\b[^>]*>|&(nbsp|lt|gt);/.test(texts.currentNode.data))
        say('markup as text', texts.currentNode);
    for (const node of [shown, ...shown.querySelectorAll('*')]) {
      const box = node.getBoundingClientRect(), style = getComputedStyle(node);
      const closed = node.parentElement.closest('details:not([open])');
      if (!box.width || !box.height || closed && !node.closest('summary')) continue;
      if (style.overflowX !== 'visible' && node.scrollWidth > node.clientWidth + 1) say('clipped', node);
      if (box.right > shown.getBoundingClientRect().right + 1) say('beyond the right edge', node);
      if (node.tagName === 'TD' && node.textContent.length <= 24 &&
          !(paper && node.textContent.includes(' ')) && !node.querySelector('br') &&
          node.firstChild && node.firstChild.nodeType === 3) {
        const range = document.createRange();
        range.selectNodeContents(node);
        if (new Set([...range.getClientRects()].map(line => Math.round(line.top))).size > 1) say('wrapped', node);
      }
    }
    for (const line of shown.querySelectorAll('summary > span'))
      if ([...line.children].slice(1).some(cell => cell.offsetTop !== line.children[1].offsetTop))
        say('a line of cells is broken', line);
  }
  return [...new Set(faults)];
})()"""
HEIGHT = """Math.max(document.documentElement.scrollHeight,
  ...[...document.querySelectorAll('.jp-NotebookPanel *')].map(node => node.scrollHeight))"""
# The open notebook; whether its kernel is ready; a cell by its id; writing into it and running it; what it shows.
PANEL = "[...jupyterapp.shell.widgets('main')][0]"
IDLE = f"""(panel => {{ panel.content.activate();
  return panel.sessionContext.session?.kernel?.status === 'idle' && jupyterapp.shell.currentWidget === panel;
}})({PANEL})"""
CELL = f"{PANEL}.content.widgets.find(cell => cell.model.id === '%s')"
WRITE = f"""((panel, cell) => {{ cell.model.sharedModel.setSource(%s);
  panel.content.activeCellIndex = panel.content.widgets.indexOf(cell);
  void jupyterapp.commands.execute('notebook:run-cell'); }})({PANEL}, %s)"""
SLABS = """[...document.querySelectorAll('.jp-RenderedImage img')].filter(img => {
  const canvas = document.createElement('canvas'), pen = canvas.getContext('2d');
  pen.drawImage(img, 0, 0);
  return pen.getImageData(2, 2, 1, 1).data[3] > 0; }).length"""


@pytest.fixture(scope="module")
def lab(home, jupyterlab):
    """Start JupyterLab on the executed notebooks; give its address."""
    with jupyterlab(home, SETTINGS) as address:
        yield address


@pytest.fixture
def notebook(browser, lab, wait_for):
    """notebook(name): show it in JupyterLab, which is loaded only where it is not there yet."""

    def show(name):
        source = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
        ready = READY % sum(cell["cell_type"] == "code" for cell in source)
        address = lab(f"/doc/tree/{name}.ipynb")
        if address.startswith(browser.run("window.jupyterapp ? location.origin : 'none'")):
            browser.run(OPEN % name)
            wait_for(lambda: browser.run(ready))
        else:
            browser.open(address, ready)

    return show


def settled(browser):
    """Return the page's height once it no longer changes: the last cells are drawn after JupyterLab is ready."""
    before, height = -1, browser.run(HEIGHT)
    while height != before:
        time.sleep(0.3)
        before, height = height, browser.run(HEIGHT)
    return height


def dress(browser, theme, wait_for):
    """Change JupyterLab's theme, and wait until its splash screen is gone."""
    light = str(theme == THEMES["light"]).lower()
    browser.run(f"jupyterapp.commands.execute('apputils:change-theme', {{theme: '{theme}'}})")
    wait_for(lambda: browser.run(f"document.body.dataset.jpThemeLight === '{light}'"))
    wait_for(lambda: browser.run("!document.querySelector('#jupyterlab-splash')"))


def faults_of(browser, path, widths=WIDTHS, media=""):
    """Return what is wrong with the page at each width, and keep what it looks like."""
    found = []
    for width in widths:
        browser.resize(width, media=media)
        browser.resize(width, min(16000, max(1000, settled(browser) + 150)), media=media)
        browser.picture(path.with_name(f"{path.name}-{width}.png"))
        found += [f"{path.name} at {width}: {fault}" for fault in browser.run(FAULTS)]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_page_in_jupyterlab(name, browser, notebook, home, wait_for):
    browser.resize(1280)
    notebook(name)
    found = []
    for theme, title in THEMES.items():
        dress(browser, title, wait_for)
        found += faults_of(browser, home / "pages" / f"{name}-{theme}")
        if name in CENTRES:
            browser.resize(1280, 1100)
            browser.run(f"{CELL % CENTRES[name]}.node.scrollIntoView()")
            browser.picture(home / "pages" / f"{name}-centre-{theme}-1280.png")
            browser.run("document.querySelector('.jp-Notebook .jp-Cell').scrollIntoView()")
    narrow = faults_of(browser, home / "pages" / f"{name}-narrow", (NARROW,))
    found += [fault for fault in narrow if ": wrapped: " not in fault]
    assert not found, "\n".join(found)
    assert browser.run(SLABS) == 0, "a plot has a background of its own"


def test_the_pictures_keep_their_shape_where_a_notebook_is_not_trusted(browser, notebook, wait_for):
    """JupyterLab takes styles out of untrusted HTML that it does not know: the boxes keep colours and order."""
    notebook("01-the-handoff")
    page = wait_for(lambda: browser.run("document.body.innerHTML.includes('1 connect') && document.body.innerHTML"))
    assert "client → server" in page
    assert re.search(r"background-color: ?rgba\(213, ?94, ?0, ?0\.28\)", page)
    assert "display:flex" in page.replace(": ", ":")


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_page_on_screen_and_paper(name, browser, home):
    browser.open((home / "root" / f"{name}.html").as_uri())
    found = faults_of(browser, home / "pages" / f"{name}-exported")
    found += faults_of(browser, home / "pages" / f"{name}-printed", (A4,), "print")
    browser.pdf(home / "pages" / f"{name}.pdf")
    assert not found, "\n".join(found)


def test_the_pictures_follow_the_reader_s_font_size(home):
    """Where a style names pixels, they are those of a border or a corner."""
    for name in NAMES:
        for cell in json.loads((home / "root" / f"{name}.ipynb").read_text())["cells"]:
            for output in cell.get("outputs", []):
                html = "".join(output.get("data", {}).get("text/html", ""))
                assert "font-size:12px" not in html
                assert "width:150px" not in html


def test_an_exercise_is_answered_wrong_and_right(browser, notebook, home, wait_for):
    """As a student does it: run all, type an answer, read the verdict, type another one."""
    browser.resize(1280)
    notebook(EXERCISES)
    answer = CELL % "answer-3"

    def verdict(said):
        return wait_for(lambda: said in (text := browser.run(f"{answer}.outputArea.node.textContent")) and text)

    def write(code):
        browser.run(WRITE % (json.dumps(f"{code}\n\ncheck.harmless(harmless)"), answer))

    def pictures(name):
        for theme, title in THEMES.items():
            dress(browser, title, wait_for)
            for width in WIDTHS:
                browser.resize(width)
                browser.run(f"{CELL % 'exercise-3'}.node.scrollIntoView()")
                browser.picture(home / "pages" / f"{name}-{theme}-{width}.png")

    browser.call("Emulation.setFocusEmulationEnabled", enabled=True)  # or no notebook is the current one
    wait_for(lambda: browser.run(IDLE))
    browser.run("void jupyterapp.commands.execute('notebook:run-all-cells')")
    browser.run(f"{answer}.outputArea.model.clear()")
    verdict("Not answered yet")
    write('harmless = {"a"}')
    assert "4 of 5 are judged right" in verdict("Wrong")
    pictures("answered-wrong")
    write('harmless = {"a", "d"}')
    assert "the other half" in verdict("Right")
    pictures("answered-right")
