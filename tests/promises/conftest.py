"""Promises made up for the tests: on plain TCP, so that they can be checked on any machine."""

from __future__ import annotations

import pytest

from ktlslab.promises.check import EITHER, Group


@pytest.fixture
def made_up():
    """made_up(check, **options) -> a promise whose check that is, with nothing installed."""

    def make(check, **options):
        group = Group("made up")
        group("a test", **{"suites": EITHER, "installed": None, **options})(check)
        return group.promises[0]

    return make
