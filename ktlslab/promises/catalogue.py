"""All promises, group by group."""

from __future__ import annotations

import functools
import importlib

from ktlslab.promises.check import Group, Promise

MODULES = (
    "attach",
    "readback",
    "handoff",
    "sending",
    "limit",
    "receiving",
    "peek",
    "control",
    "files",
    "splice_in",
    "splice_out",
    "readiness",
    "key_update",
    "broken",
    "padding",
    "processes",
    "ending",
    "ring_send",
    "ring_receive",
    "ring_modes",
)


@functools.cache
def all_promises() -> tuple[Promise, ...]:
    """Return every promise, in the order of the groups and, within one, of its file."""
    found: list[Promise] = []
    for name in MODULES:
        module = importlib.import_module(f"ktlslab.promises.{name}")
        groups = [value for value in vars(module).values() if isinstance(value, Group)]
        found += [promise for group in groups for promise in group.promises]
    return tuple(found)


def named(name: str) -> Promise | None:
    """Return the promise of this name, None where there is none (any more)."""
    return next((promise for promise in all_promises() if promise.name == name), None)
