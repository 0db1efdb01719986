"""Guests: real kernels for machines whose own kernel has no kTLS, and for comparing kernels.

A guest is a Debian kernel in QEMU, or a user-mode one, an ordinary process that is up in a second or two and as fast as
the CPU, but good only for looking. It sees this machine's files below a throw-away layer and can change only one
folder.

    fetch("newest")             get a kernel (once), from Debian's archive
    run("uml", ["uname", "-r"])  run a command in it, like `subprocess.run`
    boot(...)                   the same, as a live handle

The names below are resolved when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab._lazy import lazily

if TYPE_CHECKING:
    from ktlslab.guests.acceleration import accelerator
    from ktlslab.guests.guest import Completed, Guest, boot, run
    from ktlslab.guests.kernels import Kernel, at_hand, available, builds, cached, fetch, find, own
    from ktlslab.guests.kernelspec import install, remove
    from ktlslab.guests.looking import for_looking
    from ktlslab.guests.needs import prerequisites
    from ktlslab.guests.qemu import emulator

# A module must not have the name of an object in it: importing the module would replace the object.
_HOMES = {
    "Kernel": "kernels",  # a kernel on disk: series, release, image, modules
    "cached": "kernels",  # the kernels usable without a network
    "available": "kernels",  # the kernels that the archive offers now
    "builds": "kernels",  # all that it offers, the earlier ones of a series too
    "at_hand": "kernels",  # a series, alias or build -> cached Kernel, or None
    "fetch": "kernels",  # a series, alias or build -> Kernel
    "find": "kernels",  # a series, alias, build or path -> Kernel
    "for_looking": "looking",  # the Kernel for what measures nothing: user-mode if possible
    "own": "kernels",  # the Kernel that this machine runs
    "Guest": "guest",  # a running guest, a context manager
    "Completed": "guest",  # the result of a command: exit status, stdout, stderr
    "boot": "guest",  # start a command in a guest
    "run": "guest",  # ... and wait for it
    "emulator": "qemu",  # QEMU's version
    "accelerator": "acceleration",  # "kvm" if a kernel has booted with it, else "tcg"
    "prerequisites": "needs",  # the programs that guests need, present or not
    "install": "kernelspec",  # a Jupyter kernel that runs inside a guest
    "remove": "kernelspec",  # ... and remove it
}

__all__ = [
    "Completed",
    "Guest",
    "Kernel",
    "accelerator",
    "at_hand",
    "available",
    "boot",
    "builds",
    "cached",
    "emulator",
    "fetch",
    "find",
    "for_looking",
    "install",
    "own",
    "prerequisites",
    "remove",
    "run",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
