"""The budgets, and how measurements are compared with them. Nothing is measured here.

A run in the guest is a dict: `work`, `who`, and its figures per operation (`contestants.Figures`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Run = dict[str, Any]
# Work, figure, contestant, reference, limit; workload, payload and depth of it in a profile. A step is elapsed time: on
# one CPU it includes the peer's share. The C program waits without a timeout; ktlslab always has one, and its cost
# counts as ktlslab's.
RATIOS = (
    ("echo 64 B", "step", "ktlslab uring", "C uring", 1.05, ("echo", 64, 1)),
    ("echo 16 KiB", "step", "ktlslab uring", "C uring", 1.02, ("echo", 16384, 1)),
    ("upload 64 B", "cpu", "ktlslab uring", "C uring", 1.12, ("upload", 64, 1)),
    ("upload 64 B, depth 16", "cpu", "ktlslab uring", "ktlslab syscall", 1.00, ("upload", 64, 16)),
    ("echo 64 B, depth 16", "step", "ktlslab uring", "ktlslab syscall", 1.00, ("echo", 64, 16)),
)
RATIO = "instructions"  # the unit of what is compared with a reference, and whose limit is a ratio
# io_uring over system calls at depth: what the kernel's two ways cost in C, by the same arrangement, is not ours to
# change. The ratio of ktlslab's two engines is held to so many times that one.
OVER_C = 1.02
RATIO_OF_RATIOS = "x"
# From the kernel up: the difference between a row and the one above it is the cost of what the row names.
PROFILES = {
    "uring": (
        ("send(2), recv(2) in C", "C blocking"),
        ("io_uring in C", "C uring"),
        ("a bound on its wait", "C uring-timed"),
    ),
    "syscall": (("send(2), recv(2) in C", "C blocking"),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One line of the table. `value` is compared with the limit: the ratio to the reference, or else our figure.

    `explained`: what a profile explains it by, if it is missed (workload, payload, depth, reference).
    """

    budget: str
    unit: str
    ours: float | None
    reference: float | None = None
    limit: float | None
    notes: list[str] = field(default_factory=list)
    explained: tuple[str, int, int, str] | None = None

    @property
    def value(self) -> float | None:
        if self.ours is None or self.reference is None:
            return self.ours
        return self.ours / self.reference

    @property
    def met(self) -> bool:
        return self.value is not None and self.limit is not None and self.value <= self.limit

    @property
    def word(self) -> str:
        return "NOT MEASURED" if self.value is None else "met" if self.met else "MISSED"


def middle(runs: Iterable[Run], work: str, who: str, figure: str) -> float | None:
    """Return the mean of the middle half of the rounds, None where there are none.

    The same work has one of two counts, half a percent apart, depending on the kernel; a median would jump.
    """
    values = sorted(run[figure] for run in runs if (run["work"], run["who"]) == (work, who))
    rest = values[len(values) // 4 : len(values) - len(values) // 4]
    return statistics.fmean(rest) if rest else None


def ratios(runs: Sequence[Run]) -> list[Verdict]:
    """Compare the runs with the budgets that are ratios."""
    verdicts = []
    for work, figure, ours, against, limit, cell in RATIOS:
        kind = "elapsed" if figure == "step" else "CPU"
        verdict = Verdict(
            budget=f"{work}, {kind}: {ours} / {against}",
            unit=RATIO,
            ours=middle(runs, work, ours, figure),
            reference=middle(runs, work, against, figure),
            limit=limit,
            explained=(*cell, against),
        )
        verdicts.append(verdict)
        if against == "ktlslab syscall":
            verdicts.append(
                over_c(verdict, *(middle(runs, work, who, figure) for who in ("C uring, a batch", "C blocking")))
            )
    return verdicts


def over_c(verdict: Verdict, batch: float | None, blocking: float | None) -> Verdict:
    """Compare the ratio of ktlslab's engines with that of the same two ways in C, which is noted beside it."""
    alone = batch / blocking if batch and blocking else None
    if alone:
        verdict.notes.append(f"in C alone the same two ways are {alone:.3f} x ({batch:,.0f} / {blocking:,.0f})")
    return Verdict(
        budget=f"{verdict.budget}, over the same in C",
        unit=RATIO_OF_RATIOS,
        ours=verdict.value if alone else None,
        reference=alone,
        limit=OVER_C,
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table: the first column aligned left, the others right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def verdict_table(verdicts: Iterable[Verdict]) -> str:
    rows = []
    for verdict in verdicts:
        ratio = f"{verdict.value:.3f} x" if verdict.reference and verdict.value else "-"
        limit = (
            f"{verdict.limit:.2f} x"
            if verdict.limit and verdict.unit in (RATIO, RATIO_OF_RATIOS)
            else _figure(verdict.limit, verdict.unit)
        )
        ours, reference = (_figure(value, verdict.unit) for value in (verdict.ours, verdict.reference))
        rows.append((verdict.budget, ours, reference, ratio, limit, verdict.word))
    return table(("budget", "ours", "reference", "ratio", "limit", ""), rows)


def profile_table(runs: Sequence[Run], engine: str, columns: Sequence[tuple[str, str]]) -> str:
    """Show the cost of a call per layer and, after the plus, what the layer adds to the one above it in the table.

    `columns` are (work, figure).
    """
    whose = dict.fromkeys(run["who"] for run in runs if run["who"].startswith(f"{engine}: "))
    layers = [*PROFILES[engine], *((who.partition(": ")[2], who) for who in reversed(whose))]
    rows = []
    before: list[float | None] = [None] * len(columns)
    for label, who in layers:
        now = [middle(runs, work, who, figure) for work, figure in columns]
        rows.append((label, *(_step(value, last) for value, last in zip(now, before, strict=True))))
        before = [last if value is None else value for value, last in zip(now, before, strict=True)]
    return table((f"{engine}: instructions per operation", *(work for work, _ in columns)), rows)


def record_table(runs: Sequence[Run]) -> str:
    """Show the figures of all contestants."""
    works = {work for work, *_ in RATIOS}
    seen = dict.fromkeys((run["work"], run["who"]) for run in runs if run["work"] in works)
    rows = [
        (f"{work}: {who}", *(_figure(middle(runs, work, who, figure), "instructions") for figure in ("step", "cpu")))
        for work, who in seen
    ]
    return table(("instructions per operation", "elapsed", "CPU"), rows)


def price_table(runs: Sequence[Run]) -> str:
    """Show what Python's own primitives cost, to help plan hot paths."""
    rows = [(run["who"], f"{run['step']:,.0f}") for run in runs if run["work"] == "prices"]
    return table(("prices of Python itself", "instructions"), rows)


def _step(value: float | None, before: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" + (f" {value - before:+8,.0f}" if before is not None else " " * 9)


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == RATIO_OF_RATIOS:
        return f"{value:.3f} x"
    if unit.startswith("instructions"):
        return f"{value:,.0f}{unit.removeprefix('instructions')}"
    return f"{value:.{1 if value >= 1 else 2}f} {unit}"
