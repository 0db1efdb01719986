"""The call tree of one operation: every function in the order in which it was first called, with its instructions.

Calls and returns are found in the trace: a block that ends in a call enters the next block's function; a block that
begins where a caller continues has returned there; any other change of function is a jump, and takes the place of the
function that made it. All calls of a function by the same caller are one node.

The tree is that of one timed step, the one that stands for all (`ktlslab.profiling.typical`), without what an interrupt
executed in it. Where a step holds several operations (`Cell.operations_per_step`), its figures are divided by their
number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ktlslab.profiling.counting import (
    CALL,
    ENDS,
    EXCEPTION,
    INTERRUPT,
    RETURN,
    USER,
    Program,
    ends_of,
    interrupted,
    ways,
)
from ktlslab.profiling.symbols import Place
from ktlslab.profiling.traces import Trace

_INTO_KERNEL = -1  # in place of the address at which a caller continues: the frame that came into the kernel
_NOWHERE = -2
_RETURN_THUNKS = ("__x86_return_thunk", "srso_", "retbleed_", "its_return_thunk")  # jumps that are returns


@dataclass(slots=True)
class Node:
    """A function, called by its parent: its own instructions, and its calls, in the step."""

    place: Place
    in_kernel: bool
    children: dict[tuple[str, str], Node] = field(default_factory=dict)
    instructions: int = 0
    calls: int = 0
    first: int = -1  # where in the trace it, or what it called, was first executed in the step

    def child(self, place: Place, *, in_kernel: bool) -> Node:
        key = (place.object, place.function)
        if key not in self.children:
            self.children[key] = Node(place, in_kernel)
        return self.children[key]

    def total(self) -> int:
        return self.instructions + sum(node.total() for node in self.children.values())

    def walk(self, level: int = 0) -> Iterator[tuple[int, Node]]:
        """Yield the nodes below this one that the step executed, each before those that it called."""
        for node in sorted(self.children.values(), key=lambda node: node.first):
            if node.first >= 0:
                yield level, node
                yield from node.walk(level + 1)


def tree(trace: Trace, program: Program, step: tuple[int, int], before: int = 0) -> dict[str, Node]:
    """Return the root of each end's tree in one step, [first, last) of the trace.

    `before`: where to begin to follow the calls, so that it is known who had called what when the step began.
    """
    builder = _Builder(program)
    first, last = step
    part = slice(before, last)
    followed = (trace.block[part], trace.task[part], ends_of(trace, program.in_kernel)[part])
    skipped = interrupted(trace, program)[part].tolist()
    for at, (block, task, end) in enumerate(zip(*(one.tolist() for one in followed), strict=True), before):
        if not skipped[at - before]:
            builder.take(block, task, ENDS[end], at if at >= first else -1)
    return builder.roots


class _Builder:
    """Follows the blocks of a trace, with a stack per task of (node, where its caller continues)."""

    def __init__(self, program: Program) -> None:
        self.roots = {end: Node(Place("", "", 0), in_kernel=False) for end in ENDS}
        self._program = program
        self._ways = ways(program).tolist()
        self._starts = program.blocks.start.tolist()
        self._sizes = program.blocks.instructions.tolist()
        self._calls = [is_call(last) for last in program.blocks.last]
        self._after = [start + len(code) for start, code in zip(self._starts, program.blocks.code, strict=True)]
        self._stacks: dict[int, list[tuple[Node, int]]] = {}
        self._pending: dict[int, int] = {}  # by task: where the call that its last block ended in continues

    def take(self, block: int, task: int, end: str, at: int) -> None:
        """Execute a block; `at` is its place in the trace, -1 before the step."""
        stack = self._stacks.setdefault(task, [(self.roots[end], _NOWHERE)])
        self._move(stack, block, end, self._pending.pop(task, _NOWHERE), counted=at >= 0)
        node = stack[-1][0]
        if at >= 0:
            node.instructions += self._sizes[block]
            for above, _ in reversed(stack):
                if above.first >= 0:
                    break
                above.first = at
        if self._ways[block] == RETURN:
            while len(stack) > 1 and stack.pop()[1] != _INTO_KERNEL:
                pass
        elif self._calls[block]:
            self._pending[task] = self._after[block]

    def _move(self, stack: list[tuple[Node, int]], block: int, end: str, back: int, *, counted: bool) -> None:
        """Bring the stack to the function that the block belongs to."""
        way, start = self._ways[block], self._starts[block]
        place = self._program.place(end, block)
        in_kernel = way != USER
        if not in_kernel:
            while stack[-1][0].in_kernel:
                stack.pop()
        enters = way in {INTERRUPT, EXCEPTION, CALL} or (in_kernel and len(stack) > 1 and not stack[-1][0].in_kernel)
        if enters:
            self._push(stack, place, _INTO_KERNEL, in_kernel=True, counted=counted)
        elif back != _NOWHERE and start == place.start:
            self._push(stack, place, back, in_kernel=in_kernel, counted=counted)
        else:
            for index in range(len(stack) - 1, 0, -1):
                if stack[index][1] == start:
                    del stack[index:]
                    break
            top = stack[-1][0]
            same = (top.place.object, top.place.function) == (place.object, place.function)
            if not same and not place.function.startswith(_RETURN_THUNKS):
                back = stack.pop()[1] if len(stack) > 1 else _NOWHERE
                self._push(stack, place, back, in_kernel=in_kernel, counted=counted)

    def _push(self, stack: list[tuple[Node, int]], place: Place, back: int, *, in_kernel: bool, counted: bool) -> None:
        node = stack[-1][0].child(place, in_kernel=in_kernel)
        node.calls += counted
        stack.append((node, back))


def is_call(instruction: bytes) -> bool:
    """Whether it is a call: CALL rel32, or CALL r/m64 with or without a prefix for the upper registers."""
    if instruction[:1] == b"\xe8":
        return len(instruction) == 5
    at = 1 if instruction[:1] in {b"\x41", b"\x3e", b"\x2e"} else 0
    return instruction[at : at + 1] == b"\xff" and len(instruction) > at + 1 and instruction[at + 1] >> 3 & 7 == 2
