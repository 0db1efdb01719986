"""The list of claims: each stands in its notebook, word for word, and has a source with a section."""

from __future__ import annotations

import json
import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "notebooks"
PARTS = re.split(r"^## ", (FOLDER / "SOURCES.md").read_text(), flags=re.MULTILINE)[1:]
SECTIONED = ("RFC ", "tls.rst", "SP 800-38D", "net/", "io_uring")


def prose(path):
    cells = json.loads(path.read_text())["cells"]
    return " ".join(" ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown").split())


def test_each_claim_stands_in_its_notebook_and_has_a_section():
    for part in PARTS:
        number, title = re.match(r"(\d\d) (.*)", part).groups()
        (path,) = FOLDER.glob(f"{number}-*.ipynb")
        text = prose(path)
        assert text.startswith(f"# {title}")
        rows = re.findall(r'^\| "(.*)" \| (.*) \| (.*) \|$', part, re.MULTILINE)
        assert len(rows) == len(re.findall(r'^\| "', part, re.MULTILINE)) > 0
        for claim, source, section in rows:
            assert claim.replace('\\"', '"') in text, f"{path.name}: {claim}"
            assert section or not source.startswith(SECTIONED), claim


def test_each_standard_that_a_notebook_names_is_in_its_list():
    listed = {part[:2]: part for part in PARTS}
    for path in FOLDER.glob("[0-9]*.ipynb"):
        for standard in set(re.findall(r"RFC \d+", prose(path))):
            assert standard in listed[path.name[:2]], f"{path.name}: {standard}"
