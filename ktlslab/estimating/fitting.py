"""The weights of cost classes: nanoseconds per instruction (system calls and context switches: each) on this CPU."""

from __future__ import annotations

from dataclasses import dataclass

from ktlslab.errors import UsageError
from ktlslab.estimating.leastsquares import nnls
from ktlslab.packages import extra

with extra("lab"):
    import numpy as np
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Cells and ends that were profiled and measured: `features` (a column per cost class) and `ns`, of one index."""

    features: pd.DataFrame
    ns: pd.Series

    @classmethod
    def of(cls, features: pd.DataFrame, ns: pd.Series) -> Evidence:
        """Return what two tables have in common. UsageError where that is too little to fit."""
        index = features.index.intersection(ns.index)
        used = features.loc[index]
        used = used.loc[:, (used > 0).any()]
        if len(index) <= len(used.columns) or used.empty:
            answered = f"{len(index)} cells and ends were both measured and profiled, for {len(used.columns)} weights"
            remedy = "Give the plan more payloads, workloads or suites."
            raise UsageError("estimating: fitting weights", answered=answered, remedy=remedy)
        return cls(features=used, ns=ns.loc[index])

    def where(self, chosen: pd.Series) -> Evidence:
        """Return the rows chosen by a mask, without the classes that they lack."""
        mask = chosen.to_numpy()
        rest = self.features[mask]
        return Evidence(features=rest.loc[:, (rest > 0).any()], ns=self.ns[mask])

    def fit(self, factors: np.ndarray | None = None) -> pd.Series:
        """Return the weights with the least relative errors; `factors` multiply the nanoseconds, for resampling."""
        ns = self.ns.to_numpy() * (1.0 if factors is None else factors)
        weights = nnls(self.features.to_numpy() / ns[:, None], np.ones(len(ns)))
        return pd.Series(weights, self.features.columns)


def apply(features: pd.DataFrame, weights: pd.Series) -> pd.Series:
    """Return nanoseconds of each row of features. All classes that the rows have need a weight."""
    return features[weights.index.intersection(features.columns)].mul(weights, axis=1).sum(axis=1)
