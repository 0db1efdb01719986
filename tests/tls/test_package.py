"""The package is cheap to import and does not depend on the rest of ktlslab."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import ktlslab.tls

SOURCES = sorted(Path(ktlslab.tls.__file__).parent.glob("*.py"))


def test_importing_it_pulls_nothing_heavy():
    heavy = {"OpenSSL", "cryptography", "numpy", "pandas", "ssl"}
    code = f"import sys, ktlslab.tls; print(sorted({heavy!r} & set(sys.modules)))"
    root = Path(ktlslab.tls.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_it_imports_the_standard_library_its_two_libraries_ktlslabs_errors_and_itself():
    allowed = sys.stdlib_module_names | {"cryptography", "OpenSSL"}
    assert SOURCES
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= allowed, source
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module is not None
                assert node.module == "ktlslab.errors" or node.module.partition(".")[0] in allowed, source
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1, source


def test_every_public_name_is_there():
    assert all(hasattr(ktlslab.tls, name) for name in ktlslab.tls.__all__)
    assert len(set(ktlslab.tls.__all__)) == len(ktlslab.tls.__all__)
