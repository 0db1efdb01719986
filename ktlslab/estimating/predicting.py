"""Nanoseconds of every profiled cell, with intervals, or the reason why there are none.

An interval (95 %) holds three doubts, drawn together many times:

- the weights: they are fitted again to the measured figures, which are scattered by the fit's own residuals;
- the model: each prediction is scattered by the errors of arms that were left out;
- stand-ins: what was never measured here borrows a weight, and its doubt is drawn, too.

The kernel's ciphers are such a case. No arm that runs here executes them, but they are the same algorithms in assembly
of the same origin, with about as many instructions per byte as OpenSSL's: the weight of OpenSSL's stands in. Two builds
of OpenSSL can differ here, if only one of them uses the CPU's vector AES, and so can kernels (x86 kernels have it since
6.11): the kernel's cipher is taken to be somewhere between the fastest and the slowest build, or up to `STAND_IN` times
faster or slower than these. A cipher that no library here was measured with has no stand-in. The kernel's code for
records (tls) is compiled C like the rest of the kernel, whose weight it takes; pages that it clears have that of memory
that is copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ktlslab.estimating.checking import ARM, MAX_ERROR, PAYLOAD, SUITE, summary
from ktlslab.estimating.costs import IDENTITY, KERNEL, in_kernel, is_cipher
from ktlslab.estimating.fitting import Evidence, apply
from ktlslab.packages import extra

with extra("lab"):
    import numpy as np
    import pandas as pd

STAND_IN = 1.25  # by which a kernel's cipher may be faster or slower than any build of OpenSSL that was measured
DRAWS = 1000
_TAIL = 0.025
_SEED = 11
_USERSPACE = "userspace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Weights: the best, and as drawn (a row per draw), the kernel's ciphers included."""

    best: pd.Series
    draws: pd.DataFrame

    @classmethod
    def of(cls, evidence: Evidence, wanted: pd.Index) -> Drawn:
        """Fit them. `wanted`: the cost classes that need a weight; a cipher of the kernel gets its stand-in."""
        random = np.random.default_rng(_SEED)
        best = evidence.fit()
        fitted = apply(evidence.features, best)
        residuals = np.log((evidence.ns / fitted).to_numpy())
        rows, columns = evidence.features.shape
        residuals = (residuals - residuals.mean()) * np.sqrt(rows / (rows - columns))
        again = Evidence(features=evidence.features, ns=fitted)
        draws = pd.DataFrame([again.fit(np.exp(random.choice(residuals, rows))) for _ in range(DRAWS)])
        for name in wanted:
            if in_kernel(name) and (others := stand_ins(name, best)):
                best[name] = float(np.exp(np.log(best[others]).mean()))
                low, high = np.log(best[others].min() / STAND_IN), np.log(best[others].max() * STAND_IN)
                scatter = np.exp(random.uniform(low, high, DRAWS)) / best[name]
                with np.errstate(divide="ignore"):
                    drawn = np.exp(np.log(draws[others]).mean(axis=1))
                draws[name] = drawn * scatter
        return cls(best=best, draws=draws)

    def table(self) -> pd.DataFrame:
        """Return `ns` (per instruction, or each), `low` and `high`: a row per cost class."""
        ends = self.draws.quantile([_TAIL, 1 - _TAIL])
        return pd.DataFrame({"ns": self.best, "low": ends.iloc[0], "high": ends.iloc[1]}).loc[self.best.index]


def stand_ins(name: str, weights: pd.Series) -> list[str]:
    """Return the classes of the same cipher in libraries whose weight was found."""
    cipher = name.removesuffix(KERNEL)
    return [
        other for other in weights.index if other.startswith(cipher) and not in_kernel(other) and weights[other] > 0
    ]


def predict(features: pd.DataFrame, drawn: Drawn, off: pd.Series, checks: pd.DataFrame) -> pd.DataFrame:
    """Return for each profiled cell (both ends together) its estimate; the columns are those of `frames.CELLS`.

    `off` and `checks`: what `checking.left_out` returned.
    """
    random = np.random.default_rng(_SEED + 1)
    cells = features.groupby(list(IDENTITY), sort=False).sum()
    known = cells.columns.intersection(drawn.best.index)
    lacking = cells.columns.difference(known)
    best = apply(cells, drawn.best)
    exact = cells[known].to_numpy() @ drawn.draws[known].to_numpy().T  # a row per cell, a column per draw
    scatter = random.choice(np.exp(off.to_numpy()), exact.shape) if len(off) else np.ones(exact.shape)
    found = pd.DataFrame({"estimate_ns": best}, cells.index)
    found["estimate_low"], found["estimate_high"] = np.quantile(exact * scatter, [_TAIL, 1 - _TAIL], axis=1)
    of_userspace = _same_in_userspace(cells)
    has = of_userspace >= 0
    ratios = (exact * scatter)[has] / exact[of_userspace[has]]
    for name in ("ratio", "ratio_low", "ratio_high"):
        found[name] = np.nan
    found.loc[has, "ratio"] = best.to_numpy()[has] / best.to_numpy()[of_userspace[has]]
    found.loc[has, ["ratio_low", "ratio_high"]] = np.quantile(ratios, [_TAIL, 1 - _TAIL], axis=1).T
    found["reason"] = [
        _reason(dict(zip(IDENTITY, key, strict=True)), [name for name in lacking if cells.loc[key, name] > 0], checks)
        for key in cells.index
    ]
    refused = found["reason"] != ""
    found.loc[refused, found.columns != "reason"] = np.nan
    return found


def _same_in_userspace(cells: pd.DataFrame) -> np.ndarray:
    """Return for each cell the position of the one that differs in the record layer alone, userspace; -1 for none."""
    at = IDENTITY.index("record_layer")
    keys = [(*key[:at], _USERSPACE, *key[at + 1 :]) for key in cells.index]
    return np.asarray(cells.index.get_indexer(pd.MultiIndex.from_tuples(keys, names=cells.index.names)))


def _reason(cell: dict[str, object], unknown: list[str], checks: pd.DataFrame) -> str:
    """Return why a cell is not estimated; "" where it is."""
    if unknown:
        kernels = [name for name in unknown if is_cipher(name)]
        why = f"it needs the weight of {', '.join(unknown)}, which was never seen here"
        return why + "; no library that was measured here has a weight for that cipher to stand in" * bool(kernels)
    error = summary(checks)["error"]
    if math.isnan(error[ARM]):
        return "no arm could be left out and predicted from the rest, so the weights are not checked"
    if error[ARM] > MAX_ERROR:
        return f"left-out arms are predicted {error[ARM]:.0%} wrong, more than {MAX_ERROR:.0%}"
    for kind, name in ((SUITE, cell["suite"]), (PAYLOAD, cell["payload_bytes"])):
        one = checks[(checks["left_out"] == kind) & (checks["name"] == str(name))]["error"]
        if (one > MAX_ERROR).any():
            return f"{kind} {name} is predicted {one.iloc[0]:.0%} wrong where it is left out, more than {MAX_ERROR:.0%}"
    return ""
