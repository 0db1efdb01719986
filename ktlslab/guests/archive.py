"""The kernels for emulated CPUs in Debian's archive.

No version is hard-coded: the meta package `linux-image-amd64` of each suite names the kernel, and every dependency
pinned to exactly the meta package's version belongs to it (one package up to 6.12; image, binary and modules from 7.x
on). Earlier builds stay in a suite for a while, each as a package that is named by its release.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ktlslab.errors import KernelUnavailableError
from ktlslab.guests.apt import REMEDY, Apt, is_newer
from ktlslab.guests.aptsources import paragraphs

META = "linux-image-amd64"
APT = Apt()
_IMAGE = "linux-image-"
# The packages of one build, neither rt nor cloud.
_BUILDS = "^linux-(image|base|binary|modules)-[0-9]+[.][0-9]+[.][^-]+(-[0-9]+)?-amd64$"


class KernelOffer(NamedTuple):
    """One kernel that the archive has: its series, its version, and the package of this version that stands for it."""

    series: str
    version: str
    package: str = META

    @property
    def release(self) -> str:
        """The kernel's release, such as `6.1.0-52-amd64`; "" for a package that is not named by it."""
        return self.package.removeprefix(_IMAGE) if re.match(f"{_IMAGE}[0-9]", self.package) else ""


def series_of(version: str) -> str:
    """Return the series of a package version or kernel release: 6.12 for `6.12.95-1~bpo12+1`."""
    match = re.match(r"(?:\d+:)?(\d+\.\d+)", version)
    return match[1] if match else version


def by_age(series: str) -> tuple[int, ...]:
    """Sort key for series: 6.1 before 6.12 before 7.3."""
    return tuple(int(part) for part in re.findall(r"\d+", series))


def newest_of_each(offers: list[KernelOffer]) -> list[KernelOffer]:
    """Return the newest offer of each series, oldest series first."""
    newest: dict[str, KernelOffer] = {}
    for offer in offers:
        if offer.series not in newest or is_newer(offer.version, newest[offer.series].version):
            newest[offer.series] = offer
    return sorted(newest.values(), key=lambda offer: by_age(offer.series))


def offers() -> list[KernelOffer]:
    """Ask the archive what it has now, oldest series first, of each the newest version in any suite."""
    APT.update()
    answered = APT.ask("apt-cache", "show", META, tried="asking the archive for its kernels")
    versions = [fields.get("version", "") for fields in paragraphs(answered)]
    return newest_of_each([KernelOffer(series=series_of(version), version=version) for version in versions])


def builds() -> list[KernelOffer]:
    """Ask the archive for every build that it has, oldest first, each by the package of its release.

    A build some of whose packages are gone is none: the modules go before the image does.
    """
    APT.update()
    argv = ("apt-cache", "search", "--full", "--names-only", _BUILDS)
    return complete(paragraphs(APT.ask(*argv, tried="asking the archive for its kernels")))


def complete(packages: list[dict[str, str]]) -> list[KernelOffer]:
    """Return the builds whose packages are all here, oldest first, from the packages' fields."""
    have = {(fields["package"], fields["version"]) for fields in packages}
    images = {
        KernelOffer(series=series_of(version), version=version, package=name): pinned(
            fields.get("depends", ""), version
        )
        for fields in packages
        if (name := fields["package"]).startswith(_IMAGE) and (version := fields["version"])
    }
    found = [offer for offer, parts in images.items() if all((part, offer.version) in have for part in parts)]
    return sorted(found, key=lambda offer: version_order(offer.version))


def version_order(version: str) -> tuple[tuple[int, ...], bool, tuple[int, ...]]:
    """Sort key for the versions of kernels; the backport 6.12.95-1~bpo12+1 comes before 6.12.95-1."""
    upstream, _, rebuilt = version.partition("~")
    return by_age(upstream), not rebuilt, by_age(rebuilt)


def unpack(offer: KernelOffer, root: Path) -> None:
    """Download the packages of an offer and unpack them into `root`."""
    APT.unpack(_packages(offer), root, f"Linux {offer.series}")


def pinned(depends: str, version: str) -> list[str]:
    """Return the packages of a Depends field that are pinned to exactly `version`."""
    found = []
    for clause in depends.split(","):
        match = re.fullmatch(r"\s*(\S+?)(?::\w+)?\s*\(=\s*(\S+)\)\s*", clause)
        if match and match[2] == version:
            found.append(match[1])
    return found


def _packages(offer: KernelOffer) -> list[str]:
    """Follow the pinned dependencies from the offer's package; meta packages themselves hold no files."""
    waiting, seen = [offer.package], list[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.append(name)
        tried = f"asking what {name} {offer.version} consists of"
        fields = paragraphs(APT.ask("apt-cache", "show", f"{name}={offer.version}", tried=tried))
        waiting += pinned(fields[0].get("depends", ""), offer.version) if fields else []
    kernel = [f"{name}={offer.version}" for name in seen if re.search(r"\d", name.removesuffix("-amd64"))]
    if not kernel:
        answered = f"{offer.package} {offer.version} depends on no kernel"
        raise KernelUnavailableError(f"fetching Linux {offer.series}", answered=answered, remedy=REMEDY)
    return kernel
