"""How a process ends and when it lets others run: prctl(2), PR_SET_PDEATHSIG, and sched_setattr(2)."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct

PR_SET_PDEATHSIG = 1
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the number of the system call
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period
_SLICE_NS = 100_000_000  # the longest that the kernel takes


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent `parent` ends; exit at once if it has already ended."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def run_in_long_slices() -> None:
    """Let this process and its children run until they wait, as far as the kernel allows: SCHED_BATCH, slices of 0.1 s.

    By default another process may run after 0.7 ms. Kernels before 6.12 have no slices of one's own, and ignore it.
    """
    attributes = _ATTRIBUTES.pack(
        _ATTRIBUTES.size, os.SCHED_BATCH, 0, os.getpriority(os.PRIO_PROCESS, 0), 0, _SLICE_NS, 0, 0
    )
    number = _SCHED_SETATTR.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(ctypes.c_long(number), 0, attributes, 0)
