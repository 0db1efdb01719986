"""Tables of effects and of noise: what each comes to, workload by workload, and every cell of kernel TLS."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ktlslab.measure.analysis import QUANTITIES, noise_floor, tally
from ktlslab.show import selection
from ktlslab.show.html import Lines
from ktlslab.show.names import order, size_name, suite_name
from ktlslab.show.signmap import signed

if TYPE_CHECKING:
    import pandas as pd

_CELLS = ("latency_p50", "client_cpu")
_UNJUDGED = {"blocks": "too few blocks to judge", "no A/A arm": "no A/A arm to judge by"}


def floors(frame: pd.DataFrame) -> Lines:
    """Show the noise floor of each workload and payload (the largest of several settings), a column per quantity."""
    found = noise_floor(frame).pivot_table("floor", ["workload", "payload_bytes"], "quantity", aggfunc="max")
    places = sorted(found.index, key=lambda place: (order(place[0]), place[1]))
    rows = [
        (workload, size_name(size), *(f"{found.loc[(workload, size), name]:.4f}" for name in QUANTITIES))
        for workload, size in places
    ]
    head = ("workload", "payload", *(name for name, _ in QUANTITIES.values()))
    return Lines(head=head, rows=rows, numbers=range(2, len(head)))


def effect_summary(found: pd.DataFrame) -> Lines:
    """Show a row per effect, arm and workload, over all its cells, with a column for each quantity.

    An entry says the median difference in percent and its range, then in how many cells it is less, more and none, and
    how many could not be judged.
    """
    rows = []
    for (effect, of, over), arms in found.groupby(["effect", "of", "over"], sort=False):
        for workload, part in sorted(arms.groupby("workload"), key=lambda group: order(str(group[0]))):
            entries = [_entry(part[part["quantity"] == quantity]) for quantity in QUANTITIES]
            rows.append((str(effect), _over(str(of), str(over)), str(workload), *entries))
    head = ("effect", "ratio of", "workload", *(name for name, _ in QUANTITIES.values()))
    return Lines(head=head, rows=rows, numbers=range(3, len(head)))


def _entry(part: pd.DataFrame) -> str:
    if part.empty:
        return ""
    ratios = part["ratio"]
    ends = f"\n({signed(ratios.min())} to {signed(ratios.max())})" if len(ratios) > 1 else ""
    less, more, none, unjudged = tally(part).values()
    counted = f"{less}/{more}/{none}" + f", {unjudged} not judged" * bool(unjudged)
    return f"{signed(ratios.median())}{ends}\n{counted}"


def _over(of: str, over: str) -> str:
    """Name a ratio; that of an arm over its equal says so."""
    return f"{of} over its equal" if of == over else f"{of} over {over}"


def effect_cells(found: pd.DataFrame) -> Lines:
    """Show every cell of the effect of kernel TLS, for latency and the client's CPU."""
    chosen = found[(found["effect"] == "kTLS") & found["quantity"].isin(_CELLS)]
    rows = []
    for at, cell in chosen.iterrows():
        setting = selection.setting_name(chosen.loc[[at]], among=chosen)
        size = size_name(int(cell["payload_bytes"]))
        rows.append(
            (
                _over(cell["of"], cell["over"]),
                f"Linux {cell['kernel']}",
                f"{cell['workload']}, {size}{setting}",
                suite_name(str(cell["suite"])),
                QUANTITIES[str(cell["quantity"])][0],
                f"{cell['ratio']:.3f}",
                "" if math.isnan(cell["low"]) else f"{cell['low']:.3f} to {cell['high']:.3f}",
                "" if math.isnan(cell["floor"]) else f"{cell['floor']:.3f}",
                _UNJUDGED.get(str(cell["reason"]), str(cell["verdict"])),
            )
        )
    head = ("ratio of", "kernel", "cell", "suite", "quantity", "ratio", "95 % interval", "floor", "verdict")
    return Lines(head=head, rows=rows, numbers=range(5, 8))
