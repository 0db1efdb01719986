"""What the plugin wrote: blocks of instructions, and the order in which they were executed (trace.c has the format).

A block is a run of instructions that is entered at its first and left behind its last one.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ktlslab.errors import GuestError
from ktlslab.packages import extra

with extra("lab"):
    import numpy as np
    from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.int64]

KERNEL = 1 << 63  # addresses from here on are the kernel's
_HEAD = struct.Struct("=QHHHH")  # start, instructions, bytes, where the last one begins, nothing
_SWITCH = 0xFFFFFFFF
_READS_CLOCK = (b"\x0f\x31", b"\x0f\x01\xf9")  # rdtsc, rdtscp
_REMEDY = "Profile again; if it happens again, report this."


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The blocks of a run, by number: first address, number of instructions, bytes, last instruction."""

    start: NDArray[np.uint64]
    instructions: Numbers
    code: list[bytes]
    last: list[bytes]

    @classmethod
    def read(cls, path: Path) -> Blocks:
        """Read those that are complete: a plugin that is still at work may have written half of the next."""
        raw, at = path.read_bytes(), 0
        start, instructions, code, last = [], [], [], []
        while at + _HEAD.size <= len(raw):
            address, count, size, final, _ = _HEAD.unpack_from(raw, at)
            at += _HEAD.size
            if at + size > len(raw):
                break
            start.append(address)
            instructions.append(count)
            code.append(raw[at : at + size])
            last.append(raw[at + final : at + size])
            at += size
        return cls(
            start=np.array(start, np.uint64), instructions=np.array(instructions, np.int64), code=code, last=last
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Blocks in the order of their execution: the number of each, and the number of the task that executed it.

    Task 0 is the one that began the trace: the client. `switches`: the positions at which the kernel had switched.
    """

    block: Numbers
    task: Numbers
    switches: Numbers

    @classmethod
    def read(cls, path: Path, blocks: Blocks) -> Trace:
        """Read it. GuestError where there is none, or it is incomplete."""
        try:
            raw = np.fromfile(path, dtype=np.uint32)
        except OSError as error:
            answered = f"the plugin wrote no {path.name}"
            raise GuestError("reading a trace", answered=answered, remedy=_REMEDY) from error
        marks = np.flatnonzero(raw == _SWITCH)
        # The two words behind a mark are an address; one that looks like a mark itself is none.
        marks = marks[[index for index in range(len(marks)) if index == 0 or marks[index] - marks[index - 1] > 2]]
        if not len(marks) or marks[0] != 0 or marks[-1] + 2 >= len(raw):
            raise GuestError("reading a trace", answered=f"{path.name} is incomplete", remedy=_REMEDY)
        address = raw[marks + 1].astype(np.uint64) | raw[marks + 2].astype(np.uint64) << np.uint64(32)
        numbers: dict[int, int] = {}
        tasks = np.array([numbers.setdefault(int(one), len(numbers)) for one in address])
        keep = np.ones(len(raw), bool)
        for offset in range(3):
            keep[marks + offset] = False
        block = raw[keep].astype(np.int64)
        switches = marks - 3 * np.arange(len(marks))
        if block.max(initial=-1) >= len(blocks.start):
            raise GuestError("reading a trace", answered=f"{path.name} has unknown blocks", remedy=_REMEDY)
        lengths = np.diff(np.append(switches, len(block)))
        return cls(block=block, task=np.repeat(tasks, lengths), switches=switches[1:])


def steps_of(trace: Trace, blocks: Blocks, took: list[int]) -> list[tuple[int, int]]:
    """Return where each timed step begins and ends: behind the block that reads the clock, [first, last + 1).

    A step begins and ends when the client's own code reads the time-stamp counter, so what is counted is what the clock
    counted. In `serve` the end of a step is the beginning of the next. `took` is what the clock counted in each step.
    GuestError where the readings cannot be told apart.
    """
    reads = np.array([last in _READS_CLOCK for last in blocks.last]) & (blocks.start < KERNEL)
    at = np.flatnonzero(reads[trace.block] & (trace.task == 0)) + 1
    if len(at) == len(took) + 1:
        return [(int(first), int(last)) for first, last in itertools.pairwise(at)]
    if len(at) != 2 * len(took):
        answered = f"{len(took)} steps read the clock {len(at)} times, not twice each"
        remedy = "The guest's clock must be the TSC (clocksource=tsc), and the step must not read it itself."
        raise GuestError("finding the steps in a trace", answered=answered, remedy=remedy)
    return [(int(first), int(last)) for first, last in at.reshape(-1, 2)]
