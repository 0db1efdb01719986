"""From a trace to counts: instructions and calls of each function, for each end, in a timed part.

What an interrupt executes (the timer's tick, above all) falls upon whatever it interrupts. It is cut out of that and
counted under a class of its own, so that two runs agree in the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ktlslab.packages import extra
from ktlslab.profiling.symbols import KernelSymbols, Place, UserCode
from ktlslab.profiling.traces import KERNEL, Blocks, Numbers, Trace

with extra("lab"):
    import numpy as np
    from numpy.typing import NDArray

Flags: TypeAlias = NDArray[np.bool_]

CLIENT, PEER, MACHINE = ENDS = ("client", "peer", "machine")
NOTHING, INTERRUPT, EXCEPTION, CALL, RETURN, USER = range(6)
_ENTRIES = {
    INTERRUPT: re.compile(r"asm_sysvec_\w+|asm_common_interrupt|asm_spurious_interrupt"),
    EXCEPTION: re.compile(r"asm_exc_\w+"),
    CALL: re.compile("entry_SYSCALL_64"),
}
_STUBS = frozenset(["irq_entries_start", "spurious_entries_start"])  # a few instructions before asm_common_interrupt
_RETURNS = (b"\x48\xcf", b"\x48\x0f\x07")  # iretq, sysretq


class Program:
    """What the addresses of one cell's trace mean: the kernel's symbols, and the user code of both ends."""

    def __init__(self, blocks: Blocks, kernel: KernelSymbols, maps: Mapping[str, Sequence[Any]]) -> None:
        self.blocks = blocks
        self._kernel = kernel
        self._user = {end: UserCode(maps.get(end, ())) for end in (CLIENT, PEER)}
        self._user[MACHINE] = self._user[PEER]
        self.in_kernel = blocks.start >= KERNEL
        self._places: dict[tuple[str, int], Place] = {}

    def place(self, end: str, block: int) -> Place:
        """Return where a block is that this end executed."""
        key = ("" if self.in_kernel[block] else end, block)
        if key not in self._places:
            address = int(self.blocks.start[block])
            found = self._kernel if self.in_kernel[block] else self._user[end]
            self._places[key] = found.find(address)
        return self._places[key]


def ends_of(trace: Trace, in_kernel: Flags) -> Numbers:
    """Return the number of the end (in ENDS) that executed each block of the trace.

    The client's task began the trace. A task that executes user code is the peer's. Others are the machine's: the
    kernel's own threads, and its idle loop.
    """
    of = np.full(int(trace.task.max()) + 1, ENDS.index(MACHINE))
    of[np.unique(trace.task[~in_kernel[trace.block]])] = ENDS.index(PEER)
    of[0] = ENDS.index(CLIENT)
    return of[trace.task]


def ways(program: Program) -> Numbers:
    """Return for each block whether it is user code, or a way into or out of the kernel (INTERRUPT ... RETURN)."""
    kinds = np.where(program.in_kernel, NOTHING, USER)
    for block in np.flatnonzero(program.in_kernel).tolist():
        place = program.place(CLIENT, block)
        if program.blocks.last[block] in _RETURNS:
            kinds[block] = RETURN
        elif place.start == program.blocks.start[block]:
            kinds[block] = next((kind for kind, names in _ENTRIES.items() if names.fullmatch(place.function)), NOTHING)
    return kinds


def interrupted(trace: Trace, program: Program) -> Flags:
    """Return for each block of the trace whether an interrupt's handler executed it.

    A stack per task says how the task came into the kernel, innermost last: by an interrupt, an exception or a call.
    """
    kind = ways(program)[trace.block]
    again = np.zeros(len(kind), bool)
    again[1:] = (kind[1:] == USER) & (kind[:-1] == USER)
    events = np.union1d(np.flatnonzero((kind != NOTHING) & ~again), trace.switches)
    stacks: dict[int, list[int]] = {}
    found = np.zeros(len(kind), bool)
    since = -1  # where the handler that runs now began; -1: none runs
    for at in events.tolist():
        what = int(kind[at])
        stack = stacks.setdefault(int(trace.task[at]), [])
        if what == USER:
            stack.clear()
        elif what == RETURN:
            del stack[-1:]
        elif what != NOTHING:
            stack.append(what)
        if since >= 0 and INTERRUPT not in stack:
            found[since : at + (what == RETURN)] = True  # the block that returns is still the handler's
            since = -1
        elif since < 0 and INTERRUPT in stack:
            since = at
    if since >= 0:
        found[since:] = True
    stubs = [bool(here) and program.place(CLIENT, at).function in _STUBS for at, here in enumerate(program.in_kernel)]
    found |= np.array(stubs, bool)[trace.block]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What a function did for an end, in a timed part: instructions, and how often it was entered."""

    end: str
    in_kernel: bool
    interrupt: bool
    place: Place
    instructions: int
    calls: int


def count(trace: Trace, program: Program, steps: Iterable[tuple[int, int]]) -> list[Count]:
    """Count the steps of a trace. A function is entered where a block begins at its first instruction."""
    inside = np.zeros(len(trace.block), bool)
    for first, last in steps:
        inside[first:last] = True
    blocks = len(program.blocks.start)
    key = (ends_of(trace, program.in_kernel) * 2 + interrupted(trace, program)) * blocks + trace.block
    times = np.bincount(key[inside], minlength=len(ENDS) * 2 * blocks)
    found: dict[tuple[Any, ...], list[int]] = {}
    for index in np.flatnonzero(times).tolist():
        part, block = divmod(index, blocks)
        end, interrupt = ENDS[part // 2], bool(part % 2)
        place = program.place(end, block)
        in_kernel = bool(program.in_kernel[block])
        sums = found.setdefault((end, in_kernel, interrupt, place.object, place.function), [0, 0])
        sums[0] += int(times[index]) * int(program.blocks.instructions[block])
        if place.function and place.start == int(program.blocks.start[block]):
            sums[1] += int(times[index])
    return [
        Count(
            end=end,
            in_kernel=in_kernel,
            interrupt=interrupt,
            place=Place(name, function, 0),
            instructions=instructions,
            calls=calls,
        )
        for (end, in_kernel, interrupt, name, function), (instructions, calls) in found.items()
    ]
