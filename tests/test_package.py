"""The public interface: every announced name exists, and importing the package is cheap."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import ktlslab

PACKAGES = ("show", "course", "measure", "guests", "promises", "errors", "tls", "linux", "stages")


def alone(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("name", ktlslab.__all__)
def test_every_name_that_is_announced_is_there(name):
    assert getattr(ktlslab, name) is not None
    assert name in dir(ktlslab)


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_complete_after_nothing_but_import_ktlslab(name):
    code = f"import ktlslab; p = ktlslab.{name}; names = [n for n in dir(p) if n[0] != '_']; "
    code += "[getattr(p, n) for n in names]; print(p.__name__, len(names))"
    found, count = alone(code).split()
    assert found == f"ktlslab.{name}"
    assert int(count) > 2


def test_names_are_what_they_say():
    assert isinstance(ktlslab.doctor().ready, bool)
    assert ktlslab.plots.__name__ == "ktlslab.show.plots"
    assert ktlslab.errors.UsageError.__mro__[1] is ktlslab.KtlsLabError
    for name in ("compare", "effects", "read_table", "doctor"):
        assert callable(getattr(ktlslab, name))


MODULES = [found.name for found in pkgutil.walk_packages(ktlslab.__path__, "ktlslab.") if "__main__" not in found.name]


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_named_like_a_function_that_it_holds(name):
    held = getattr(importlib.import_module(name), name.rpartition(".")[2], None)
    assert inspect.ismodule(held) or not callable(held)


def test_an_unknown_name_is_an_attribute_error_as_everywhere():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ktlslab.nothing  # noqa: B018


def test_importing_it_imports_nothing_heavy_and_none_of_its_parts():
    code = "import sys, ktlslab; print(*[m for m in sys.modules if m.startswith('ktlslab.')])"
    assert alone(code) == "ktlslab._lazy"
