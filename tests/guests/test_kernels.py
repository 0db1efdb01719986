from __future__ import annotations

import pytest

from ktlslab.errors import KernelUnavailableError, StorageError
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
    monkeypatch.setattr(archive, "offers", lambda: [archive.Offer(series="7.3", version="7.3.4-1")])
    with pytest.raises(KernelUnavailableError, match=r"5\.4.*cache: 6\.1, 6\.12; in the archive: 7\.3"):
        fetch("5.4")
    with pytest.raises(KernelUnavailableError, match="'latest'"):
        find("latest")


def test_newest_is_the_archives_once_it_was_seen():
    assert kernels.resolve("newest", {"6.1", "6.12"}, ["6.1", "7.3"]) == "7.3"
    assert kernels.resolve("oldest", {"6.1", "6.12"}, ["6.12", "7.3"]) == "6.1"


def test_a_full_disk_is_told_and_leaves_no_half_kernel(empty_cache, monkeypatch):
    def unpack(_offer, root):
        (root / "half").write_text("x")
        raise kernels.full_disk("unpacking", "No space left on device")

    monkeypatch.setattr(archive, "offers", lambda: [archive.Offer(series="7.3", version="7.3.4-1")])
    monkeypatch.setattr(archive, "unpack", unpack)
    with pytest.raises(StorageError, match="KTLSLAB_CACHE"):
        fetch("7.3")
    assert list((empty_cache / "kernels").iterdir()) == []


def test_what_is_no_kernel_image_is_told(tmp_path):
    with pytest.raises(KernelUnavailableError, match="no such file"):
        find(tmp_path / "vmlinuz")
    (tmp_path / "vmlinuz").write_bytes(b"not a kernel" * 1000)
    with pytest.raises(KernelUnavailableError, match="no Linux kernel image"):
        find(tmp_path / "vmlinuz")


def test_an_image_of_an_unpacked_tree_is_found_with_its_modules(newest):
    found = find(newest.vmlinuz)
    assert (found.release, found.series, found.modules) == (newest.release, newest.series, newest.modules)
