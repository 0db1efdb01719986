"""Debian's archive through apt, without privileges and without touching this machine's own apt state.

apt verifies the archive's signature and the hash of every file, and uses this machine's proxy. It gets its own lists,
cache and status folders. No version is hard-coded: the meta package `linux-image-amd64` of each suite names the kernel,
and every dependency pinned to exactly the meta package's version belongs to it (one package up to 6.12; image, binary
and modules from 7.x on). Earlier builds stay in a suite for a while, each as a package that is named by its release.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from ktlslab.errors import KernelUnavailableError
from ktlslab.guests.aptsources import paragraphs, sources
from ktlslab.guests.cache import cache_dir, full_disk, storage
from ktlslab.packages import how_to_get

META = "linux-image-amd64"
_IMAGE = "linux-image-"
# The packages of one build, neither rt nor cloud.
_BUILDS = "^linux-(image|base|binary|modules)-[0-9]+[.][0-9]+[.][^-]+(-[0-9]+)?-amd64$"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
REMEDY = (
    "Check the network and this machine's apt sources (or set $KTLSLAB_MIRROR to a Debian archive); a kernel image "
    "that you already have works without either: `ktlslab guest run /boot/vmlinuz-... -- COMMAND`."
)
_TIMEOUT = 600.0
_NO_SPACE = re.compile(r"no space left|enough free space|disk quota", re.IGNORECASE)


class KernelOffer(NamedTuple):
    """One kernel that the archive has: its series, its version, and the package of this version that stands for it."""

    series: str
    version: str
    package: str = META

    @property
    def release(self) -> str:
        """The kernel's release, such as `6.1.0-52-amd64`; "" for a meta package, which does not say it."""
        return "" if self.package == META else self.package.removeprefix(_IMAGE)


def series_of(version: str) -> str:
    """Return the series of a package version or kernel release: 6.12 for `6.12.95-1~bpo12+1`."""
    match = re.match(r"(?:\d+:)?(\d+\.\d+)", version)
    return match[1] if match else version


def by_age(series: str) -> tuple[int, ...]:
    """Sort key for series: 6.1 before 6.12 before 7.3."""
    return tuple(int(part) for part in re.findall(r"\d+", series))


def offers() -> list[KernelOffer]:
    """Ask the archive what it has now, oldest series first, of each the newest version in any suite."""
    _update()
    answered = _apt("apt-cache", "show", META, tried="asking the archive for its kernels")
    newest: dict[str, KernelOffer] = {}
    for fields in paragraphs(answered):
        version = fields.get("version", "")
        series = series_of(version)
        if series not in newest or is_newer(version, newest[series].version):
            newest[series] = KernelOffer(series=series, version=version)
    return sorted(newest.values(), key=lambda offer: by_age(offer.series))


def builds() -> list[KernelOffer]:
    """Ask the archive for every build that it has, oldest first, each by the package of its release.

    A build some of whose packages are gone is none: the modules go before the image does.
    """
    _update()
    answered = _apt(
        "apt-cache", "search", "--full", "--names-only", _BUILDS, tried="asking the archive for its kernels"
    )
    return complete(paragraphs(answered))


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
    names = _packages(offer)
    downloads = root / "downloads"
    with storage(f"unpacking Linux {offer.series}"):
        downloads.mkdir()
    _apt("apt-get", "-q", "download", *names, tried=f"downloading Linux {offer.series}", cwd=downloads)
    for package in sorted(downloads.glob("*.deb")):
        tried = f"unpacking {package.name}"
        done = subprocess.run(["dpkg-deb", "-x", str(package), str(root)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise _failure(tried, done.stderr, root)
        package.unlink()
    shutil.rmtree(downloads)


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
        fields = paragraphs(_apt("apt-cache", "show", f"{name}={offer.version}", tried=tried))
        waiting += pinned(fields[0].get("depends", ""), offer.version) if fields else []
    kernel = [f"{name}={offer.version}" for name in seen if re.search(r"\d", name.removesuffix("-amd64"))]
    if not kernel:
        answered = f"{offer.package} {offer.version} depends on no kernel"
        raise KernelUnavailableError(f"fetching Linux {offer.series}", answered=answered, remedy=REMEDY)
    return kernel


def _update() -> None:
    """Fetch the package lists. Suites that fail are ignored as long as one works."""
    tried = "asking Debian's archive for its kernels"
    if not shutil.which("apt-get"):
        answered = "this machine has no apt-get"
        raise KernelUnavailableError(tried, answered=answered, remedy=REMEDY)
    if not KEYRING.exists():
        remedy = how_to_get("debian-archive-keyring")
        raise KernelUnavailableError(tried, answered=f"{KEYRING} is missing", remedy=f"{remedy}. {REMEDY}")
    suites = sources()
    if not suites:
        answered = "this machine's apt sources name no Debian archive"
        raise KernelUnavailableError(tried, answered=answered, remedy=REMEDY)
    state = _state()
    lines = [f"deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main" for uri, suite in suites]
    with storage("writing the private apt sources"):
        (state / "sources.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = _run(["apt-get", "-q", *_options(state), "update"])
    # Old lists may exist, so check that the archive answered for at least one suite now.
    answered_for = re.search(r"^(Get|Hit):\d+ .* InRelease", done.stdout, re.MULTILINE)
    if not answered_for or not list((state / "lists").glob("*Packages*")):
        raise _failure(tried, done.stderr, state)


def _state() -> Path:
    state = cache_dir("apt")
    with storage(f"making {state}"):
        for folder in ("lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
    return state


def _options(state: Path) -> list[str]:
    settings = {
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Sandbox::User": "root",  # the user _apt cannot use our folder
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
    }
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


def _apt(program: str, *argv: str, tried: str, cwd: Path | None = None) -> str:
    state = _state()
    done = _run([program, *_options(state), *argv], cwd=cwd)
    if done.returncode:
        raise _failure(tried, done.stderr, cwd or state)
    return done.stdout


def _run(argv: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, cwd=cwd, capture_output=True, text=True, errors="replace", check=False, timeout=_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelUnavailableError(f"running {argv[0]}", answered=str(error), remedy=REMEDY) from error


def _failure(tried: str, stderr: str, where: Path) -> Exception:
    """Distinguish a full disk from an archive that cannot be reached."""
    lines = [line for line in stderr.splitlines() if line.startswith("E:")] or stderr.splitlines() or ["no answer"]
    lines = [line for line in stderr.splitlines() if _NO_SPACE.search(line)] or lines
    answered = "; ".join(line.rstrip(".") for line in lines[-2:])
    if _NO_SPACE.search(stderr) or shutil.disk_usage(where).free < 1 << 20:
        return full_disk(tried, answered)
    return KernelUnavailableError(tried, answered=answered, remedy=REMEDY)


def is_newer(left: str, right: str) -> bool:
    """Whether version `left` is newer than `right`, by Debian's rules."""
    return subprocess.run(["dpkg", "--compare-versions", left, "gt", right], check=False).returncode == 0
