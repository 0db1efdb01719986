"""Notebook 05's exercises: what changed between two kernels, how much of it is TLS, what a ring costs at a depth.

    cut(frame)                       cost and depths, cut from a table of several kernels
    growth(cost, answer)             newest over oldest, of kernel TLS
    of_tls(cost, answer)             how many of the added instructions are not TCP's
    no_dearer_from(depths, answer)   the first depth from which on io_uring costs no more than system calls

`cost` has a row per record layer and a column per kernel, the oldest first; `depths` a row per depth and a column per
I/O engine. Both hold latencies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.course.verdicts import (
    Verdict,
    figure,
    near,
    not_figure,
    not_number,
    right,
    unanswered,
    wrong,
)
from ktlslab.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_SUITE = "TLS_AES_256_GCM_SHA384"
NOISE = 1.01  # a ratio below this is none: the exercise says so
_GIVEN = "the cell above the exercises makes it"


def cut(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `cost` (16 KiB, system calls) and `depths` (64 bytes, kernel TLS, the newest kernel): medians of echoes.

    By plain TCP and by AES-256-GCM of TLS 1.3. UsageError where the frame is not one of samples.
    """
    needed = ["workload", "suite", "payload_bytes", "depth", "io_engine", "record_layer", "machine", "latency_p50"]
    rows = _checks.frame("cutting tables for exercises", "frame", frame, needed)
    echo = rows[(rows["workload"] == "echo") & rows["suite"].isin(["", _SUITE])]
    large = echo[(echo["payload_bytes"] == 16 << 10) & (echo["depth"] == 1) & (echo["io_engine"] == "syscall")]
    cost = large.pivot_table("latency_p50", "record_layer", "machine", "median", sort=False)
    cost = cost[sorted(cost.columns, key=lambda name: [int(part) for part in str(name).split(".")])]
    newest = echo["machine"] == cost.columns[-1]
    small = echo[newest & (echo["payload_bytes"] == 64) & (echo["record_layer"] == "kernel")]
    return cost, small.pivot_table("latency_p50", "depth", "io_engine", "median")


def growth(cost: pd.DataFrame, answer: object) -> Verdict:
    """Check the latency of kernel TLS on the newest kernel over that on the oldest."""
    table = _cost(cost)
    if verdict := unanswered(answer) or not_figure(answer):
        return verdict
    (old, new), (old_user, new_user) = _ends(table, "kernel"), _ends(table, "userspace")
    if near(answer, new / old):
        return right(f"{new / old:.3f}: the same records, the same bytes, and other instructions to make them.")
    known = {
        "This is upside down: oldest over newest.": old / new,
        "This is the difference. Divide.": new - old,
        "This is the difference in percent.": 100 * (new / old - 1),
        "Right kernels, wrong record layer: this is userspace TLS.": new_user / old_user,
        "This compares record layers on the newest kernel, not kernels.": new / new_user,
        "This is the newest over the one before it.": new / _latency(table, "kernel", -2),
    }
    return figure(answer, known, "Divide kernel TLS's latency on the newest kernel by that on the oldest.")


def of_tls(cost: pd.DataFrame, answer: object) -> Verdict:
    """Check how many instructions kernel TLS gained that plain TCP did not."""
    table = _cost(cost)
    if verdict := unanswered(answer) or not_figure(answer):
        return verdict
    (old, new), (old_plain, new_plain) = _ends(table, "kernel"), _ends(table, "plain")
    wanted = (new - old) - (new_plain - old_plain)
    if near(answer, wanted):
        return right(f"{wanted:,.0f} of {new - old:,.0f}: the others would have come without TLS as well.")
    known = {
        "This is all that kernel TLS gained, TCP's part included.": new - old,
        "This is what plain TCP gained.": new_plain - old_plain,
        "This is what TLS costs on the newest kernel, not how that changed.": new - new_plain,
        "These are added. What TCP gained is not TLS's: subtract it.": (new - old) + (new_plain - old_plain),
        "Right size, wrong sign: newest minus oldest.": -wanted,
    }
    return figure(answer, known, "What kernel TLS gained, less what plain TCP gained.")


def no_dearer_from(depths: pd.DataFrame, answer: object) -> Verdict:
    """Check the first depth from which on io_uring needs no more instructions than system calls, but for noise."""
    table = _checks.frame("checking an answer", "depths", depths, ["syscall", "uring"])
    if verdict := unanswered(answer) or not_number(answer, "The depth"):
        return verdict
    ratios = dict(zip(table.index, (table["uring"] / table["syscall"]).tolist(), strict=True))
    dearer = [depth for depth, ratio in ratios.items() if ratio >= NOISE]
    first = next((depth for depth in ratios if not dearer or depth > max(dearer)), None)
    if first is None:
        return wrong("In this table io_uring costs more at the greatest depth as well.")
    if answer == first:
        found = "no difference" if ratios[first] > 1 / NOISE else "less"
        shared = "what io_uring adds is shared by so many operations, and so is the system call"
        return right(f"From {first} on: {shared}. There the ratio is {ratios[first]:.3f}, which is {found}.")
    if answer not in ratios:
        return wrong(f"{answer} was not measured; the depths are {', '.join(map(str, ratios))}.")
    if answer in dearer:
        return wrong(f"At {answer} io_uring costs {ratios[answer] - 1:.1%} more.")
    return wrong(f"At {answer} it costs no more, but neither does it at a smaller depth.")


def _cost(cost: pd.DataFrame) -> pd.DataFrame:
    table = _checks.frame("checking an answer", "cost", cost)
    if len(table.columns) < 2 or not {"kernel", "plain", "userspace"} <= set(table.index):
        remedy = f"It has a row per record layer and a column per kernel: {_GIVEN}."
        raise UsageError("checking an answer", answered="`cost` is another table", remedy=remedy)
    return table


def _ends(table: pd.DataFrame, layer: str) -> tuple[float, float]:
    """Return a record layer's latency on the oldest and on the newest kernel."""
    return _latency(table, layer, 0), _latency(table, layer, -1)


def _latency(table: pd.DataFrame, layer: str, at: int) -> float:
    return float(table.to_numpy()[list(table.index).index(layer), at])
