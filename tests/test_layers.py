"""Imports go in one direction, and what a guest imports has no needless dependencies."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import ktlslab

HERE = Path(ktlslab.__file__).parent
ORDER = (
    "cli",
    "getting",
    "magics",
    "_output",
    "diagnosis",
    "course",
    "show",
    "promises",
    "estimating",
    "profiling",
    "measure",
    "runs",
    "guests",
    "http",
    "relay",
    "session",
    "stages",
    "linux",
    "tls",
    "certificates",
    "_lazy",
    "_checks",
    "packages",
    "_closing",
    "errors",
    "_traceback",
    "_html",
)
# In addition to "only what is to the right of it": neighbours that must not import each other.
STRANGERS = {
    "certificates": {"_html", "_closing", "_lazy"},
    "promises": {"estimating", "measure", "profiling"},
    "runs": {"http", "relay", "session", "stages"},
    "guests": {"http", "session", "stages", "linux", "tls"},
    "tls": {"_html", "_closing", "_lazy"},
    "_closing": {"_traceback", "_html"},
}
HEAVY = ("pandas", "numpy", "matplotlib", "pyarrow", "IPython", "h11", "h2")
FILES = [path for path in sorted(HERE.rglob("*.py")) if path.parent != HERE or path.stem in ORDER]


def imported(path: Path) -> set[str]:
    """Return the parts of ktlslab that a file imports, wherever in the file."""
    names = set()
    package = ("ktlslab", *path.relative_to(HERE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "ktlslab" else {module}
    return {name.split(".")[1] for name in names if name.startswith("ktlslab.")}


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(HERE)) for path in FILES])
def test_imports_run_one_way(path):
    part = path.relative_to(HERE).parts[0].removesuffix(".py")
    assert part in ORDER, f"{part} has no place in the order of layers"
    allowed = {part, *ORDER[ORDER.index(part) + 1 :]} - STRANGERS.get(part, set())
    assert imported(path) <= allowed


def test_no_modules_import_each_other_in_a_circle():
    """Imports for types alone count as well: a reader follows them, too."""
    names = {path: ".".join(("ktlslab", *path.relative_to(HERE).with_suffix("").parts)) for path in HERE.rglob("*.py")}
    of = {
        name: {
            part
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module and not node.level
            for part in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
            if part in names.values()
        }
        for path, name in names.items()
        if path.stem != "__init__"
    }
    try:
        list(graphlib.TopologicalSorter(of).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_check_sees_an_import_that_runs_the_wrong_way(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "HERE", tmp_path)
    (tmp_path / "tls").mkdir()
    file = tmp_path / "tls" / "x.py"
    lines = ["import ktlslab.linux.ring", "from ktlslab import stages", "from ..show import plots", "from . import y"]
    file.write_text("\n".join([*lines, "import os", "def f():\n    from ktlslab.errors import UsageError"]))
    assert imported(file) == {"linux", "stages", "show", "tls", "errors"}


@pytest.mark.parametrize(
    "module",
    ["ktlslab", "ktlslab.session", "ktlslab.guests"]
    + [
        f"ktlslab.{name}"
        for name in ("measure.worker", "measure.peer", "profiling.worker", "promises.checker", "runs.clocks")
    ],
)
def test_what_a_guest_imports_is_light(module):
    code = f"import sys, {module}; print(*({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
