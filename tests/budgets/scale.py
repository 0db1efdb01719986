"""The budgets that take long: what a server's session costs among thousands, and how wrong an estimate is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budgets import RATIO, Verdict

import ktlslab
from ktlslab.estimating.checking import ARM, summary

if TYPE_CHECKING:
    import pandas as pd

PLAN = Path(__file__).resolve().parents[2] / "data" / "serve10k.toml"
MAX_KIB = 100
MAX_ERROR = 10  # percent


def serving(kernel: str) -> list[Verdict]:
    """Let one process answer few and many sessions; its memory and CPU are counted in a guest."""
    return served(ktlslab.sweep(PLAN, kernel, clock="instructions", progress=False))


def served(table: pd.DataFrame) -> list[Verdict]:
    """Compare what an operation costs among the most sessions with what it costs among the fewest."""
    verdicts = []
    for layer, rows in table.assign(cost=table["client_cpu"] / table["operations"]).groupby("record_layer"):
        of = rows.groupby("connections")
        costs = of["cost"].mean()
        few, many = int(costs.index.min()), int(costs.index.max())
        kib = float(of["session_bytes"].max()[many]) / 1024
        budget = f"serve, CPU: {many:,} open {layer} sessions / {few}"
        verdicts += [
            Verdict(budget=budget, unit=RATIO, ours=float(costs[many]), reference=float(costs[few]), limit=1.1),
            Verdict(budget=f"serve, memory of a {layer} session", unit="KiB", ours=kib, limit=MAX_KIB),
        ]
    return verdicts


def estimating() -> list[Verdict]:
    """Predict each arm that runs on this machine from the others."""
    return estimated(ktlslab.estimate("quick", progress=False).checks)


def estimated(checks: pd.DataFrame) -> list[Verdict]:
    """Say how far off the predictions of the arms that were left out are."""
    error = float(summary(checks)["error"][ARM])
    return [Verdict(budget="estimate: left-out arms, geometric mean", unit="%", ours=100 * error, limit=MAX_ERROR)]
