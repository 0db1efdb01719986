"""When an arm is warm: its own steps decide, not a fixed number of them.

Caches, branch predictors, TCP's windows and the kernel's per-connection state settle during the first steps. So short
rounds run until one is as fast as the best before, or as fast as the arm's last sample in this setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_ROUNDS = 8
PATIENCE = 3  # rounds without a new best: as warm as it gets, though not steady


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """How many steps the warm-up took, whether the last round's median step was steady, and that median."""

    steps: int
    steady: bool
    step: float


def warm_up(
    median_of: Callable[[int], float], size: int, best: float, tolerance: float, lasting: Callable[[float], int]
) -> Warm:
    """Run rounds with `median_of(steps)` until one is within `tolerance` (a share) of the best one before.

    `size`: steps in the first round. `lasting(median)`: steps in a round, given the median units per step. `best`: the
    median of an earlier sample, inf for none. At most MAX_ROUNDS.
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
