"""All promises, group by group."""

from __future__ import annotations

import fnmatch
import functools
import importlib
from collections.abc import Sequence

from ktlslab import _checks
from ktlslab.errors import UsageError
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
    "full",
    "readiness",
    "key_update",
    "broken",
    "padding",
    "processes",
    "ending",
    "ring_send",
    "ring_receive",
    "ring_modes",
    "asynchronous",
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


def select(names: str | Sequence[str] | None = None) -> tuple[Promise, ...]:
    """Return some promises, in the order of all; None means all.

    Each of `names` is the name of a promise, a group ("splice out"), a CVE, or a pattern of these with *, ? or [...]:
    "io_uring*". Case does not matter, and a space is the same as an underscore. UsageError where one matches nothing.
    """
    if names is None:
        return all_promises()
    tried = "choosing promises"
    found: set[str] = set()
    for asked in _checks.words(tried, "names", names, "names of promises or groups"):
        having = [
            promise.name
            for promise in all_promises()
            if any(fnmatch.fnmatchcase(_plain(word), _plain(asked)) for word in _words(promise))
        ]
        if not having:
            known = dict.fromkeys(word for promise in all_promises() for word in _words(promise))
            remedy = f"{_checks.nearest(asked, known)}`ktlslab promises --list` lists them all."
            raise UsageError(tried, answered=f"there is none called {asked}", remedy=remedy)
        found.update(having)
    return tuple(promise for promise in all_promises() if promise.name in found)


def named(name: str) -> Promise | None:
    """Return the promise of this name, None where there is none (any more)."""
    return next((promise for promise in all_promises() if promise.name == name), None)


def _words(promise: Promise) -> tuple[str, ...]:
    """Return what a promise may be chosen by."""
    return (promise.name, promise.group, *([promise.cve] if promise.cve else []))


def _plain(word: str) -> str:
    return word.casefold().replace(" ", "_")
