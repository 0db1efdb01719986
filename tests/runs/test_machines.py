"""Names of machines: a series, a build of it, an alias."""

from __future__ import annotations

import pytest

from ktlslab.errors import KtlsLabError, UsageError
from ktlslab.guests import fetch, kernels, qemu
from ktlslab.runs.machines import machine, machines_of


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


def test_a_feature_of_the_cpu_makes_another_machine_that_counts_instructions(newest):
    names = [newest.series, f"{newest.series}+erms", "newest+erms", f"{newest.release}+erms"]
    found = machines_of(names)
    assert [where.name for where in found] == [newest.series, f"{newest.series}+erms"]
    assert (found[1].clock, found[1].cpu, found[1].kernel) == ("instructions", qemu.FEATURES["erms"], newest)
    assert machine(found[1].name, "instructions") == found[1]  # as a part of a sweep finds it again


def test_a_build_s_name_may_have_a_plus_of_its_own(newest, monkeypatch):
    named = kernels.Kernel(
        series=newest.series, release=f"{newest.series}.9+deb14", vmlinuz=newest.vmlinuz, modules=newest.modules
    )
    monkeypatch.setattr(kernels, "cached", lambda: [named])
    assert machine(named.release, "instructions").cpu == qemu.CPU_NAME
    assert machine(f"{named.release}+erms").name == f"{named.release}+erms"


@pytest.mark.parametrize(
    ("name", "clock", "said"),
    [
        ("newest+erm", None, "no feature 'erm' can be switched on. There is erms"),
        ("newest+", None, "no feature ''"),
        ("newest+fsrm", "instructions", "no feature 'fsrm'"),
        (
            "newest+erms",
            "wall",
            "only in a guest that counts instructions. Leave out .erms, or name a guest, such as newest\\+erms",
        ),
        ("here+erms", None, "only in a guest"),
        ("auto+erms", None, "only in a guest"),
    ],
)
def test_a_feature_that_cannot_be_is_refused_with_the_reason(name, clock, said):
    with pytest.raises(UsageError, match=said):
        machine(name, clock)


@pytest.mark.parametrize("name", ["+erms", "newest+erms+erms", "3.2+erms"])
def test_a_feature_of_no_kernel_is_no_machine(name):
    with pytest.raises(KtlsLabError):
        machine(name)
