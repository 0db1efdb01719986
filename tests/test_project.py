"""Facts about the project are stated in one place."""

import importlib.metadata
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import ktlslab

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_is_the_packages_own():
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert importlib.metadata.version("ktlslab") == ktlslab.__version__


def test_one_compiled_file_serves_every_python_that_is_welcome():
    from ktlslab.linux import _hot, _native

    assert PYPROJECT["tool"]["scikit-build"]["wheel"]["py-api"] == "cp311"
    assert PYPROJECT["project"]["requires-python"] == ">=3.11"
    assert {Path(module.__file__).name for module in (_hot, _native)} == {"_hot.abi3.so", "_native.abi3.so"}


def test_what_is_checked_before_a_commit_is_what_tests_run_checks():
    hooks, run = (ROOT / ".pre-commit-config.yaml").read_text(), (ROOT / "tests/run").read_text()
    for tool in ("ruff format", "ruff check", "mypy"):
        assert f".venv/bin/python -m {tool}\n" in hooks
        assert f'"$python" -m {tool}' in run


@pytest.mark.parametrize("missing", ["root", "debootstrap"])
def test_where_no_bare_system_can_be_made_it_says_why(tmp_path, missing):
    """An `id` that is not root's, or a machine with neither debootstrap nor apt."""
    for name in ("bash", "dirname", "uname", "env", "sed"):
        (tmp_path / name).symlink_to(shutil.which(name))
    identity = tmp_path / "id"
    identity.write_text(f"#!/bin/sh\necho {1000 if missing == 'root' else 0}\n")
    identity.chmod(0o755)
    argv, env = [str(ROOT / ".ci/bare"), "--check"], {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, f"{'not' if missing == 'root' else 'no'} {missing}\n")
