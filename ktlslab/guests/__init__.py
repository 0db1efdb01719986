"""Guests: real kernels for machines whose own kernel cannot do kTLS, or to compare one kernel with another.

A guest is QEMU with a Debian kernel that sees this machine's files read-only and changes nothing but one folder.

    fetch("newest")             get a kernel (once), from Debian's archive
    run("6.12", ["uname", "-r"])  run a command in it, like `subprocess.run`
    boot(...)                   the same, as a live handle

The names below are resolved when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab._lazy import lazily

if TYPE_CHECKING:
    from ktlslab.guests.acceleration import accelerator
    from ktlslab.guests.guest import Completed, Guest, boot, run
    from ktlslab.guests.kernels import Kernel, at_hand, available, cached, fetch, find
    from ktlslab.guests.kernelspec import install, remove
    from ktlslab.guests.needs import prerequisites
    from ktlslab.guests.qemu import emulator

# A home never has the name of what it holds: importing it would put the module in the name's place.
_HOMES = {
    "Kernel": "kernels",  # a kernel on disk: series, release, image, modules
    "cached": "kernels",  # what is usable without a network
    "available": "kernels",  # what the archive offers now
    "at_hand": "kernels",  # a series or alias -> Kernel, if it is there without a network
    "fetch": "kernels",  # a series or alias -> Kernel
    "find": "kernels",  # a series, alias or path -> Kernel
    "Guest": "guest",  # a running guest, a context manager
    "Completed": "guest",  # what a finished command left: exit status, stdout, stderr
    "boot": "guest",  # start a command in a guest
    "run": "guest",  # ... and wait for it
    "emulator": "qemu",  # what QEMU says its version is
    "accelerator": "acceleration",  # "kvm" where a kernel is proven to work with it, else "tcg"
    "prerequisites": "needs",  # the programs that guests need, present or not
    "install": "kernelspec",  # a Jupyter kernel that runs inside a guest
    "remove": "kernelspec",  # ... and takes it away again
}

__all__ = [
    "Completed",
    "Guest",
    "Kernel",
    "accelerator",
    "at_hand",
    "available",
    "boot",
    "cached",
    "emulator",
    "fetch",
    "find",
    "install",
    "prerequisites",
    "remove",
    "run",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
