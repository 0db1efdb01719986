"""Becomes QEMU, leaving behind a watcher that ends it when the program that asked for it is gone, even by SIGKILL.

Run as a program of its own: `python launcher.py CALLER_PID FOLDER QEMU ARGUMENT...`. FOLDER is the guest's own; the
watcher removes it where the caller is gone. The parent-death signal would be simpler and is wrong here: it fires when
the *thread* that started QEMU ends. A process descriptor waits for the process. QEMU takes this program's place, so the
caller's child is QEMU itself, with nothing in between.
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
    if os.getppid() != caller:  # it died before the line above and its number is someone else's
        sys.exit(1)
    if os.fork() == 0:
        watch(callers, os.pidfd_open(own), argv[1])
        os._exit(0)
    os.execvp(argv[2], argv[2:])  # noqa: S606 - becoming QEMU is the point


def watch(caller: int, qemu: int, folder: str) -> None:
    """Wait for either to end. Keep nothing of what was inherited, or QEMU's end would not be seen on its pipes."""
    os.setsid()  # an interrupt typed at the caller's terminal is for the caller to handle
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
