"""Least squares with coefficients of 0 or more, by the active-set method of Lawson and Hanson.

*Solving Least Squares Problems*, 1974, chapter 23. The problems here have a dozen columns. SciPy has it too, but would
be a dependency of 100 MB for these lines.
"""

from __future__ import annotations

from ktlslab.packages import extra

with extra("lab"):
    import numpy as np
    import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_TOLERANCE = 1e-10  # of a gradient, relative to the largest


def nnls(matrix: Floats, values: Floats) -> Floats:
    """Return x >= 0 with the least |matrix @ x - values|. A column of zeros gets 0."""
    norms = np.linalg.norm(matrix, axis=0)
    scale = np.where(norms > 0, norms, 1.0)
    scaled = matrix / scale
    gram, projected = scaled.T @ scaled, scaled.T @ values
    count = len(norms)
    found, free = np.zeros(count), np.zeros(count, bool)
    least = _TOLERANCE * max(float(np.abs(projected).max(initial=0.0)), 1e-300)
    for _ in range(3 * count + 10):  # the method ends after a finite number of steps; rounding could make it cycle
        gradient = np.where(free, -np.inf, projected - gram @ found)
        entering = int(gradient.argmax()) if count else 0
        if not count or gradient[entering] <= least:
            break
        free[entering] = True
        while True:
            trial = np.zeros(count)
            trial[free] = np.linalg.lstsq(gram[np.ix_(free, free)], projected[free], rcond=None)[0]
            if (trial[free] > 0).all():
                found = trial
                break
            # As far towards the trial as all coefficients stay at 0 or more; what arrives at 0 leaves.
            falling = free & (trial <= 0)
            steps = found[falling] / (found[falling] - trial[falling])
            found += float(steps.min()) * (trial - found)
            free &= ~(falling & (found <= _TOLERANCE * max(1.0, float(found.max()))))
            free[np.flatnonzero(falling)[int(steps.argmin())]] = False
            found[~free] = 0.0
    return found / scale
