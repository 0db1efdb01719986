"""Kernels to boot: their names, where their image and modules are, and how to fetch them.

A kernel is named by its series (`6.12`), by an alias (`oldest`, `newest`), as one build of a series by its release or
version (`6.1.0-52-amd64`, `6.1.180-1` or `6.1.180`), or by the path of an image. User-mode kernels have series of their
own (`uml-6.12`), whose newest is `uml`.
Fetched kernels stay in the cache and are used without the network, so a result can be repeated after the archive has
moved on. A newer one of the same series is fetched only on request, and the earlier one is kept. Guests are x86-64
only: their machine model is a PC.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ktlslab.errors import KernelUnavailableError, MachineError, UsageError
from ktlslab.guests import apt, archive, usermodearchive
from ktlslab.guests.cache import cache_dir, full_disk, lock, scratch, storage
from ktlslab.guests.programs import required
from ktlslab.packages import how_to_get

USER_MODE = "uml"
ALIASES = ("oldest", "newest", USER_MODE)
_SERIES = re.compile(rf"({usermodearchive.PREFIX})?\d+\.\d+")
_BUILD = re.compile(r"\d+\.\d+\.\d[\w.+~-]*")
_SIGNED_ONLY = re.compile(r"^CONFIG_(MODULE_SIG_FORCE|LOCK_DOWN_KERNEL_FORCE_[IC]\w+)=y", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel image and its modules, on this machine's disk."""

    series: str
    release: str
    vmlinuz: Path
    modules: Path

    @property
    def user_mode(self) -> bool:
        """Whether it is a program of this machine, and not for a CPU of its own."""
        return is_user_mode(self.series)

    @property
    def version(self) -> str:
        """The version of the Debian package, such as `6.1.176-1`, from the image; "" if it is not a Debian kernel."""
        if self.user_mode:
            return self.vmlinuz.parents[1].name  # its folder in the cache
        match = re.search(r" Debian (\S+) \(", banner_of(self.vmlinuz))
        return match[1] if match else ""

    @property
    def upstream(self) -> str:
        """The version of its source, such as `6.1.176`, or the release of a kernel that does not say it."""
        return self.release if self.user_mode else self.version.partition("-")[0] or self.release

    @property
    def takes_unsigned(self) -> bool:
        """Whether it loads modules without a signature, by its configuration; False if that cannot be read."""
        for place in (self.vmlinuz.resolve().with_name(f"config-{self.release}"), self.modules / "config"):
            with contextlib.suppress(OSError):
                return not _SIGNED_ONLY.search(place.read_text(encoding="utf-8"))
        return False

    def goes_by(self, name: str) -> bool:
        """Whether this build has the name: its release, the version of its package, or that of its source."""
        return not self.user_mode and name in _names(self.release, self.version)

    def __str__(self) -> str:
        return f"Linux {self.release}{' (user mode)' if self.user_mode else ''}"


def cached() -> list[Kernel]:
    """Return the kernels usable without a network, oldest first, user-mode ones last. A series stands for its last."""
    found = []
    for place in (_place(user_mode=False), _place(user_mode=True)):
        for pattern in ("[!.]*/boot/vmlinuz-*", "[!.]*/*/boot/vmlinuz-*"):  # the layout of earlier versions of ktlslab
            for vmlinuz in place.glob(pattern):
                release = vmlinuz.name.removeprefix("vmlinuz-")
                modules = vmlinuz.parents[1] / "lib/modules" / release
                if modules.is_dir():
                    series = vmlinuz.relative_to(place).parts[0]
                    found.append(Kernel(series=series, release=release, vmlinuz=vmlinuz, modules=modules))
    return sorted(
        found,
        key=lambda kernel: (
            kernel.user_mode,
            archive.by_age(kernel.series),
            archive.version_order(kernel.version),
            kernel.release,
        ),
    )


def at_hand(name: str) -> Kernel | None:
    """Return the kernel of a series, alias or build, or None if it is not in the cache."""
    if is_build(name):
        return next((kernel for kernel in reversed(cached()) if kernel.goes_by(name)), None)
    have = {kernel.series: kernel for kernel in cached()}
    return have.get(resolve(name, set(have), _recorded(user_mode=is_user_mode(name)))) if have else None


def available() -> list[archive.KernelOffer]:
    """Ask the archive which kernels it offers now, oldest series first, of each series the newest; user-mode ones last.

    Raises KernelUnavailableError if the archive does not answer.
    """
    _require_x86()
    return [*_offers(), *_offers(user_mode=True)]


def builds() -> list[archive.KernelOffer]:
    """Ask the archive for every build that it has now, oldest first: of each series more than one.

    Raises KernelUnavailableError if the archive does not answer.
    """
    _require_x86()
    with lock("apt"):
        return archive.builds()


def fetch(name: str, *, update: bool = False) -> Kernel:
    """Return the kernel of a series, alias or build, from the cache if possible, otherwise from Debian's archive.

    With `update`, a newer kernel of the series is fetched if the archive has one. Raises KernelUnavailableError, which
    lists what is available, and StorageError.
    """
    have = at_hand(name)
    if have and (not update or is_build(name)):
        return have
    if is_build(name):
        return _fetch_build(name)
    known = sorted({kernel.series for kernel in cached()}, key=archive.by_age)
    if name not in ALIASES and not _SERIES.fullmatch(name):
        raise _unknown(name, known, _recorded(user_mode=is_user_mode(name)))
    _require_x86()
    with lock("fetch"):
        offers = {offer.series: offer for offer in _offers_or_explain(name, known)}
        offer = offers.get(resolve(name, set(known), list(offers)))
        have = at_hand(name)  # the previous holder of the lock may have fetched it
        if offer and (not have or apt.is_newer(offer.version, have.version or "0")):
            _add(offer)
            have = at_hand(name)
        if not have:
            raise _unknown(name, known, list(offers))
        return have


def _fetch_build(name: str) -> Kernel:
    with lock("fetch"):
        if have := at_hand(name):  # the previous holder of the lock may have fetched it
            return have
        offers = builds()
        having = [offer for offer in offers if name in _names(offer.release, offer.version)]
        if having:
            _add(having[-1])
            if have := at_hand(name):
                return have
    series = archive.series_of(name)
    others = ", ".join(offer.release for offer in offers if offer.series == series)
    answered = f"the archive has no such build of {series}: it has {others or 'none'}"
    remedy = "`ktlslab guest list --all` lists its builds. Older ones go; one that was fetched stays in the cache."
    raise KernelUnavailableError(f"fetching kernel {name}", answered=answered, remedy=remedy)


def find(name: str | Path) -> Kernel:
    """Return the kernel of a series, an alias, a build, or the path of an image.

    Raises KernelUnavailableError if it is not available, UsageError if the name is invalid.
    """
    if not isinstance(name, str | Path) or "\0" in str(name):
        remedy = "Give a series such as '6.12', 'oldest', 'newest', 'uml', or the path of a kernel image."
        raise UsageError("looking for a kernel", answered=f"{name!r} does not name one", remedy=remedy)
    text = str(name)
    if isinstance(name, str) and (text in ALIASES or _SERIES.fullmatch(text)):
        return fetch(text)
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        if isinstance(name, Path) or "/" in text:
            remedy = "Name a kernel image such as /boot/vmlinuz-..., or a series: see `ktlslab guest list`."
            raise KernelUnavailableError(f"looking for a kernel at {path}", answered="no such file", remedy=remedy)
        return fetch(text)
    if not os.access(path, os.R_OK):
        remedy = "Run it as root, or make a copy that you may read: some distributions let only root read their images."
        raise KernelUnavailableError(f"reading {path}", answered="EACCES: permission denied", remedy=remedy)
    release = release_of(path)
    if not release:
        remedy = "Name a bzImage for x86-64, usually called vmlinuz."
        raise KernelUnavailableError(f"reading {path}", answered="this is not a Linux kernel image", remedy=remedy)
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


def own() -> Kernel:
    """Return the kernel that this machine runs, to be booted in a guest.

    It is looked for where distributions put it, in the cache, and in Debian's archive. KernelUnavailableError where it
    is in none of them, and in a guest, which would be far too slow as the host of another.
    """
    release = os.uname().release
    if os.environ.get("KTLSLAB_GUEST"):
        remedy = "Name the kernel to the machine that the guest runs on: `--on SERIES` there."
        raise KernelUnavailableError(f"looking for {release}", answered="this is a guest itself", remedy=remedy)
    for image in (Path(f"/boot/vmlinuz-{release}"), Path(f"/usr/lib/modules/{release}/vmlinuz")):
        if os.access(image, os.R_OK):
            return find(image)
    return fetch(release)


def resolve(name: str, have: set[str], offered: list[str]) -> str:
    """Return the series of a name; the aliases are among the cached and the offered ones."""
    if name not in ALIASES:
        return name
    alike = {series for series in have | set(offered) if is_user_mode(series) == is_user_mode(name)}
    known = sorted(alike, key=archive.by_age)
    if not known:
        return name
    return known[0] if name == "oldest" else known[-1]


def release_of(image: Path) -> str:
    """Return the release of a bzImage, such as `6.1.0-50-amd64`; "" if the file is not a bzImage."""
    return banner_of(image).partition(" ")[0]


def banner_of(image: Path) -> str:
    """Return kernel_version from a bzImage's header (Documentation/arch/x86/boot.rst); "" if it is not a bzImage."""
    with image.open("rb") as file:
        head = file.read(0x10000)
    if head[0x202:0x206] != b"HdrS":
        return ""
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    return head[start : head.find(b"\0", start)].decode("ascii", "replace")


def is_user_mode(name: str) -> bool:
    """Whether a series or alias is that of user-mode kernels."""
    return name == USER_MODE or name.startswith(usermodearchive.PREFIX)


def is_build(name: str) -> bool:
    """Whether a name is that of one build of a series."""
    return bool(_BUILD.fullmatch(name))


def _names(release: str, version: str) -> tuple[str, ...]:
    return release, version, version.partition("-")[0]


def _add(offer: archive.KernelOffer) -> None:
    place = _place(user_mode=is_user_mode(offer.series)) / offer.series / offer.version
    with scratch(place.parent) as root:
        if is_user_mode(offer.series):
            usermodearchive.unpack(offer, root)
        else:
            archive.unpack(offer, root)
        with storage(f"storing Linux {offer.series}"):
            if not is_user_mode(offer.series):
                _arrange(root, offer)
            place.parent.mkdir(exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)  # an unusable one: a usable one would have been found
            root.rename(place)


def _arrange(root: Path, offer: archive.KernelOffer) -> None:
    """Bring every packaging to one shape, boot/vmlinuz-REL and lib/modules/REL, without what no guest reads."""
    if (root / "usr/lib/modules").is_dir():
        (root / "lib").mkdir(exist_ok=True)
        (root / "usr/lib/modules").rename(root / "lib/modules")
    shutil.rmtree(root / "usr", ignore_errors=True)
    trees = list(root.glob("lib/modules/*"))
    images = [*root.glob("boot/vmlinuz-*"), *root.glob("lib/modules/*/vmlinuz")]
    if len(trees) != 1 or not images:
        answered = f"its packages hold {len(images)} images and {len(trees)} module trees"
        raise KernelUnavailableError(f"unpacking Linux {offer.series}", answered=answered, remedy=apt.REMEDY)
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


def _place(*, user_mode: bool) -> Path:
    """Return the folder of the kernels of one kind."""
    return cache_dir("user-mode-kernels" if user_mode else "kernels")


def _index(*, user_mode: bool) -> Path:
    return cache_dir() / ("user-mode-archive.json" if user_mode else "archive.json")


def _recorded(*, user_mode: bool) -> list[str]:
    """Return the series of one kind that the archive offered at the last request."""
    try:
        return [str(series) for series in json.loads(_index(user_mode=user_mode).read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        return []


def _offers(*, user_mode: bool = False) -> list[archive.KernelOffer]:
    """Ask the archive for the kernels of one kind."""
    with lock("apt"):
        offers = usermodearchive.offers() if user_mode else archive.offers()
    with storage("recording what the archive offers"):
        _index(user_mode=user_mode).write_text(json.dumps([offer.series for offer in offers]), encoding="utf-8")
    return offers


def _offers_or_explain(name: str, have: list[str]) -> list[archive.KernelOffer]:
    try:
        return _offers(user_mode=is_user_mode(name))
    except KernelUnavailableError as error:
        remedy = f"Usable without a network: {', '.join(have)}. {error.remedy}" if have else error.remedy
        raise KernelUnavailableError(
            f"fetching kernel {name}: {error.tried}", answered=error.answered, remedy=remedy
        ) from error


def _unknown(name: str, have: list[str], offered: list[str]) -> KernelUnavailableError:
    answered = (
        f"there is none; in the cache: {', '.join(have) or 'none'}; in the archive: {', '.join(offered) or 'not asked'}"
    )
    remedy = "Name one of these, `oldest`, `newest` or `uml`, or the path of a kernel image."
    return KernelUnavailableError(f"fetching kernel {name!r}", answered=answered, remedy=remedy)


def _require_x86() -> None:
    if platform.machine() not in {"x86_64", "AMD64"}:
        answered = f"this machine is {platform.machine()}"
        remedy = "Guests are x86-64 only so far, and share this machine's programs; run them on an x86-64 machine."
        raise KernelUnavailableError("fetching a guest kernel", answered=answered, remedy=remedy)
