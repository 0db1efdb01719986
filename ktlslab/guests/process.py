"""A guest's process. To the rest it is the same whether it is QEMU or a user-mode kernel.

It starts from an argument vector, in the guest's folder, with the three output streams as inherited descriptors; what
it prints itself goes to a file there. It leads a process group: a user-mode kernel has a process for each of the
guest's, and none may outlive it. It ends with the program that started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ktlslab.errors import MachineError, errno_name
from ktlslab.guests import launcher
from ktlslab.guests.console import OUTPUT


def start(argv: Sequence[str], folder: Path, ports: Sequence[int], *, one_cpu: bool) -> subprocess.Popen[bytes]:
    """Start a guest's process so that it ends with this one, and its folder with it. `one_cpu`: it keeps to one CPU."""
    cpus = "one" if one_cpu else "all"
    command = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), str(folder), cpus, *argv]
    with (folder / OUTPUT).open("wb") as said:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=ports,
            cwd=folder,
            start_new_session=True,
        )


def watch(process: subprocess.Popen[bytes]) -> int:
    """Return a descriptor that becomes readable when a guest's process ends: pidfd_open(2). MachineError without it."""
    try:
        return os.pidfd_open(process.pid)
    except OSError as error:
        remedy = "Guests need Linux 5.3 or later, and a container that allows this call."
        raise MachineError("calling pidfd_open", answered=errno_name(error.errno or 0), remedy=remedy) from error


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a guest's process and those of its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
