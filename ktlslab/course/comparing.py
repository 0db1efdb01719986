"""Notebook 02's exercises: a ratio within blocks, what is a finding, an interaction, what a clock can show.

made()                        samples of four arms in five blocks, the last one cut short, and four ratios; made up
ratio(given, answer)          kernel over userspace at system calls
interaction(given, answer)    whether io_uring changes that ratio
verdicts(given, answer)       which of four differences are findings
dearer(found, answer)         counted in the effects of a real table
shown(given, answer)          what the instruction clock can show, and what not
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.course.verdicts import (
    Verdict,
    figure,
    judged,
    listed,
    near,
    not_figure,
    right,
    sentence,
    unanswered,
    wrong,
)
from ktlslab.packages import extra
from ktlslab.show.html import Picture, table

with extra("lab"):
    import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCKS = 5
_LAYERS, _ENGINES = ("userspace", "kernel"), ("syscall", "uring")
_NOT_RUN = (BLOCKS - 1, "kernel", "syscall")
_ROWS = (  # ratio, low, high, floor; verdict, why
    (("a", 0.80, 0.78, 0.83, 1.02), "less", "the interval lies below 1, and a fifth is more than the floor"),
    (("b", 0.97, 0.93, 1.02, 1.01), "none", "the interval contains 1: it may be less, more or the same"),
    (("c", 0.990, 0.985, 0.995, 1.02), "none", "two equal arms differ by as much: 0.990 is above 1 / 1.02"),
    (("d", 1.10, 1.06, 1.15, 1.03), "more", "the interval lies above 1, and a tenth is more than the floor"),
)
_CLAIMS = {
    "a": ("kernel TLS executes fewer instructions than userspace TLS at this payload", True, "counted, so shown."),
    "b": ("kernel TLS is faster on this server's CPU", False, "an instruction is not a nanosecond: weigh or time it."),
    "c": ("io_uring makes fewer system calls here", True, "system calls are counted too, on any clock."),
    "d": ("kernel TLS suffers less from cache misses", False, "the emulated CPU has no caches."),
    "e": ("between two kernels the work per record rose", True, "the same instructions are counted on both."),
}


@dataclass(frozen=True, slots=True)
class Given:
    """Made-up samples, a row per arm and block, and four ratios with their intervals and noise floors.

    The last block lacks an arm: the sweep was stopped before it ran.
    """

    frame: pd.DataFrame
    ratios: pd.DataFrame

    def _repr_html_(self) -> str:
        wide = self.frame.pivot_table("latency", "block", ["record_layer", "io_engine"], sort=False)
        rows = [
            (str(block), *("did not run" if pd.isna(value) else f"{value:,.0f}" for value in line))
            for block, line in wide.iterrows()
        ]
        head = ("block", *("\n".join(arm) for arm in wide.columns))
        return f"<div>given.frame, the latency by block and arm:{table(head, rows, numbers=range(1, len(head)))}</div>"

    def __repr__(self) -> str:
        return f"Given({len(self.frame)} samples of {BLOCKS} blocks)"


def made(seed: int | None = None) -> Given:
    """Return new samples, the same for the same seed: each block has its own drift, which all its arms share.

    The last block, the slowest, lacks the kernel's arm at system calls. So two columns have not the same blocks.
    """
    chance = random.Random(seed)  # noqa: S311 - figures, no secrets
    cost = {"userspace": 1.0, "kernel": chance.uniform(0.72, 0.88)}
    ring = {"userspace": chance.uniform(1.05, 1.15), "kernel": chance.uniform(0.86, 0.93)}
    rows = []
    for block in range(BLOCKS):
        drift = chance.uniform(50_000, 90_000) if block < BLOCKS - 1 else chance.uniform(150_000, 200_000)
        for layer in _LAYERS:
            for engine in _ENGINES:
                value = drift * cost[layer] * (ring[layer] if engine == "uring" else 1) * chance.uniform(0.998, 1.002)
                if (block, layer, engine) != _NOT_RUN:
                    rows.append((block, layer, engine, round(value)))
    frame = pd.DataFrame(rows, columns=["block", "record_layer", "io_engine", "latency"])
    ratios = pd.DataFrame([row for row, _, _ in _ROWS], columns=["difference", "ratio", "low", "high", "floor"])
    return Given(frame, ratios.set_index("difference"))


def claims() -> Picture:
    """Show five claims, to be judged."""
    return listed(_CLAIMS, "claim")


def ratio(given: Given, answer: object) -> Verdict:
    """Check the kernel's latency over userspace's at system calls: the geometric mean over the blocks."""
    wide = _wide(given)
    if verdict := unanswered(answer) or not_figure(answer):
        return verdict
    kernel, userspace = (wide[layer, "syscall"] for layer in ("kernel", "userspace"))
    ratios = kernel / userspace
    wanted = _mean(ratios)
    if near(answer, wanted):
        return right(
            f"{wanted:.3f}: kernel TLS needs {1 - wanted:.1%} less. What a block's arms share has cancelled, and a "
            "block that lacks one of them says nothing."
        )
    if near(answer, float(kernel.mean() / userspace.mean())) or near(answer, _mean(kernel) / _mean(userspace)):
        return wrong(
            "These are two columns' means, divided. One column lacks a block, the slowest: divide within each block."
        )
    known = {
        "Right ratios, but there are four of them: the last block has none.": wanted ** ((BLOCKS - 1) / BLOCKS),
        "This is upside down: userspace over the kernel.": 1 / wanted,
        "This is the difference in percent. A ratio of 1 means that they cost the same.": 100 * (wanted - 1),
        "This is the share that is saved. A ratio of 1 means that they cost the same.": 1 - wanted,
        "Right arms, but this is the difference. Divide.": float((kernel - userspace).mean()),
        "Right record layers, wrong I/O engine: this is the ratio at io_uring.": _over(wide, "uring"),
        "Two things change at once here: the record layer and the I/O engine.": _mean(
            wide["kernel", "uring"] / userspace
        ),
        "This is what io_uring does to userspace TLS.": _mean(wide["userspace", "uring"] / userspace),
    }
    return figure(answer, known, "This is not the ratio. Divide within each block, then take the geometric mean.")


def interaction(given: Given, answer: object) -> Verdict:
    """Check the kernel's ratio at io_uring over its ratio at system calls: 1 would mean the same effect."""
    wide = _wide(given)
    if verdict := unanswered(answer) or not_figure(answer):
        return verdict
    calls, ring = (_over(wide, engine) for engine in _ENGINES)
    if near(answer, ring / calls):
        return right(f"{ring / calls:.3f}: with io_uring kernel TLS saves more than with system calls.")
    known = {
        "This is upside down: system calls over io_uring.": calls / ring,
        "These are subtracted. Effects are ratios, so divide one by the other.": ring - calls,
        "This is the ratio at io_uring alone. Divide it by the one at system calls.": ring,
        "This is the ratio at system calls alone.": calls,
        "These are multiplied. Divide one by the other.": ring * calls,
        "Both changes together. The interaction is what is left when each alone is taken out.": _mean(
            wide["kernel", "uring"] / wide["userspace", "syscall"]
        ),
    }
    return figure(answer, known, "This is not the interaction: the ratio at io_uring over the ratio at system calls.")


def verdicts(given: Given, answer: object) -> Verdict:
    """Check what each of `given.ratios` is: "less", "more" or "none", in their order."""
    _given(given)
    if verdict := unanswered(answer):
        return verdict
    if isinstance(answer, str | bytes) or not isinstance(answer, Sequence) or len(answer) != len(_ROWS):
        return wrong(f'Give a list of {len(_ROWS)} words, each "less", "more" or "none".')
    faults = [
        f"`{row[0]}` is {verdict}: {why}" if said in {"less", "more", "none"} else f"`{row[0]}`: {said!r} is no verdict"
        for (row, verdict, why), said in zip(_ROWS, map(str, answer), strict=True)
        if said != verdict
    ]
    if faults:
        return wrong(f"{len(_ROWS) - len(faults)} of {len(_ROWS)} are right. {sentence(*faults)}")
    return right("A finding excludes 1 by its interval and is larger than what two equal arms differ by.")


def dearer(found: pd.DataFrame, answer: object) -> Verdict:
    """Check in how many cells of a table kernel TLS was found to have a higher latency (`ktlslab.effects`)."""
    columns = ["effect", "quantity", "verdict", "ratio"]
    rows = _checks.frame("checking an answer", "found", found, columns)
    if verdict := unanswered(answer) or not_figure(answer):
        return verdict
    ktls, latency = rows["effect"] == "kTLS", rows["quantity"] == "latency_p50"
    more, above = rows["verdict"] == "more", rows["ratio"] > 1
    counts: Mapping[str, pd.Series] = {
        "These are the cells with a ratio above 1. Not each is a finding: see `verdict`.": ktls & latency & above,
        "These are the cells where the kernel is cheaper.": ktls & latency & (rows["verdict"] == "less"),
        "These are the cells with a difference, cheaper ones included.": ktls & latency & (rows["verdict"] != "none"),
        "This counts CPU and throughput as well. Choose the quantity latency_p50.": ktls & more,
        "This counts other effects as well. Choose the effect kTLS.": latency & more,
        "These are all cells of kernel TLS and latency.": ktls & latency,
        "This counts all effects and all quantities.": more,
    }
    wanted = int((ktls & latency & more).sum())
    if near(answer, wanted):
        return right(f"{wanted} of {int((ktls & latency).sum())} cells, by more than the noise of this table.")
    known = {said: float(which.sum()) for said, which in counts.items()}
    return figure(answer, known, "Choose effect, quantity and verdict, and count the rows.")


def shown(given: Given, answer: object) -> Verdict:
    """Check which of the `claims` a table under the instruction clock can show."""
    _given(given)
    return judged(_CLAIMS, answer)


def _given(given: Given) -> Given:
    return _checks.instance("checking an answer", "given", given, Given, "ktlslab.course.comparing.made")


def _wide(given: Given) -> dict[tuple[str, str], pd.Series[float]]:
    """Return the latency of each arm by block; NaN where it did not run."""
    wide = _given(given).frame.pivot_table("latency", "block", ["record_layer", "io_engine"])
    return {(layer, engine): wide[layer, engine] for layer in _LAYERS for engine in _ENGINES}


def _over(wide: Mapping[tuple[str, str], pd.Series[float]], engine: str) -> float:
    """Return the kernel over userspace at an I/O engine."""
    return _mean(wide["kernel", engine] / wide["userspace", engine])


def _mean(values: pd.Series[float]) -> float:
    """Return the geometric mean of those that there are."""
    return math.exp(values.dropna().map(math.log).mean())
