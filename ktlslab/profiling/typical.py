"""The operation that stands for all of a cell: the one in which the kernel does what it does in most of them.

The work of operations is alike, but not to the instruction: averages of the load are brought up to date when a
millisecond has gone by, a timer is moved within its wheel or not, TCP measures the round trip anew. Each of these falls
into some operations only, and a mean over all has a part of each. So for every function of the kernel the commonest
number of instructions is found, and the operation that has it in the most functions is taken. What an interrupt
executes is left out of the comparison, and so is user code: it differs by what the interpreter happens to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ktlslab.packages import extra
from ktlslab.profiling.counting import CLIENT, ENDS, PEER, Program, ends_of, interrupted
from ktlslab.profiling.traces import Numbers, Trace

with extra("lab"):
    import numpy as np


class Typical(NamedTuple):
    """A step's number, and in how many of the steps (itself included) the kernel's functions execute just as much."""

    step: int
    alike: int


def typical_steps(trace: Trace, program: Program, steps: Sequence[tuple[int, int]]) -> dict[str, Typical]:
    """Return for client and peer the step that stands for all: never the first, before which nothing is known."""
    disturbed = interrupted(trace, program)
    kernel = program.in_kernel[trace.block] & ~disturbed
    ends, cost = ends_of(trace, program.in_kernel), program.blocks.instructions[trace.block]
    quiet = np.array([not disturbed[first:last].any() for first, last in steps])
    function = _functions(program)[trace.block]
    found = {}
    for end in (CLIENT, PEER):
        own = ends == ENDS.index(end)
        counts = np.array([_sums(function, cost, kernel & own, step) for step in steps])
        whole = np.array([cost[first:last][own[first:last]].sum() for first, last in steps])
        usual = (counts == [_commonest(column) for column in counts.T]).sum(axis=1)
        usual[0] = -1 if len(steps) > 1 else 0
        alike = (counts == counts[usual.argmax()]).all(axis=1)
        among = np.flatnonzero(alike & (usual >= 0))
        among = among[quiet[among]] if quiet[among].any() else among
        middle = among[np.argsort(whole[among], kind="stable")][(len(among) - 1) // 2]
        found[end] = Typical(int(middle), int(alike.sum()))
    return found


def _functions(program: Program) -> Numbers:
    """Return the number of each block's function; 0 for user code."""
    numbers: dict[tuple[str, str], int] = {}
    of = np.zeros(len(program.in_kernel), np.int64)
    for block in np.flatnonzero(program.in_kernel).tolist():
        place = program.place(CLIENT, block)
        of[block] = numbers.setdefault((place.object, place.function), len(numbers) + 1)
    return of


def _sums(function: Numbers, cost: Numbers, counted: Numbers, step: tuple[int, int]) -> Numbers:
    """Return the instructions of every function in a step."""
    part = slice(*step)
    keep = counted[part]
    sums = np.bincount(function[part][keep], weights=cost[part][keep], minlength=int(function.max()) + 1)
    return sums.astype(np.int64)  # weights are summed as floats, exactly up to 2**53


def _commonest(values: Numbers) -> int:
    """Return the value that occurs most often; of several the smallest."""
    found, times = np.unique(values, return_counts=True)
    return int(found[times.argmax()])
