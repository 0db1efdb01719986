"""The main job: which table, which kernel, and that it never passes recorded figures for measured ones."""

from __future__ import annotations

import nbformat
import pytest

from ktlslab.errors import GuestError, KtlsLabError, StorageError
from ktlslab.measure.table import write_table
from ktlslab.runs.machines import Machine
from ktlslab.show import notebooks

HANDOFF, COMPARE = "01-shows-a-kernel", "02-shows-a-table"
SHOW_TABLE = "import os; print(os.path.basename(os.environ.get('KTLSLAB_TABLE', 'none')))"


@pytest.fixture
def project(tmp_path, monkeypatch, frame):
    """Make a project with two tiny notebooks and a recorded table."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data").mkdir()
    for name in (HANDOFF, COMPARE):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOW_TABLE, id="shows")])
        notebook.metadata["ktlslab"] = {"kernel_tls": name == HANDOFF}
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    write_table(frame, tmp_path / "data/quick-7.3.parquet")
    return tmp_path


def run(project, *more):
    return notebooks.main(["--notebooks", str(project / "notebooks"), *more])


def shown(project, name):
    return nbformat.read(project / "notebooks/out" / f"{name}.ipynb", 4).cells[0].outputs[0].text.strip()


def test_a_sweep_then_both_notebooks(project, frame, monkeypatch, capsys):
    def sweep(plan, on, *, output, resume):
        assert (plan, on, resume) == ("quick", "here", False)
        write_table(frame, output)

    monkeypatch.setattr(notebooks, "machine", lambda name, *_, **__: Machine(name=name, kernel=None, clock="wall"))
    monkeypatch.setattr(notebooks, "sweep", sweep)
    assert run(project, "--on", "here") == 0
    assert shown(project, COMPARE) == "quick.parquet"
    said = capsys.readouterr().out
    for part in ("notebooks/out/quick.parquet", f"notebooks/out/{HANDOFF}.ipynb", f"{COMPARE}.html"):
        assert part in said
    assert "RECORDED" not in said
    assert said.endswith("/bin/jupyter lab notebooks\n")


def no_machine(*_, **__):
    raise GuestError("booting", answered="no QEMU", remedy="apt-get install qemu-system-x86")


def test_where_nothing_can_be_measured_recorded_figures_are_named_as_such(project, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "machine", no_machine)
    assert run(project, "--on", "newest") == 0
    assert shown(project, COMPARE) == "quick-7.3.parquet"
    said = capsys.readouterr().out
    assert "The figures are RECORDED ones, not measured here: booting: no QEMU" in said
    assert f"{HANDOFF}: in the Jupyter kernel python3" in said


def test_nothing_measured_and_nothing_recorded_is_a_failure(project, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "machine", no_machine)
    (project / "data/quick-7.3.parquet").unlink()
    assert run(project, "--on", "newest") == 1
    assert "no QEMU" in capsys.readouterr().out


def test_a_full_disk_is_a_failure(project, monkeypatch, capsys):
    def full(*_, **__):
        raise StorageError("writing", answered="ENOSPC", remedy="Free space.")

    monkeypatch.setattr(notebooks, "machine", lambda name, *_, **__: Machine(name=name, kernel=None, clock="wall"))
    monkeypatch.setattr(notebooks, "sweep", full)
    assert run(project, "--on", "here") == 1
    assert "Free space" in capsys.readouterr().out


def test_a_cell_that_fails_leaves_the_notebook_to_look_at(project):
    source = project / "notebooks/broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), source)
    with pytest.raises(KtlsLabError, match="ZeroDivisionError: division by zero"):
        notebooks.execute(source, project / "broken-out.ipynb")
    assert "ZeroDivisionError" in (project / "broken-out.ipynb").read_text()
