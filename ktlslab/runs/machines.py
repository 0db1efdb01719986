"""Where to measure or to look: this machine, or a guest of a kernel, under one of the two clocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ktlslab import _checks, guests
from ktlslab.errors import UsageError
from ktlslab.guests import kernels
from ktlslab.linux import capabilities
from ktlslab.runs import clocks

_MACHINES = "auto, here, newest, oldest, uml, or a kernel's series or build such as 6.12: see `ktlslab guest list`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where to measure: `name` is "here", a kernel's series, or the release of a build that was asked for as such."""

    name: str
    kernel: guests.Kernel | None
    clock: str


def machine(name: str, clock: str | None = None, *, looking: bool = False) -> Machine:
    """Resolve a machine's name, and fetch its kernel if it is not in the cache.

    `auto` is here if this kernel has kTLS, else the newest guest; with `looking`, where no figure is wanted, it is
    rather a user-mode kernel (see `guests.for_looking`).
    `clock`: wall or instructions; None takes wall where the CPU is real, else instructions. A user-mode kernel runs on
    the real CPU, but not at its cost, so its wall clock must be asked for.
    Raises UsageError, KernelUnavailableError.
    """
    _checks.instance("choosing a machine", "name", name, str, _MACHINES)
    if clock not in (None, *clocks.UNITS):
        raise UsageError("choosing a clock", answered=f"no clock {clock!r}", remedy="Choose wall or instructions.")
    if name == "auto":
        name = "here" if capabilities.probe().ktls else guests.for_looking().series if looking else "newest"
    if name == "here":
        if clock == "instructions":
            remedy = "Leave out the clock, or measure in a guest: `--on newest`."
            raise UsageError("measuring here", answered="this machine cannot count instructions", remedy=remedy)
        return Machine(name="here", kernel=None, clock=clocks.current())
    kernel = guests.find(name)
    if kernel.user_mode and clock != "wall":
        answered = "a user-mode kernel cannot count instructions, and its times are no kernel's on a CPU of its own"
        remedy = "Take an emulated one: `--on newest`."
        if clock is None:
            remedy = "Take an emulated one, such as `--on newest`, or ask for these times: `--clock wall`."
        raise UsageError(f"measuring on {kernel.series}", answered=answered, remedy=remedy)
    if clock is None:
        clock = "wall" if guests.accelerator(kernel) == "kvm" else "instructions"
    return Machine(name=kernel.release if kernels.is_build(name) else kernel.series, kernel=kernel, clock=clock)


def machines_of(names: str | Sequence[str], clock: str | None = None, *, looking: bool = False) -> list[Machine]:
    """Resolve machines, given as a list of names or as one. Each comes once, under the first of its names.

    Raises what `machine` does.
    """
    found: list[Machine] = []
    for name in _checks.words("choosing machines", "names", names, _MACHINES):
        where = machine(name, clock, looking=looking)
        if not any(where.name == other.name or (where.kernel and where.kernel == other.kernel) for other in found):
            found.append(where)
    return found
