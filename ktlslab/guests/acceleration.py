"""Whether KVM can be used. A kernel uses KVM only after a trial boot with it has succeeded.

/dev/kvm proves nothing. On some machines it opens and a virtual machine can be made, but then hangs for ever; on others
one kernel boots and another does not. So each kernel is booted with KVM once, for a few seconds at most, and the result
is kept until this machine restarts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ktlslab.guests import qemu, vmlinux
from ktlslab.guests.cache import cache_dir, lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from ktlslab.guests.kernels import Kernel

DEVICE = Path("/dev/kvm")
TRIAL_SECONDS = 8.0
# How a kernel with nothing to start ends. This panic shows that everything before it worked.
AWAITED = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
_HUNG = "it did not end"
_LOG = logging.getLogger(__name__)


def accelerator(kernel: Kernel | None = None) -> qemu.Accelerator:
    """Return "kvm" if a trial boot of this kernel succeeded on this machine since it started, else "tcg" (emulation).

    Without a `kernel`, the newest cached one is tried; if there is none, the answer is "tcg".
    """
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return "tcg"
    if kernel is None:
        from ktlslab.guests.kernels import cached  # noqa: PLC0415 - most callers have a kernel at hand

        have = [kernel for kernel in cached() if not kernel.user_mode]
        if not have:
            return "tcg"
        kernel = have[-1]
    return "kvm" if once(kernel, lambda: trial(kernel, TRIAL_SECONDS)) == AWAITED else "tcg"


def once(kernel: Kernel, attempt: Callable[[], str]) -> str:
    """Return how a kernel's trial ended; it is made once since this machine started, or again after it raised."""
    with lock("accelerator"):
        seen = _recorded()
        if _key(kernel) not in seen:
            seen[_key(kernel)] = attempt()
            _record(seen)
        return seen[_key(kernel)]


def give_up(kernel: Kernel, why: str) -> None:
    """Record that a kernel does not boot on KVM although its trial succeeded, and log a warning."""
    _LOG.warning("ktlslab: %s does not boot on KVM, so it is emulated from now on: %s", kernel, why)
    with lock("accelerator"):
        _record(_recorded() | {_key(kernel): why})


def trial(kernel: Kernel, seconds: float) -> str:
    """Boot a kernel on KVM with nothing to start, and return its panic message or how else it ended."""
    with tempfile.TemporaryDirectory(prefix="ktlslab-trial-") as folder:
        console = Path(folder) / "console.log"
        argv = command(kernel, console, ["-accel", "kvm", "-cpu", "host"])
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return _HUNG
        said = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
        panic = re.search(r"Kernel panic[^\r\n]*", said)
        return panic[0].rstrip() if panic else f"QEMU ended with {done.returncode} and no panic"


def command(kernel: Kernel, console: Path, accelerate: list[str]) -> list[str]:
    """Return QEMU's command for a trial."""
    argv = [qemu.program(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc"]
    argv += [*accelerate, "-m", "256M", "-kernel", str(vmlinux.bootable(kernel.vmlinuz))]
    return [*argv, "-append", "console=ttyS0 quiet panic=-1", "-serial", f"file:{qemu.escaped(console)}"]


def _key(kernel: Kernel) -> str:
    return f"{kernel.vmlinuz} {kernel.vmlinuz.stat().st_mtime_ns}"


def _place() -> Path:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return cache_dir() / f"accelerator-{boot}-{os.getuid()}.json"


def _recorded() -> dict[str, str]:
    """Return the result of each kernel's trial since this machine started."""
    with contextlib.suppress(OSError, ValueError):
        seen = json.loads(_place().read_text(encoding="utf-8"))
        return seen if isinstance(seen, dict) else {}
    return {}


def _record(seen: dict[str, str]) -> None:
    place = _place()
    for old in place.parent.glob(f"accelerator-*-{os.getuid()}*"):
        old.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        place.write_text(json.dumps(seen, indent=1), encoding="utf-8")
