"""When an arm is warm: judged by its own steps, not assumed after some of them.

Caches, branch predictors, TCP's windows and the kernel's per-connection state settle during the first steps. So rounds
of a part of the work are done until one is as fast as they get, or as fast as the arm was when it last did this work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_ROUNDS = 8
PATIENCE = 3  # rounds without a new best: it is as warm as it gets, though not steady


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """How many steps it took, whether the last round's median was steady, and what it was."""

    steps: int
    steady: bool
    step: float


def warm_up(
    median_of: Callable[[int], float], size: int, best: float, tolerance: float, lasting: Callable[[float], int]
) -> Warm:
    """Do rounds by `median_of(steps)` until one is within `tolerance` (a share) of the best one before.

    `size` is how many steps the first round has, `lasting` how many a round should have at so many units per step.
    `best` is what is known from earlier, inf for nothing. At most MAX_ROUNDS.
    """
    taken = waited = 0
    for _ in range(MAX_ROUNDS):
        step = median_of(size)
        taken += size
        if 1 - tolerance <= step / best <= 1 + tolerance:
            return Warm(steps=taken, steady=True, step=step)
        waited = waited + 1 if step > best else 0
        if waited == PATIENCE:
            break
        best = min(best, step)
        size = max(size, lasting(step))
    return Warm(steps=taken, steady=False, step=step)
