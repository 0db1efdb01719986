"""What a thread asked the kernel for: its system calls, and the operations that it gave to an io_uring.

A system call shows from outside: strace(1) attaches to this thread and writes down what it does. An operation of
io_uring does not, since submitting it is a write into memory that the kernel reads. But that memory is shared, so the
submissions lie there until the ring has gone round, and so do their completions. Source: ptrace(2), io_uring_setup(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ktlslab.errors import MachineError, UsageError
from ktlslab.linux import _native
from ktlslab.linux.ring import Ring
from ktlslab.packages import how_to_get

ENTER, SETUP = "io_uring_enter", "io_uring_setup"
_SHOWN_BYTES = 4  # of a buffer: a record's header nearly, "tls" whole, and no byte of a key
_PATIENCE_S = 10.0
_PR_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)
_LINE = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?|0x[0-9a-f]+)(?:<.*?>(?=\s|$))?(?: (\w+))?")
_IO_URING_SETUP = 425  # the same on all architectures
_SQES, _CQ_RING = 0x10000000, 0x8000000  # where a ring's memory is mapped: IORING_OFF_SQES, IORING_OFF_CQ_RING
_SQE, _CQE = struct.Struct("=BBHiQQIIQ24x"), struct.Struct("=QiI")
_LINKED = _native.lib.IOSQE_IO_LINK | _native.lib.IOSQE_IO_HARDLINK
_SIZED = frozenset(["SEND", "RECV", "READ", "WRITE", "SPLICE"])  # what has its length in bytes in the submission
_CQES_AT = 100  # struct io_uring_params: cq_off.cqes
_PARAMETERS_BYTES = 120
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A system call: its arguments and result in strace's words. `error` is an errno's name, "" where it succeeded."""

    name: str
    arguments: str
    result: str
    error: str = ""

    @property
    def submitted(self) -> int:
        """How many operations an io_uring_enter(2) submitted; 0 for other calls."""
        return int(self.result) if self.name == ENTER and self.result.isdigit() else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """An operation that was given to a ring; `result` None: it has not completed. `size`: bytes asked for, or 0."""

    name: str
    fd: int
    size: int
    linked: bool
    result: int | None


@dataclass(slots=True)
class Calls:
    """The calls of a thread, once its tracing has ended. `marks`: how many there had been at each `mark`."""

    made: list[Call] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)

    def mark(self) -> None:
        """Mark this moment, by a call that fails and is not among those that are kept."""
        with contextlib.suppress(OSError):
            os.close(-1)


@contextlib.contextmanager
def traced() -> Iterator[Calls]:
    """Trace the system calls of this thread. Traced code is slow: do not time it.

    MachineError where there is no strace, or it may not attach (ptrace(2)).
    """
    calls = Calls()
    program = shutil.which("strace")
    if program is None:
        remedy = f"Install it: {how_to_get('strace')}"
        raise MachineError("tracing system calls", answered="there is no strace", remedy=remedy)
    with tempfile.TemporaryDirectory(prefix="ktlslab-calls-") as folder:
        written = Path(folder, "calls")
        argv = [program, "-qq", "-yy", f"-s{_SHOWN_BYTES}", "-o", str(written), "-p", str(threading.get_native_id())]
        _libc.prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)  # where only a parent may attach otherwise: Yama
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as who:
            try:
                _wait_for(who)
                calls.mark()
                yield calls
                calls.mark()
            finally:
                who.terminate()
                who.wait(_PATIENCE_S)
                _libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(0), 0, 0, 0)
        calls.made, calls.marks = parsed(written.read_text(encoding="utf-8", errors="replace"))


def parsed(text: str) -> tuple[list[Call], list[int]]:
    """Return strace's lines between the first mark and the last, and where the marks between them were."""
    found: list[Call] = []
    marks: list[int] = []
    for line in text.splitlines():
        if match := _LINE.match(line):
            name, arguments, result, error = match.groups()
            if (name, arguments) == ("close", "-1"):
                marks.append(len(found))
            else:
                found.append(Call(name=name, arguments=arguments, result=result, error=error or ""))
    if not marks:
        return [], []
    first, last = marks[0], marks[-1]
    return found[first:last], [mark - first for mark in marks[1:-1]]


def submissions(ring: Ring, entries: int) -> list[Submission]:
    """Return what was submitted to a ring so far, in order, from the memory that it shares with the kernel.

    `entries`: the number with which the ring was made, a power of two; UsageError where more than that were submitted,
    since the first ones are then gone.
    """
    with (
        mmap.mmap(ring.fileno(), entries * _SQE.size, flags=mmap.MAP_SHARED, offset=_SQES) as asked,
        mmap.mmap(ring.fileno(), _cqes_at() + 2 * entries * _CQE.size, flags=mmap.MAP_SHARED, offset=_CQ_RING) as done,
    ):
        sqes = [_SQE.unpack_from(asked, at * _SQE.size) for at in range(entries)]
        cqes = [_CQE.unpack_from(done, _cqes_at() + at * _CQE.size) for at in range(2 * entries)]
    tokens = [sqe[-1] for sqe in sqes]
    count = next((at for at, token in enumerate(tokens) if not token), entries)
    if tokens[:1] != [1] or count == entries:
        answered, remedy = "it has gone round", "Make it with more entries than there will be operations."
        raise UsageError("reading a ring's submissions", answered=answered, remedy=remedy)
    results = {token: result for token, result, _ in cqes if token}
    return [_submission(sqe, results) for sqe in sqes[:count]]


def _submission(sqe: tuple[int, ...], results: dict[int, int]) -> Submission:
    opcode, flags, _, fd, _, _, size, _, token = sqe
    name = _names().get(opcode, str(opcode))
    size = size if name in _SIZED else 0
    return Submission(name=name, fd=fd, size=size, linked=bool(flags & _LINKED), result=results.get(token))


@functools.cache
def _names() -> dict[int, str]:
    prefix = "IORING_OP_"
    return {getattr(_native.lib, name): name.removeprefix(prefix) for name in dir(_native.lib) if prefix in name}


@functools.cache
def _cqes_at() -> int:
    """Return where the completions begin in a ring's memory, as the kernel says of a ring that is made for this."""
    parameters = ctypes.create_string_buffer(_PARAMETERS_BYTES)
    fd = _libc.syscall(_IO_URING_SETUP, 1, parameters)
    if fd < 0:
        number = ctypes.get_errno()
        raise MachineError("reading a ring's completions", answered=os.strerror(number))
    os.close(fd)
    return int(struct.unpack_from("=I", parameters, _CQES_AT)[0])


def _wait_for(strace: subprocess.Popen[bytes]) -> None:
    """Wait until this thread is traced."""
    status, deadline = Path(f"/proc/self/task/{threading.get_native_id()}/status"), time.monotonic() + _PATIENCE_S
    while f"TracerPid:\t{strace.pid}" not in status.read_text():
        if strace.poll() is not None or time.monotonic() > deadline:
            ended = strace.stderr if strace.poll() is not None else None
            said = ended.read().decode(errors="replace").strip() if ended else ""
            remedy = "In a container, allow ptrace(2); else see the recorded trace."
            raise MachineError("tracing system calls", answered=said or "strace did not attach", remedy=remedy)
        time.sleep(0.005)
