"""Names of a package that are resolved when they are first used, so that importing it imports nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Callable


def lazily(package: str, homes: dict[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562) for names and the modules that they live in."""

    def resolve(name: str) -> object:
        if name not in homes:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message)
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return resolve, lambda: sorted(homes)
