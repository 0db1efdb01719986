"""The budgets that a profile shows: the same weight of binding in every arm, and a sum that agrees with the clock.

A sweep compares arms, so what is neither record layer nor I/O engine has to cost the same in all of them: Python, and
the C between Python and the kernel or OpenSSL.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from budgets import Verdict

import ktlslab
from ktlslab.measure.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

MAX_SPREAD = 500  # instructions per operation, of the largest arm over the smallest
MAX_DIFFERENCE = 0.5  # percent, of a cell's sum from the clock's count
BINDING = ("interpreter", "our C")  # the classes
SHOWN = 3  # functions in an explanation
SIZES = {64: "64 B", 16384: "16 KiB"}
PLAN = Plan(
    name="bindings",
    record_layers=("plain", "userspace", "kernel", "kernel-tx", "kernel-rx"),
    suites=("TLS_AES_256_GCM_SHA384",),
    payloads=tuple(SIZES),
    workloads=("echo",),
    repeats=1,
    steps=64,  # with one check-up of the kernel's streams
    also=(  # what explains the other budgets
        {"record_layers": ("kernel",), "payloads": (64,), "workloads": ("upload",)},
        {"record_layers": ("kernel",), "payloads": (64,), "workloads": ("echo", "upload"), "depths": (16,)},
    ),
)


def profiled(kernel: str, before: Iterable[Verdict]) -> list[Verdict]:
    """Profile every arm in a guest, and explain the budgets that were missed before."""
    found = ktlslab.profile(PLAN, kernel)
    for verdict in before:
        if verdict.explained and verdict.value and not verdict.met:
            verdict.notes.append(explanation(found.functions, verdict))
    cells = [cell for run in found.provenance.values() for cell in run["cells"]]
    return [*(binding(found.functions, size) for size in SIZES), agreement(cells)]


def explanation(functions: pd.DataFrame, verdict: Verdict) -> str:
    """Say what makes `kernel+uring` cost more than what it is compared with."""
    workload, size, depth, against = verdict.explained
    rows = functions[
        (functions["workload"] == workload)
        & (functions["payload_bytes"] == size)
        & (functions["depth"] == depth)
        & (functions["record_layer"] == "kernel")
        & (functions["end"] == "client")
    ]
    classes = rows.pivot_table("instructions", "class", "io_engine", aggfunc="sum", fill_value=0, observed=True)
    if against == "ktlslab syscall":
        more = (classes["uring"] - classes["syscall"]).sort_values(ascending=False).head(SHOWN)
        return "by the profile uring has more of " + ", ".join(f"{name} {count:,.0f}" for name, count in more.items())
    python = float(classes["uring"]["interpreter"])
    rest = ((verdict.ours or 0) - python) / (verdict.reference or 1)
    return f"by the profile {python:,.0f} instructions of ours are Python's own; without them it is {rest:.3f} x"


def binding(functions: pd.DataFrame, size: int) -> Verdict:
    """Compare the arms' interpreter and binding. If the budget is missed, the note says which functions differ most."""
    weight = functions[
        (functions["workload"] == "echo")
        & (functions["payload_bytes"] == size)
        & (functions["depth"] == 1)
        & (functions["end"] == "client")
        & (functions["mode"] == "user")
        & functions["class"].isin(BINDING)
    ]
    weight = weight.assign(arm=weight["record_layer"] + "+" + weight["io_engine"])
    arms = weight.groupby("arm")["instructions"].sum().sort_values()
    low, high = arms.index[0], arms.index[-1]
    spread = float(arms.iloc[-1] - arms.iloc[0])
    note = ", ".join(f"{arm} {instructions:,.0f}" for arm, instructions in arms.items())
    if spread > MAX_SPREAD:
        columns = weight.pivot_table(
            "instructions", ["class", "function"], "arm", aggfunc="sum", fill_value=0, observed=True
        )
        more = (columns[high] - columns[low]).sort_values(ascending=False).head(SHOWN)
        named = ", ".join(f"{function} ({part}) {count:,.0f}" for (part, function), count in more.items())
        note += f"; of what {high} has more than {low}, most is in {named}"
    budget = f"interpreter and binding, echo {SIZES[size]}: largest arm - smallest"
    return Verdict(budget=budget, unit="instructions apart", ours=spread, limit=MAX_SPREAD, notes=[note])


def agreement(cells: list[dict[str, Any]]) -> Verdict:
    """Compare the sums over all functions with the clock's count of the same operations; the worst cell counts."""
    worst = max(cells, key=lambda cell: abs(cell["difference"]))
    where = f"{worst['record_layer']}+{worst['io_engine']}, {worst['workload']}, {worst['payload_bytes']} B"
    note = (
        f"{len(cells)} cells; the worst is {where}: {worst['counted']:,.0f} counted, {worst['clock']:,.0f} by the clock"
    )
    budget = "profile: sum over functions, off the clock's count"
    return Verdict(budget=budget, unit="%", ours=100 * abs(worst["difference"]), limit=MAX_DIFFERENCE, notes=[note])
