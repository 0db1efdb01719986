"""Where to measure or to look: this machine, or a guest of a kernel, under one of the two clocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ktlslab import _checks, guests
from ktlslab.errors import UsageError
from ktlslab.guests import kernels, qemu
from ktlslab.linux import capabilities
from ktlslab.runs import clocks

_TRIED = "choosing a machine"
_MACHINES = "auto, here, newest, oldest, uml, or a kernel's series or build such as 6.12: see `ktlslab guest list`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where to measure: `name` is "here", a kernel's series, or the release of a build that was asked for as such.

    `cpu`: the emulated CPU, one of `qemu.CPUS`; where it is not the usual one, the name ends in what was switched on.
    """

    name: str
    kernel: guests.Kernel | None
    clock: str
    cpu: str = qemu.CPU_NAME


def machine(name: str, clock: str | None = None, *, looking: bool = False, network: bool = False) -> Machine:
    """Resolve a machine's name, and fetch its kernel if it is not in the cache.

    `auto` is here if this kernel has kTLS, else the newest guest; with `looking`, where no figure is wanted, it is
    rather a user-mode kernel, with a `network` if that is wanted (see `guests.for_looking`).
    `clock`: wall or instructions; None takes wall where the CPU is real, else instructions. A user-mode kernel runs on
    the real CPU, but not at its cost, so its wall clock must be asked for. A guest's name may end in a
    feature of the CPU that is switched on where instructions are counted: `newest+erms`.
    Raises UsageError, KernelUnavailableError.
    """
    _checks.instance(_TRIED, "name", name, str, _MACHINES)
    if clock is not None and not (isinstance(clock, str) and clock in clocks.UNITS):
        raise UsageError("choosing a clock", answered=f"no clock {clock!r}", remedy="Choose wall or instructions.")
    name, feature = _featured(name, clock)
    if feature:
        clock = "instructions"
    if name == "auto":
        name = _auto(looking=looking, network=network)
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
    called = kernel.release if kernels.is_build(name) else kernel.series
    if feature:
        return Machine(name=f"{called}+{feature}", kernel=kernel, clock=clock, cpu=qemu.FEATURES[feature])
    return Machine(name=called, kernel=kernel, clock=clock)


def _auto(*, looking: bool, network: bool) -> str:
    """Return the name of the machine that is taken where none was named."""
    if capabilities.probe().ktls:
        return "here"
    return guests.for_looking(network=network).series if looking else "newest"


def _featured(name: str, clock: str | None) -> tuple[str, str]:
    """Return a machine's name without the feature of the CPU that it ends in, and the feature; "" for none."""
    kernel, plus, feature = name.rpartition("+")
    if feature not in qemu.FEATURES:
        if not plus or kernels.is_build(name) or "/" in name or Path(name).is_file():
            return name, ""
        remedy = f"There is {' and '.join(qemu.FEATURES)}."
        raise UsageError(f"{_TRIED}: {name}", answered=f"no feature {feature!r} can be switched on", remedy=remedy)
    if kernel in {"auto", "here"} or clock == "wall":
        answered = "a feature of the CPU can be switched on only in a guest that counts instructions"
        remedy = f"Leave out +{feature}, or name a guest, such as newest+{feature}, and no other clock."
        raise UsageError(f"{_TRIED}: {name}", answered=answered, remedy=remedy)
    return kernel, feature


def machines_of(names: str | Sequence[str], clock: str | None = None, *, looking: bool = False) -> list[Machine]:
    """Resolve machines, given as a list of names or as one. Each comes once, under the first of its names.

    Raises what `machine` does.
    """
    found: list[Machine] = []
    for name in _checks.words("choosing machines", "names", names, _MACHINES):
        where = machine(name, clock, looking=looking)
        if not any(
            where.name == other.name or (where.kernel and where == replace(other, name=where.name)) for other in found
        ):
            found.append(where)
    return found
