"""User-mode kernels in Debian's archive: the package `user-mode-linux` of each suite, with a C library of its own.

Such a kernel is a program that needs the C library of the suite it was built in, which may be newer than this
machine's. So it always gets the archive's newest one, in its own folder: what it runs with is the same everywhere, and
nothing of this machine is replaced. To find that library, its loader's path becomes a relative one (see
`usermode.command`), which the kernel of this machine resolves in the folder where the program is started.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ktlslab.errors import KernelUnavailableError
from ktlslab.guests.apt import REMEDY, Apt
from ktlslab.guests.aptsources import USER_MODE_SUITES, paragraphs
from ktlslab.guests.archive import KernelOffer, newest_of_each, series_of
from ktlslab.guests.cache import storage
from ktlslab.guests.elf import set_interpreter

PACKAGE = "user-mode-linux"
PREFIX = "uml-"
APT = Apt(name="user-mode", suites=USER_MODE_SUITES, security_suites=())
LIBRARY = "libc"  # the folder of the C library, beside boot/ and lib/
LOADER = "ld.so"
_LIBRARIES = {"ld-linux-x86-64.so.2": LOADER, "libc.so.6": "libc.so.6"}  # all that a user-mode kernel is linked with


def offers() -> list[KernelOffer]:
    """Ask the archive what it has now, oldest series first, of each the newest version in any suite."""
    APT.update()
    answered = APT.ask("apt-cache", "show", PACKAGE, tried="asking the archive for its user-mode kernels")
    versions = [fields.get("version", "") for fields in paragraphs(answered)]
    return newest_of_each(
        [KernelOffer(series=PREFIX + series_of(version), version=version, package=PACKAGE) for version in versions]
    )


def unpack(offer: KernelOffer, root: Path) -> None:
    """Download an offer and lay it out in `root` as boot/vmlinuz-RELEASE, lib/modules/RELEASE and LIBRARY."""
    APT.unpack([f"{PACKAGE}={offer.version}", "libc6"], root, f"Linux {offer.series}")
    image, trees = root / "usr/bin/linux.uml", list(root.glob("usr/lib/uml/modules/*"))
    found = {name: next((path for path in root.glob(f"**/x86_64-linux-gnu/{name}")), None) for name in _LIBRARIES}
    if not image.is_file() or len(trees) != 1 or not all(found.values()):
        answered = f"its packages hold no {image.name}, {len(trees)} module trees, or no C library"
        raise KernelUnavailableError(f"unpacking Linux {offer.series}", answered=answered, remedy=REMEDY)
    release = trees[0].name
    with storage(f"storing Linux {offer.series}"):
        for folder in ("boot", "lib/modules", LIBRARY):
            (root / folder).mkdir(parents=True, exist_ok=True)
        placed = root / "boot" / f"vmlinuz-{release}"
        placed.write_bytes(set_interpreter(image.read_bytes(), f"{LIBRARY}/{LOADER}"))
        placed.chmod(0o755)
        trees[0].rename(root / "lib/modules" / release)
        for name, source in found.items():
            assert source is not None  # noqa: S101 - for the type checker
            source.resolve().rename(root / LIBRARY / _LIBRARIES[name])
        for unread in ("usr", "etc"):
            shutil.rmtree(root / unread, ignore_errors=True)
    root.chmod(0o755)
