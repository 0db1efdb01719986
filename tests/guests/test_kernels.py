from __future__ import annotations

import itertools

import pytest

from ktlslab.errors import KernelUnavailableError, StorageError, UsageError
from ktlslab.guests import archive, cached, fetch, find, kernels


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KTLSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def stocked(empty_cache):
    for series, release in (("6.12", "6.12.9-amd64"), ("6.1", "6.1.0-5-amd64")):
        root = empty_cache / "kernels" / series
        (root / "lib/modules" / release).mkdir(parents=True)
        (root / "boot").mkdir()
        (root / "boot" / f"vmlinuz-{release}").touch()


@pytest.fixture
def offline(monkeypatch):
    def offers():
        raise KernelUnavailableError("asking", answered="no network", remedy="Plug it in.")

    monkeypatch.setattr(archive, "offers", offers)


@pytest.mark.usefixtures("stocked", "offline")
def test_what_is_cached_is_used_without_a_network():
    assert [kernel.series for kernel in cached()] == ["6.1", "6.12"]
    assert fetch("6.12").release == "6.12.9-amd64"
    assert (fetch("oldest").series, fetch("newest").series) == ("6.1", "6.12")


@pytest.mark.usefixtures("empty_cache", "offline")
def test_without_cache_and_network_the_error_names_the_way_out():
    with pytest.raises(KernelUnavailableError, match=r"newest.*no network.*Plug it in"):
        fetch("newest")


@pytest.mark.usefixtures("stocked")
def test_an_unknown_series_lists_what_can_be_had(monkeypatch):
    monkeypatch.setattr(archive, "offers", lambda: [archive.KernelOffer(series="7.3", version="7.3.4-1")])
    with pytest.raises(KernelUnavailableError, match=r"5\.4.*cache: 6\.1, 6\.12; in the archive: 7\.3"):
        fetch("5.4")
    with pytest.raises(KernelUnavailableError, match="'latest'"):
        find("latest")


def image(root, release, version):
    """Lay out a kernel whose image says what a Debian kernel's header does."""
    (root / "lib/modules" / release).mkdir(parents=True)
    (root / "lib/modules" / release / "modules.dep").touch()
    (root / "boot").mkdir()
    says = f"{release} (maintainers@example) #1 SMP Debian {version} (2026-07-02)".encode() + b"\0"
    head = bytearray(0x300)
    head[0x202:0x206], head[0x20E:0x210] = b"HdrS", (0x300 - 0x200).to_bytes(2, "little")
    (root / "boot" / f"vmlinuz-{release}").write_bytes(bytes(head) + says)


@pytest.fixture
def moved_on(empty_cache, monkeypatch):
    """Return a cache of an earlier run (6.1.176), and an archive that has 6.1.192; what was unpacked."""

    def unpack(offer, root):
        unpacked.append(offer.version)
        image(root, "6.1.0-57-amd64", offer.version)

    unpacked = []
    image(empty_cache / "kernels/6.1", "6.1.0-50-amd64", "6.1.176-1")
    monkeypatch.setattr(archive, "offers", lambda: [archive.KernelOffer(series="6.1", version="6.1.192-2")])
    monkeypatch.setattr(archive, "unpack", unpack)
    return unpacked


def test_a_newer_kernel_of_a_series_is_fetched_when_asked_for_and_only_once(moved_on):
    assert fetch("6.1").version == "6.1.176-1"
    assert moved_on == []
    assert fetch("6.1", update=True).version == "6.1.192-2"
    assert fetch("oldest", update=True).version == "6.1.192-2"
    assert moved_on == ["6.1.192-2"]
    assert fetch("6.1").release == find("newest").release == "6.1.0-57-amd64"
    assert [kernel.version for kernel in cached()] == ["6.1.176-1", "6.1.192-2"]  # the earlier one can still be booted
    assert find(cached()[0].vmlinuz).release == "6.1.0-50-amd64"


@pytest.mark.usefixtures("moved_on")
def test_a_kernel_that_the_archive_no_longer_has_is_used_from_the_cache(empty_cache):
    image(empty_cache / "kernels/5.10", "5.10.0-9-amd64", "5.10.9-1")
    assert fetch("5.10", update=True).version == "5.10.9-1"


@pytest.mark.parametrize("name", ["6.1.0-52-amd64", "6.1.180-1", "6.1.180"])
def test_an_earlier_build_is_fetched_by_name_and_the_series_still_means_its_last(moved_on, monkeypatch, name):
    def unpack(offer, root):
        image(root, offer.release, offer.version)

    fetch("6.1", update=True)
    offers = [("6.1.180-1", "linux-image-6.1.0-52-amd64"), ("6.1.187-1", "linux-image-6.1.0-53-amd64")]
    builds = [archive.KernelOffer("6.1", version, package) for version, package in offers]
    monkeypatch.setattr(archive, "builds", lambda: builds)
    monkeypatch.setattr(archive, "unpack", unpack)
    found = find(name)
    assert (found.series, found.release, found.version) == ("6.1", "6.1.0-52-amd64", "6.1.180-1")
    monkeypatch.setattr(archive, "builds", list)
    assert find(name) == find("6.1.0-52-amd64") == found, "from the cache"
    assert find("6.1").version == "6.1.192-2"
    with pytest.raises(KernelUnavailableError, match="guest list --all"):
        find("6.1.187")
    assert moved_on == ["6.1.192-2"]


def test_a_build_without_its_modules_is_none():
    packages = archive.paragraphs("""
Package: linux-image-7.1.8-amd64
Version: 7.1.8-1
Depends: kmod, linux-modules-7.1.8-amd64 (= 7.1.8-1)

Package: linux-image-7.2.9-amd64
Version: 7.2.9-1
Depends: kmod, linux-modules-7.2.9-amd64 (= 7.2.9-1)

Package: linux-modules-7.2.9-amd64
Version: 7.2.9-1

Package: linux-image-6.1.0-52-amd64
Version: 6.1.180-1
Depends: kmod, linux-base (>= 4.3~)
""")
    assert [offer.release for offer in archive.complete(packages)] == ["6.1.0-52-amd64", "7.2.9-amd64"]


def test_versions_of_a_series_are_in_debians_order():
    versions = ["6.12.95-1~bpo12+1", "6.12.95-1~bpo12+2", "6.12.95-1", "6.12.117-1"]
    assert sorted(sorted(versions), key=archive.version_order) == versions
    assert all(archive.is_newer(later, earlier) for earlier, later in itertools.pairwise(versions))


@pytest.mark.parametrize("name", [None, 6.12, b"6.12", ["newest"], "a\0b"])
def test_what_names_no_kernel_is_refused(name):
    with pytest.raises(UsageError, match="newest"):
        find(name)


def test_newest_is_the_archives_once_it_was_seen():
    assert kernels.resolve("newest", {"6.1", "6.12"}, ["6.1", "7.3"]) == "7.3"
    assert kernels.resolve("oldest", {"6.1", "6.12"}, ["6.12", "7.3"]) == "6.1"


def test_a_full_disk_is_told_and_leaves_no_half_kernel(empty_cache, monkeypatch):
    def unpack(_offer, root):
        (root / "half").write_text("x")
        raise kernels.full_disk("unpacking", "No space left on device")

    monkeypatch.setattr(archive, "offers", lambda: [archive.KernelOffer(series="7.3", version="7.3.4-1")])
    monkeypatch.setattr(archive, "unpack", unpack)
    with pytest.raises(StorageError, match="KTLSLAB_CACHE"):
        fetch("7.3")
    assert list((empty_cache / "kernels").iterdir()) == []


def test_what_is_no_kernel_image_is_told(tmp_path):
    with pytest.raises(KernelUnavailableError, match="no such file"):
        find(tmp_path / "vmlinuz")
    (tmp_path / "vmlinuz").write_bytes(b"not a kernel" * 1000)
    with pytest.raises(KernelUnavailableError, match="not a Linux kernel image"):
        find(tmp_path / "vmlinuz")


def test_an_image_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    (tmp_path / "vmlinuz").touch()
    monkeypatch.setattr(kernels.os, "access", lambda _path, _mode: False)  # root may read everything
    with pytest.raises(KernelUnavailableError, match="EACCES"):
        find(tmp_path / "vmlinuz")


def test_an_image_of_an_unpacked_tree_is_found_with_its_modules(newest):
    found = find(newest.vmlinuz)
    assert (found.release, found.series, found.modules) == (newest.release, newest.series, newest.modules)
