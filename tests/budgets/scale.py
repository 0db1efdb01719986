"""The budgets that take long: what a server's session costs among thousands, and how wrong an estimate is."""

from __future__ import annotations

from pathlib import Path

from budgets import RATIO, Verdict

import ktlslab
from ktlslab.estimating.checking import ARM, summary

PLAN = Path(__file__).resolve().parents[2] / "data" / "serve10k.toml"
MAX_KIB = 100
MAX_ERROR = 10  # percent


def serving(kernel: str) -> list[Verdict]:
    """Let one process answer few and many kernel sessions; its memory and CPU are counted in a guest."""
    frame = ktlslab.sweep(PLAN, kernel, clock="instructions", progress=False)
    frame = frame.assign(cost=frame["client_cpu"] / frame["operations"])
    costs = frame.groupby("connections")["cost"].mean()
    memory = frame.groupby("connections")["session_bytes"].max() / 1024
    few, many = int(costs.index.min()), int(costs.index.max())
    budget = f"serve, CPU: {many:,} open kernel sessions / {few}"
    return [
        Verdict(budget=budget, unit=RATIO, ours=float(costs[many]), reference=float(costs[few]), limit=1.1),
        Verdict(budget="serve, memory of a kernel session", unit="KiB", ours=float(memory[many]), limit=MAX_KIB),
    ]


def estimating() -> list[Verdict]:
    """Predict each arm that runs on this machine from the others."""
    error = float(summary(ktlslab.estimate("quick", progress=False).checks)["error"][ARM])
    budget = "estimate: left-out arms, geometric mean"
    return [Verdict(budget=budget, unit="%", ours=100 * error, limit=MAX_ERROR)]
