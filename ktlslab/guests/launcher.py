"""Starts a watcher, then becomes a guest's process. The watcher ends it when the caller is gone, even by SIGKILL.

Run it as a program: `python launcher.py CALLER_PID FOLDER CPUS PROGRAM ARGUMENT...`. FOLDER is the guest's; the watcher
removes it when the caller is gone. CPUS is `all` or `one`; with `one` the program stays on the CPU that it starts on.
The parent-death signal would be simpler but is wrong here, because it is sent when the *thread* that started it ends; a
process descriptor waits for the whole process. The guest's process replaces this program, so it is the caller's own
child.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys


def main(argv: list[str]) -> None:
    """Fork the watcher, become the program. It leads a process group (see `process.start`)."""
    caller = int(argv[0])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a user-mode kernel that panics would leave its whole memory
    # A user-mode kernel keeps a descriptor for each of this machine's files that it has in its cache.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if argv[2] == "one":
        keep_to_one_cpu()
    own = os.getpid()
    try:
        callers = os.pidfd_open(caller)
    except ProcessLookupError:
        sys.exit(1)
    if os.getppid() != caller:  # it died before the line above, and its pid has been reused
        sys.exit(1)
    if os.fork() == 0:
        watch(callers, own, argv[1])
        os._exit(0)
    os.execvp(argv[3], argv[3:])  # noqa: S606 - becoming it is the point


def keep_to_one_cpu() -> None:
    """Stay on the current CPU, of those allowed: the scheduler took a free one when this started (`proc(5)`)."""
    with open("/proc/self/stat") as stat:  # noqa: PTH123 - the guest need not wait for pathlib to be imported
        cpu = int(stat.read().rpartition(")")[2].split()[36])
    try:  # noqa: SIM105 - nor for contextlib
        os.sched_setaffinity(0, {cpu})
    except OSError:  # it may be forbidden, and only makes things faster
        pass


def watch(caller: int, leader: int, folder: str) -> None:
    """Wait for either to end. Close all inherited descriptors, or the guest's pipes would stay open after its end."""
    guest = os.pidfd_open(leader)
    os.setsid()  # not of the group that is to be ended
    low, high = sorted((caller, guest))
    os.closerange(0, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, 4096)
    ended = select.poll()
    ended.register(caller, select.POLLIN)
    ended.register(guest, select.POLLIN)
    if any(descriptor == caller for descriptor, _ in ended.poll()):
        end(leader, folder)


def end(leader: int, folder: str) -> None:
    """Do what the caller would have done."""
    import contextlib  # noqa: PLC0415 - the guest need not wait for these to be imported
    import shutil  # noqa: PLC0415

    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
