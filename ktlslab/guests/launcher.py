"""Starts a watcher, then becomes QEMU. The watcher ends QEMU when the calling program is gone, even by SIGKILL.

Run it as a program: `python launcher.py CALLER_PID FOLDER QEMU ARGUMENT...`. FOLDER is the guest's; the watcher removes
it when the caller is gone. The parent-death signal would be simpler but is wrong here, because it is sent when the
*thread* that started QEMU ends; a process descriptor waits for the whole process. QEMU replaces this program, so it is
the caller's own child.
"""

from __future__ import annotations

import os
import select
import signal
import sys


def main(argv: list[str]) -> None:
    """Fork the watcher, become the program."""
    caller = int(argv[0])
    own = os.getpid()
    try:
        callers = os.pidfd_open(caller)
    except ProcessLookupError:
        sys.exit(1)
    if os.getppid() != caller:  # it died before the line above, and its pid has been reused
        sys.exit(1)
    if os.fork() == 0:
        watch(callers, os.pidfd_open(own), argv[1])
        os._exit(0)
    os.execvp(argv[2], argv[2:])  # noqa: S606 - becoming QEMU is the point


def watch(caller: int, qemu: int, folder: str) -> None:
    """Wait for either to end. Close all inherited descriptors, or QEMU's pipes would stay open after its end."""
    os.setsid()  # Ctrl-C in the caller's terminal is for the caller
    low, high = sorted((caller, qemu))
    os.closerange(0, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, 4096)
    ended = select.poll()
    ended.register(caller, select.POLLIN)
    ended.register(qemu, select.POLLIN)
    if any(descriptor == caller for descriptor, _ in ended.poll()):
        end(qemu, folder)


def end(qemu: int, folder: str) -> None:
    """Do what the caller would have done."""
    import contextlib  # noqa: PLC0415 - QEMU need not wait for these to be imported
    import shutil  # noqa: PLC0415

    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(qemu, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
