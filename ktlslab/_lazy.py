"""Resolve the names of a package when they are first used, so that importing the package imports nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable


def lazily(package: str, homes: dict[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562); `homes` maps each name to its home.

    A home is `module`, `module:name` if the name is different there, or `module:` for the module itself.
    """

    def resolve(name: str) -> object:
        if name not in homes:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message)
        home, colon, there = homes[name].partition(":")
        module = importlib.import_module(f"{package}.{home}")
        return module if colon and not there else getattr(module, there or name)

    return resolve, lambda: sorted(homes)


def modules(package: str, path: Iterable[str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Do the same for all modules of a package with this `__path__`."""
    import pkgutil  # noqa: PLC0415 - only where a package lists its modules

    names = [found.name for found in pkgutil.iter_modules(path) if not found.name.startswith("_")]
    return lazily(package, {name: f"{name}:" for name in names})
