"""Where the instructions went: stacked bars by class, an arm below the other, from a profile."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.measure.plan import Arm
from ktlslab.packages import extra
from ktlslab.profiling.comparison import compared, selected
from ktlslab.profiling.frames import Profile
from ktlslab.show import selection
from ktlslab.show.classcolours import colour, in_order
from ktlslab.show.html import joined
from ktlslab.show.names import ends_named, size_name, suite_name
from ktlslab.show.style import STYLE, WIDTH, Plot, arms_of

with extra("lab"):
    import matplotlib as mpl
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter

if TYPE_CHECKING:
    import pandas as pd

_TRIED = "drawing a profile"


def instructions(
    profile: Profile,
    *,
    payload: int | None = None,
    suite: str | None = None,
    workload: str | None = None,
    machine: str | None = None,
) -> Plot:
    """Draw instructions per operation by class: a row per workload, in it a bar per arm and end.

    `payload`: by default the one nearest to a full record. `machine`: by default the newest kernel.
    """
    rows, name, size = chosen(profile, payload, suite, workload, machine)
    workloads, arms = [str(one) for one in rows["workload"].unique()], arms_of(rows)[::-1]
    kinds = in_order(rows["class"])
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Plot(figsize=(WIDTH, 2.0 + len(workloads) * (0.4 + 0.24 * len(arms))), layout="constrained")
        panels = figure.subplots(len(workloads), 2, squeeze=False, sharey=True, sharex="row")
        for line, work in zip(panels.tolist(), workloads, strict=True):
            for axes, end in zip(line, ("client", "peer"), strict=True):
                some = rows[(rows["workload"] == work) & rows["end"].isin([end])]
                for at, arm in enumerate(arms):
                    _bar(axes, at, sums(some, arm), kinds)
                axes.set_title(f"{work}: {ends_named(end, [work])}", loc="left")
                axes.xaxis.set_major_formatter(
                    FuncFormatter(lambda value, _: f"{value / 1000:,.0f} k" if value else "0")
                )
                axes.tick_params(labelsize=7.5)
            longest = rows[rows["workload"] == work].groupby(["record_layer", "io_engine", "end"])["instructions"].sum()
            line[0].set_xlim(0, 1.03 * longest.max())
            line[0].set_yticks(range(len(arms)), [str(arm) for arm in arms])
        for axes in panels[-1]:
            axes.set_xlabel("instructions per operation", fontsize=8)
        keys = [Patch(facecolor=colour(kind), label=kind) for kind in kinds]
        figure.legend(handles=keys, loc="outside lower center", ncols=5, fontsize=7, frameon=False)
        where = f"{size_name(size)}, {suite_name(name)}, Linux {joined(sorted(map(str, rows['kernel'].unique())))}"
        figure.suptitle(f"Where the instructions went: {where}")
    figure.alt = "Stacked bars: instructions per operation by class, by arm, for client and peer."
    figure.caption = said(rows, workloads, size)
    return figure


def instruction_plots(profile: Profile) -> dict[str, Plot]:
    """Return the plot of the payload nearest to a full record, and that of the largest, by name."""
    rows, _, size = chosen(profile, None, None, None, None)
    drawn = {"instructions": instructions(profile)}
    machine = str(rows["machine"].iloc[0])
    largest = int(profile.functions.loc[profile.functions["machine"] == machine, "payload_bytes"].max())
    if largest > size:
        drawn["instructions-large"] = instructions(profile, payload=largest)
    return drawn


def chosen(
    profile: Profile, payload: int | None, suite: str | None, workload: str | None, machine: str | None
) -> tuple[pd.DataFrame, str, int]:
    """Return the rows of one machine, suite (and plain), payload and the usual setting, and suite and payload."""
    _checks.instance(_TRIED, "profile", profile, Profile, "ktlslab.profile, ktlslab.read_profile")
    rows = profile.functions
    rows = selected(rows, {"machine": machine or _newest(rows), **({"workload": workload} if workload else {})})
    rows = selection.at(rows, selection.usual(rows))
    name, size = selection.one_suite(rows, suite), selection.nearest(rows, payload)
    return rows[rows["suite"].isin([name, ""]) & (rows["payload_bytes"] == size)], name, size


def sums(rows: pd.DataFrame, arm: Arm) -> dict[str, float]:
    """Return an arm's instructions by class."""
    own = rows[(rows["record_layer"] == arm.record_layer) & (rows["io_engine"] == arm.io_engine)]
    return {str(name): float(value) for name, value in own.groupby("class")["instructions"].sum().items()}


def differences(profile: Profile) -> dict[str, str]:
    """Return by title what made the difference for the client that uses system calls, class by class, as HTML.

    Kernel against userspace records on the newest kernel, and kernel records on the oldest kernel against the newest.
    """
    rows, suite, _ = chosen(profile, None, None, None, None)
    newest, oldest = str(rows["machine"].iloc[0]), _by_age(profile.functions)[0]
    same = {"end": "client", "io_engine": "syscall", "suite": suite}
    pairs = {
        "Kernel records against userspace records": [
            {**same, "machine": newest, "record_layer": layer} for layer in ("userspace", "kernel")
        ],
        "Kernel records, the oldest kernel against the newest": [
            {**same, "machine": machine, "record_layer": "kernel"} for machine in (oldest, newest)
        ],
    }
    found = {}
    for title, (a, b) in pairs.items():
        if a != b:
            with contextlib.suppress(UsageError):  # the profile has no such cells
                found[title] = compared(profile, profile, a_only=a, b_only=b)._repr_html_()
    return found


def _bar(axes: Any, at: int, found: dict[str, float], kinds: list[str]) -> None:
    left = 0.0
    if not found:
        axes.text(0.02, at, "not profiled", va="center", fontsize=7, alpha=0.7, transform=axes.get_yaxis_transform())
    for kind in kinds:
        if found.get(kind):
            axes.barh(at, found[kind], left=left, height=0.72, facecolor=colour(kind), edgecolor="white", linewidth=0.3)
            left += found[kind]


def _newest(rows: pd.DataFrame) -> str:
    return _by_age(rows)[-1]


def _by_age(rows: pd.DataFrame) -> list[str]:
    """Return the machines, that with the oldest kernel first."""
    kernels = sorted(map(str, rows["kernel"].unique()), key=selection.version)
    return [str(rows.loc[rows["kernel"] == kernel, "machine"].iloc[0]) for kernel in kernels]


def said(rows: pd.DataFrame, workloads: list[str], size: int) -> str:
    """Say for each workload what the client executes with kernel records and with userspace records, and where."""
    lines = []
    client = rows[rows["end"] == "client"]
    for work in workloads:
        part = client[client["workload"] == work]
        for engine in ("syscall", "uring"):
            one, other = (sums(part, Arm(layer, engine)) for layer in ("kernel", "userspace"))
            if one and other:
                differences = {kind: one.get(kind, 0.0) - other.get(kind, 0.0) for kind in {*one, *other}}
                less, more = (pick(differences, key=lambda kind: differences[kind]) for pick in (min, max))
                lines.append(
                    f"{work.capitalize()} of {size_name(size)} by {engine}: "
                    f"{ends_named('the client', [work])} executes "
                    f"{sum(one.values()):,.0f} instructions with kernel records and {sum(other.values()):,.0f} with "
                    f"userspace records: {-differences[less]:,.0f} fewer in {less}, {differences[more]:,.0f} more in "
                    f"{more}."
                )
                break
    return "\n".join(lines)
