"""Promises made up for tests, on plain TCP so that any machine can check them."""

from __future__ import annotations

import pytest

from ktlslab.promises.check import EITHER, Group


@pytest.fixture
def made_up():
    """made_up(check, **options) -> a promise with that check and nothing installed."""

    def make(check, **options):
        group = Group("made up")
        group("a test", **{"suites": EITHER, "installed": None, **options})(check)
        return group.promises[0]

    return make
