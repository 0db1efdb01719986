"""Names of machines: a series, a build of it, an alias."""

from __future__ import annotations

import pytest

from ktlslab.guests import fetch, kernels
from ktlslab.runs.machines import machines_of


@pytest.fixture
def two_builds(newest, monkeypatch):
    """Return an earlier and a later build of one series, and make the cache hold only these."""
    earlier = kernels.Kernel(
        series=newest.series,
        release=f"{newest.series}.0-amd64",
        vmlinuz=newest.vmlinuz.with_name("vmlinuz-0"),
        modules=newest.modules,
    )
    monkeypatch.setattr(kernels, "cached", lambda: [earlier, newest])
    return earlier, newest


@pytest.fixture(scope="session")
def newest():
    return fetch("newest")


def test_a_build_is_another_machine_than_the_last_of_its_series(two_builds, monkeypatch):
    earlier, later = two_builds
    monkeypatch.setattr(kernels.Kernel, "version", "")
    found = machines_of([later.series, earlier.release], "wall")
    assert [(where.name, where.kernel) for where in found] == [(later.series, later), (earlier.release, earlier)]


def test_a_machine_comes_once_whatever_it_is_called(newest):
    names = [newest.series, newest.release, newest.version, newest.series]
    assert [where.name for where in machines_of(names, "wall")] == [newest.series]
