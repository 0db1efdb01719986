"""Whether a plan fits: the memory and the open files that its connections need, known before anything starts.

A guest gets the memory that the whole plan needs, the same for all its parts, since the size of the kernel's tables
depends on it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ktlslab.errors import UsageError
from ktlslab.linux import descriptors, memory
from ktlslab.measure.plan import MIN_STEPS, Cell, Plan
from ktlslab.runs.machines import Machine

MIB = 1 << 20
GUEST_BYTES = 1 << 30  # with it every plan of few connections has always been measured
_SYSTEM_BYTES = 512 * MIB  # a guest's kernel and its files in memory
_BASE_BYTES = 128 * MIB  # the processes without connections
_STEP_BYTES = 256 * MIB
# Per connection, both ends and their kernel's part, measured on 7.3 and rounded up. In `serve` a TLS session takes
# 55 KiB in the server, 80 KiB in the clients' process, and the sockets 20 KiB; elsewhere the peer forks for each one.
_SERVED_BYTES = {"plain": 64 << 10, "userspace": 192 << 10, "kernel": 192 << 10}
_FORKED_BYTES = {"plain": 2 * MIB, "other": 3 * MIB}


def needed_bytes(plan: Plan) -> int:
    """Return how much memory the plan needs at the same time, at both ends together, beside the system's."""
    rooms = max(_room_bytes(plan, cell) for cell in plan.cells())
    sets = {(cell.room, cell.record_layer, cell.suite): cell for cell in plan.cells() if cell.workload == "serve"}
    served: Counter[Any] = Counter()  # by what is open at the same time
    for cell in sets.values():
        served[cell.room] += cell.connections * _SERVED_BYTES[cell.record_layer]
    forked = {(*cell.session, cell.connections): cell for cell in plan.cells() if cell.workload != "serve"}
    return _BASE_BYTES + rooms + max(served.values(), default=0) + sum(map(_forked_bytes, forked.values()))


def guest_bytes(plan: Plan) -> int:
    """Return the memory of a guest that measures this plan."""
    return max(GUEST_BYTES, math.ceil((_SYSTEM_BYTES + needed_bytes(plan)) / _STEP_BYTES) * _STEP_BYTES)


def guest_memory(plan: Plan) -> str:
    """Return `guest_bytes` as `guests.boot` takes it."""
    return f"{guest_bytes(plan) // MIB}M"


def refuse_what_does_not_fit(plan: Plan, machines: Iterable[Machine]) -> None:
    """Raise UsageError where a machine has not the memory, or a process may not open the files, that the plan needs."""
    available = memory.available_bytes()
    connections = max(cell.connections for cell in plan.cells())
    for where in machines:
        tried = f"measuring plan {plan.name!r} on {where.name}"
        wanted = guest_bytes(plan) if where.kernel else needed_bytes(plan)
        if wanted > available:
            answered = f"{connections} connections need {_size(wanted)} of memory, and {_size(available)} are available"
            raise UsageError(tried, answered=answered, remedy="Give the plan fewer `connections` or smaller payloads.")
        if not where.kernel and connections > descriptors.possible():
            answered = f"{connections} connections, and a process may have {descriptors.possible()} open"
            raise UsageError(tried, answered=answered, remedy=descriptors.REMEDY)


def _forked_bytes(cell: Cell) -> int:
    return cell.connections * _FORKED_BYTES["plain" if cell.record_layer == "plain" else "other"]


def _room_bytes(plan: Plan, cell: Cell) -> int:
    """Return what both ends keep of a sample until its checksums are taken."""
    steps = max(plan.steps_of(cell), MIN_STEPS)
    return 2 * steps * cell.operations_per_step * cell.bytes_per_operation


def _size(count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB"
