"""Commands that the README and the notebooks tell a reader to type are ones that ktlslab understands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from ktlslab import cli

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
PAGES = [ROOT / "README.md", *sorted(NOTEBOOKS.glob("*.md")), *sorted(NOTEBOOKS.glob("*.ipynb"))]
COMMAND = re.compile(r"^ {4}(ktlslab .+)|^```\n(ktlslab .+)|`(ktlslab [^`\n]+)`", re.MULTILINE)


def commands(path):
    """Return the commands of a page: indented, fenced, or within a sentence."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return ["".join(found) for found in COMMAND.findall(text)]


def understood(words):
    try:
        cli._parser().parse_args(words)
    except SystemExit as end:
        return end.code == 0
    return True


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_command_is_understood(path, capsys):
    for command in commands(path):
        words = shlex.split(command, comments=True)[1:]
        if len(words) > 1 and "..." not in words:  # otherwise it names a command, and is not one to type
            assert understood(words), f"{command}\n{capsys.readouterr().err}"
