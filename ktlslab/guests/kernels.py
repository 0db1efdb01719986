"""A kernel to boot: where its image and modules lie, how it got there, and what it is called.

A kernel is asked for by its series (`6.12`), by an alias (`oldest`, `newest`), or by the path of an image that someone
built or installed. Fetched kernels stay in the cache and are used from there without asking the network, so a result
can be repeated after the archive has moved on. x86-64 only: the guests' machine model is a PC.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ktlslab.errors import KernelUnavailableError, MachineError
from ktlslab.guests import archive
from ktlslab.guests.cache import cache_dir, full_disk, lock, scratch, storage
from ktlslab.guests.programs import required
from ktlslab.packages import how_to_get

ALIASES = ("oldest", "newest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel image and its modules, on this machine's disk."""

    series: str
    release: str
    vmlinuz: Path
    modules: Path

    def __str__(self) -> str:
        return f"Linux {self.release}"


def cached() -> list[Kernel]:
    """Return the kernels that are usable without a network, oldest first."""
    found = []
    for root in cache_dir("kernels").iterdir():
        if root.name.startswith("."):
            continue
        for modules in sorted(root.glob("lib/modules/*")):
            release = modules.name
            vmlinuz = root / "boot" / f"vmlinuz-{release}"
            if vmlinuz.is_file():
                found.append(Kernel(series=root.name, release=release, vmlinuz=vmlinuz, modules=modules))
    return sorted(found, key=lambda kernel: archive.by_age(kernel.series))


def available() -> list[str]:
    """Ask the archive which series it offers now, oldest first."""
    _require_x86()
    return [offer.series for offer in _offers()]


def fetch(name: str) -> Kernel:
    """Return the kernel of a series or alias, from the cache if it is there, else from Debian's archive."""
    have = {kernel.series: kernel for kernel in cached()}
    series = resolve(name, set(have), _recorded()) if have else name
    if series in have:
        return have[series]
    if series not in ALIASES and not re.fullmatch(r"\d+\.\d+", series):
        raise _unknown(name, sorted(have, key=archive.by_age), _recorded())
    _require_x86()
    with lock("fetch"):
        offers = {offer.series: offer for offer in _offers_or_explain(name, sorted(have, key=archive.by_age))}
        series = resolve(name, set(have), sorted(offers, key=archive.by_age))
        have = {kernel.series: kernel for kernel in cached()}  # whoever held the lock may have fetched it
        if series not in have:
            if series not in offers:
                raise _unknown(name, sorted(have, key=archive.by_age), list(offers))
            _add(offers[series])
            have = {kernel.series: kernel for kernel in cached()}
        return have[series]


def find(name: str | Path) -> Kernel:
    """Return the kernel of a series, an alias, or the path of an image."""
    text = str(name)
    if isinstance(name, str) and (text in ALIASES or re.fullmatch(r"\d+\.\d+", text)):
        return fetch(text)
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        if isinstance(name, Path) or "/" in text:
            remedy = "Name a kernel image such as /boot/vmlinuz-..., or a series: see `ktlslab guest list`."
            raise KernelUnavailableError(f"looking for a kernel at {path}", answered="no such file", remedy=remedy)
        return fetch(text)
    release = release_of(path)
    if not release:
        remedy = "Name a bzImage for x86-64, usually called vmlinuz."
        raise KernelUnavailableError(f"reading {path}", answered="this is no Linux kernel image", remedy=remedy)
    up = path.resolve().parent
    places = [
        up,
        up.parent / "lib/modules" / release,
        up.parent / "usr/lib/modules" / release,
        Path("/lib/modules") / release,
    ]
    for modules in places:
        if (modules / "modules.dep").is_file():
            return Kernel(series=archive.series_of(release), release=release, vmlinuz=path, modules=modules)
    answered = "no modules.dep in " + " or ".join(str(place) for place in places[1:])
    remedy = f"Install this kernel's modules, or run `depmod -b ROOT {release}` where they are."
    raise KernelUnavailableError(f"looking for the modules of {release}", answered=answered, remedy=remedy)


def resolve(name: str, have: set[str], offered: list[str]) -> str:
    """Return the series that a name stands for: an end of what is cached and of what the archive offered."""
    if name not in ALIASES:
        return name
    known = sorted(have | set(offered), key=archive.by_age)
    if not known:
        return name
    return known[0] if name == "oldest" else known[-1]


def release_of(image: Path) -> str:
    """Read the release in a bzImage's header (Documentation/arch/x86/boot.rst: kernel_version); "" if it is none."""
    with image.open("rb") as file:
        head = file.read(0x10000)
    if head[0x202:0x206] != b"HdrS":
        return ""
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    return head[start : head.find(b"\0", start)].split(b" ")[0].decode("ascii", "replace")


def _add(offer: archive.Offer) -> None:
    place = cache_dir("kernels") / offer.series
    with scratch(place) as root:
        archive.unpack(offer, root)
        with storage(f"storing Linux {offer.series}"):
            _arrange(root, offer)
            place_is_free = not place.exists()
            if not place_is_free:
                shutil.rmtree(place)
            root.rename(place)


def _arrange(root: Path, offer: archive.Offer) -> None:
    """Bring every packaging to one shape, boot/vmlinuz-REL and lib/modules/REL, without what no guest reads."""
    if (root / "usr/lib/modules").is_dir():
        (root / "lib").mkdir(exist_ok=True)
        (root / "usr/lib/modules").rename(root / "lib/modules")
    shutil.rmtree(root / "usr", ignore_errors=True)
    trees = list(root.glob("lib/modules/*"))
    images = [*root.glob("boot/vmlinuz-*"), *root.glob("lib/modules/*/vmlinuz")]
    if len(trees) != 1 or not images:
        answered = f"its packages hold {len(images)} images and {len(trees)} module trees"
        raise KernelUnavailableError(f"unpacking Linux {offer.series}", answered=answered, remedy=archive.REMEDY)
    release = trees[0].name
    (root / "boot").mkdir(exist_ok=True)
    images[0].rename(root / "boot" / f"vmlinuz-{release}")
    for unread in [*root.glob("**/System.map*"), *trees[0].glob("vmlinuz")]:
        unread.unlink(missing_ok=True)
    for drivers in ("drivers/gpu", "drivers/media", "drivers/net/wireless", "sound"):
        shutil.rmtree(trees[0] / "kernel" / drivers, ignore_errors=True)
    depmod = required("depmod")
    done = subprocess.run([depmod, "-b", str(root), release], capture_output=True, text=True, check=False)
    if done.returncode and "space" in done.stderr:
        raise full_disk(f"indexing the modules of {release}", done.stderr.strip())
    if done.returncode:
        answered = done.stderr.strip() or f"depmod gave {done.returncode}"
        raise MachineError(f"indexing the modules of {release}", answered=answered, remedy=how_to_get("depmod"))
    root.chmod(0o755)


def _index() -> Path:
    return cache_dir() / "archive.json"


def _recorded() -> list[str]:
    """Return the series that the archive offered when it was last asked."""
    try:
        return [str(series) for series in json.loads(_index().read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        return []


def _offers() -> list[archive.Offer]:
    with lock("apt"):
        offers = archive.offers()
    with storage("recording what the archive offers"):
        _index().write_text(json.dumps([offer.series for offer in offers]), encoding="utf-8")
    return offers


def _offers_or_explain(name: str, have: list[str]) -> list[archive.Offer]:
    try:
        return _offers()
    except KernelUnavailableError as error:
        remedy = f"Usable without a network: {', '.join(have)}. {error.remedy}" if have else error.remedy
        raise KernelUnavailableError(
            f"fetching kernel {name}: {error.tried}", answered=error.answered, remedy=remedy
        ) from error


def _unknown(name: str, have: list[str], offered: list[str]) -> KernelUnavailableError:
    answered = (
        f"there is none; in the cache: {', '.join(have) or 'none'}; in the archive: {', '.join(offered) or 'not asked'}"
    )
    remedy = "Name one of these, `oldest` or `newest`, or the path of a kernel image."
    return KernelUnavailableError(f"fetching kernel {name!r}", answered=answered, remedy=remedy)


def _require_x86() -> None:
    if platform.machine() not in {"x86_64", "AMD64"}:
        answered = f"this machine is {platform.machine()}"
        remedy = "Guests are x86-64 only so far, and share this machine's programs; run them on an x86-64 machine."
        raise KernelUnavailableError("fetching a guest kernel", answered=answered, remedy=remedy)
