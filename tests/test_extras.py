"""Without the extra `lab`, everything that needs it first says how to install it; the rest works."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ktlslab

HERE = Path(ktlslab.__file__).parent
ROOT = Path(__file__).resolve().parents[1]
REMEDY = "pip install 'ktlslab[lab]'"
# What `lab` brings, and what comes with it.
BROUGHT = (
    *("pandas", "numpy", "pyarrow", "matplotlib", "tqdm", "ipykernel", "IPython", "jupyterlab", "jupyter_client"),
    *("jupyter_core", "nbclient", "nbformat", "traitlets", "zmq"),
)
ABSENT = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BROUGHT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def without_lab(code, *argv, **options):
    command = [sys.executable, "-c", f"{ABSENT}\n{code}", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)


@pytest.mark.parametrize(
    "words",
    [
        ["sweep", "--on", "here", "-o", "t.parquet"],
        ["report", "t.parquet", "-o", "report.html"],
        ["compare", "t.parquet", "t.parquet"],
        ["promises", "--on", "newest"],
        ["kernelspec", "install"],
        ["kernelspec", "install", "--user"],
    ],
    ids=" ".join,
)
def test_a_command_that_needs_lab_says_how_to_get_it_and_leaves_nothing(tmp_path, words):
    done = without_lab("from ktlslab.cli import main; sys.exit(main(sys.argv[1:]))", *words, cwd=tmp_path)
    assert done.returncode == (2 if words[0] == "compare" else 1)
    assert REMEDY in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_notebooks_are_not_begun_without_lab(tmp_path):
    code = "import runpy; sys.argv[0] = 'execute'; runpy.run_module('ktlslab.show.notebooks', run_name='__main__')"
    done = without_lab(code, "--notebooks", ROOT / "notebooks", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert REMEDY in done.stdout
    assert not done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["doctor", "--json"], ["guest", "list", "--json"], ["--version"]], ids=" ".join)
def test_commands_that_need_no_lab_work_without_it(words):
    done = without_lab("from ktlslab.cli import main; sys.exit(main(sys.argv[1:]))", *words)
    assert done.returncode == 0, done.stderr


def test_every_module_can_be_imported_without_lab_or_says_how_to_get_it():
    code = f"""
import importlib, pkgutil, ktlslab
from ktlslab.errors import MachineError
for module in pkgutil.walk_packages(ktlslab.__path__, "ktlslab."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        assert isinstance(error, MachineError) and {REMEDY!r} in str(error), (module.name, error)
        print(module.name)
"""
    done = without_lab(code)
    assert done.returncode == 0, done.stderr
    without = done.stdout.split()
    assert {"ktlslab.show.plots", "ktlslab.measure.analysis", "ktlslab.guests.provisioner"} <= set(without)
    assert not {"ktlslab.session", "ktlslab.measure.worker", "ktlslab.show.handoff", "ktlslab.doctor"} & set(without)


@pytest.mark.parametrize(
    "call",
    [
        "import ktlslab; ktlslab.sweep('quick', 'here')",
        "import ktlslab; ktlslab.read_table('t.parquet')",
        "from ktlslab.promises.table import read_scoreboard; read_scoreboard('t.parquet')",
        "from ktlslab.promises.collect import scoreboard; scoreboard('here')",
        "from ktlslab.measure.table import merge; merge([])",
        "from ktlslab.show.notebooks import execute; from pathlib import Path; execute(Path('a'), Path('b'))",
        "from ktlslab import guests; guests.install()",
    ],
)
def test_a_function_that_needs_lab_raises_what_names_it(call):
    done = without_lab(call)
    assert "MissingExtraError" in done.stderr.splitlines()[-1]
    assert REMEDY in done.stderr.splitlines()[-1]


def test_nothing_of_lab_is_imported_but_where_its_absence_is_told():
    for path in HERE.rglob("*.py"):
        for line in unguarded(ast.parse(path.read_text())):
            pytest.fail(f"{path}:{line} imports what only `lab` brings, neither within `extra` nor after `require`")


def unguarded(node):
    """Yield the lines of imports that are guarded neither by `with extra(...)` nor by a `require(...)` before them."""
    safe = False
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
            safe = safe or ast.unparse(child.value.func) == "require"
        elif isinstance(child, ast.Import | ast.ImportFrom):
            names = [child.module or ""] if isinstance(child, ast.ImportFrom) else [item.name for item in child.names]
            if not safe and {name.partition(".")[0] for name in names} & set(BROUGHT):
                yield child.lineno
        elif isinstance(child, ast.With) and ast.unparse(child.items[0].context_expr).startswith("extra("):
            continue
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from unguarded(child)
