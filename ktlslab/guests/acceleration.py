"""Whether the CPU's own virtualisation can be used: only after a guest was seen to come up with it.

/dev/kvm proves nothing: there are machines where it opens, a virtual machine can be made, and then hangs for ever. So a
kernel is booted with it once, for a few seconds at most, and the answer is kept until this machine restarts.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ktlslab.guests import qemu
from ktlslab.guests.cache import cache_dir, lock

if TYPE_CHECKING:
    from ktlslab.guests.kernels import Kernel

DEVICE = Path("/dev/kvm")
TRIAL_SECONDS = 8.0


def accelerator(kernel: Kernel | None = None) -> qemu.Accelerator:
    """Return "kvm" if a trial boot succeeded on this machine since it started, else "tcg" (software emulation).

    The trial boots `kernel`, or the newest one in the cache; with neither there is nothing to try, and no kvm yet.
    """
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return "tcg"
    with lock("accelerator"):
        place = cache_dir() / f"accelerator-{_boot_id()}-{os.getuid()}"
        with contextlib.suppress(OSError):
            return "kvm" if place.read_text(encoding="ascii") == "kvm" else "tcg"
        if kernel is None:
            from ktlslab.guests.kernels import cached  # noqa: PLC0415 - most callers have a kernel at hand

            have = cached()
            if not have:
                return "tcg"
            kernel = have[-1]
        answer: qemu.Accelerator = "kvm" if trial(kernel, TRIAL_SECONDS) else "tcg"
        for old in place.parent.glob(f"accelerator-*-{os.getuid()}"):
            old.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            place.write_text(answer, encoding="ascii")
        return answer


def trial(kernel: Kernel, seconds: float) -> bool:
    """Boot a kernel with nothing to start: that it panics for want of a root, and so ends QEMU, shows that it ran."""
    with tempfile.TemporaryDirectory(prefix="ktlslab-trial-") as folder:
        console = Path(folder) / "console.log"
        argv = [qemu.program(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc"]
        argv += ["-accel", "kvm", "-cpu", "host", "-m", "256M", "-kernel", str(kernel.vmlinuz)]
        argv += ["-append", "console=ttyS0 quiet panic=-1", "-serial", f"file:{qemu.escaped(console)}"]
        try:
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=True)
        except (OSError, subprocess.SubprocessError):
            return False
        return b"Kernel panic" in console.read_bytes()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
