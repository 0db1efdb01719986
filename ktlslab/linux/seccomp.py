"""Forbidding this process a system call, as a container does: the call then fails, and nothing else changes.

It cannot be undone, and holds for all children. Source: seccomp(2), prctl(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from ktlslab.errors import MachineError, errno_name

IO_URING_SETUP = "io_uring_setup"
SETSOCKOPT = "setsockopt"
_NUMBERS = {
    IO_URING_SETUP: {"x86_64": 425, "aarch64": 425},
    SETSOCKOPT: {"x86_64": 54, "aarch64": 208},
}
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
_NUMBER_AT, _SECOND_AT = 0, 24  # in struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_INSTRUCTION = struct.Struct("=HBBI")
_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def forbid(call: str, second: int | None = None, number: int = errno.EPERM) -> None:
    """Let `call` fail with this errno from now on: always, or only where its second argument is `second`.

    MachineError where this kernel or architecture has no such filter.
    """
    tests = [(_NUMBER_AT, _NUMBERS[call].get(os.uname().machine, -1))]
    tests += [] if second is None else [(_SECOND_AT, second)]
    lines: list[bytes] = []
    for left, (place, value) in zip(range(len(tests) - 1, -1, -1), tests, strict=True):
        lines += [_INSTRUCTION.pack(_LOAD, 0, 0, place), _INSTRUCTION.pack(_EQUAL, 0, 2 * left + 1, value & 0xFFFFFFFF)]
    lines += [_INSTRUCTION.pack(_RETURN, 0, 0, _ERRNO | number), _INSTRUCTION.pack(_RETURN, 0, 0, _ALLOW)]
    program = _Program(len(lines), b"".join(lines))
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc.prctl(
        _PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0
    ):
        raise MachineError(f"forbidding {call}", answered=errno_name(ctypes.get_errno()))
