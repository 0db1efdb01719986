"""Where the CPU went: client and peer, user and system, beside system calls and bytes on the wire.

kTLS moves work rather than removing it, so each arm has a bar per process. The length of a bar is exact: it is the
scheduler's own clock of the process. The boundary between user and system is not. The kernel looks at each tick
(250 to 1000 per second) whether the process is in user mode, and divides the exact total by what it saw
(cputime_adjust in kernel/sched/cputime.c): a sample shorter than a few ticks says nothing. So the ticks of all blocks
of a cell are taken together, the boundary carries the 95 % interval that so many ticks allow, and where they are fewer
than 25 a bar stays whole. A profile of the same cell on the same kernel knows the boundary to the instruction, and is
taken where given.

Softirqs run on the back of whatever process they meet, and kernels without CONFIG_IRQ_TIME_ACCOUNTING count them into
that process as well: so they are not part of the bars but a mark for the whole machine, and absent where the kernel
does not count them or sampled too rarely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ktlslab.measure.plan import Arm
from ktlslab.packages import extra
from ktlslab.profiling.frames import CELL
from ktlslab.show import axes as common
from ktlslab.show import selection
from ktlslab.show.analysis import ready
from ktlslab.show.background import hertz, runs
from ktlslab.show.counted import overhead
from ktlslab.show.names import ends_named, size_name, suite_name
from ktlslab.show.style import ENGINES, STYLE, WIDTH, Plot, arms_of, rows_of

with extra("lab"):
    import matplotlib as mpl
    from matplotlib.colors import to_hex, to_rgb
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ktlslab.profiling.frames import Profile

ENOUGH = 25  # ticks: the boundary is then known to about 20 % of the bar's length
_WHO = {"client": ("#0072B2", "#8CC3E8"), "peer": ("#D55E00", "#F5B57F")}  # system dark, user light
_PROFILED = ["machine", "kernel", *(name for name in CELL if name != "tls_version")]
_HALF = 0.19  # of a bar's height
_BESIDE = ("client's system calls\nper operation", "bytes on the wire\nbeyond the payload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What one process spent per operation, in the table's unit. `share`: of user mode; NaN: too few ticks to say."""

    total: float
    share: float
    error: float  # half the 95 % interval of `share`
    blocks: int

    @property
    def known(self) -> bool:
        return not math.isnan(self.share)

    def exactly(self, share: float) -> Split:
        """Return the same with the share that a profile counted; as it is where that is NaN."""
        return self if math.isnan(share) else replace(self, share=share, error=0.0)

    @classmethod
    def of(cls, rows: pd.DataFrame, who: str, tick: float) -> Split:
        """Take a cell's blocks together, each weighed by the work it did."""
        work = rows["operations"]
        user, system, exact = (float((rows[f"{who}_{part}"] * work).sum()) for part in ("user", "system", "cpu"))
        sampled = user + system
        ticks = exact / tick
        known = sampled > 0 and ticks >= ENOUGH
        share = user / sampled if known else math.nan
        error = _error(share, ticks) if known else math.nan
        return cls(total=exact / float(work.sum()), share=share, error=error, blocks=len(rows))


def _shares(profile: Profile, rows: pd.DataFrame, key: tuple[str, Arm, str]) -> float:
    """Return the share of user mode in the profile of this cell; NaN where it has none."""
    workload, arm, who = key
    cell = rows_of(rows[rows["workload"] == workload], arm)[_PROFILED].drop_duplicates()
    found = profile.functions.merge(cell)
    found = found[found["end"] == who]
    total = float(found["instructions"].sum())
    return float(found.loc[found["mode"] == "user", "instructions"].sum()) / total if total else math.nan


def _error(share: float, ticks: float) -> float:
    """Return half the 95 % interval of a share that was sampled so often; never none, even where all were alike."""
    return 1.96 * math.sqrt(max(share * (1 - share), 1 / ticks) / ticks)


_Splits = dict[tuple[str, Arm, str], Split]


def cpu_split(
    frame: pd.DataFrame,
    *,
    payload: int | None = None,
    suite: str | None = None,
    workload: str | None = None,
    machine: str | None = None,
    profile: Profile | None = None,
) -> Plot:
    """Draw what client and peer spent per operation at one payload and suite, a pair of bars per arm.

    `payload`: by default the one nearest to a full record. Beside the bars: the client's system calls, and the bytes
    on the wire beyond the payload (record headers, tags, acknowledgements), both per operation. `profile`: of the
    same cells; under the instruction clock it says where user mode ends.
    """
    rows = selection.chosen(selection.one_place(ready(frame), machine), workload, None)
    rows = selection.at(rows, selection.usual(rows))
    name, size = selection.one_suite(rows, suite), selection.nearest(rows, payload)
    rows = rows[rows["suite"].isin([name, ""]) & (rows["payload_bytes"] == size) & (rows["replica"] == 0)]
    workloads, arms, unit = selection.workloads(rows), arms_of(rows)[::-1], str(rows["unit"].iloc[0])
    tick = 1e9 / hertz(rows)
    scale, found, grain = common.scale("cpu", unit), splits(rows, tick), _grain(rows, tick)
    if profile is not None and unit == "instructions":
        found = {key: split.exactly(_shares(profile, rows, key)) for key, split in found.items()}
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        height = 1.9 + len(workloads) * (0.55 + 0.3 * len(arms))
        figure = Plot(figsize=(WIDTH, height), layout="constrained")
        panels = figure.subplots(len(workloads), 3, squeeze=False, sharey=True, width_ratios=(3.2, 1, 1), sharex="col")
        for line, work in zip(panels.tolist(), workloads, strict=True):
            for at, arm in enumerate(arms):
                one = rows_of(rows[rows["workload"] == work], arm)
                if one.empty:
                    _say(line[0], at, "not measured")
                else:
                    for who, offset in (("client", _HALF), ("peer", -_HALF)):
                        _bar(line[0], at + offset, who, found[work, arm, who], scale)
                    _softirq(line[0], at, one, scale, grain)
                    _count(line[1], at, float(one["client_syscalls"].median()))
                    _count(line[2], at, float(overhead(one).median()))
            line[0].set_yticks(range(len(arms)), [str(arm) for arm in arms])
            line[0].set_ylabel(work, fontweight="bold")
            line[0].set_xlim(left=0)
            line[0].xaxis.set_major_formatter(common.value_formatter("cpu", unit))
            for axes in line:
                axes.tick_params(axis="x", labelsize=7.5)
                axes.set_ylim(-0.6, len(arms) - 0.4)
        for axes, label in zip(panels[-1], (f"CPU, {common.unit_of('cpu', unit)}", *_BESIDE), strict=True):
            axes.set_xlabel(label, fontsize=8)
        for axes in panels[:, 1:].flat:
            axes.margins(x=0.35)
            axes.set_xlim(left=0)
        blocks = sorted({one.blocks for one in found.values()})
        note = ends_named("upper bar: client, lower: peer", workloads)
        note += f"; {' to '.join(map(str, blocks[:1] + blocks[1:][-1:]))} blocks together"
        note += "; error bar: 95 % interval of where user ends" if any(one.error > 0 for one in found.values()) else ""
        note += "; user and system by the profile" if any(one.error == 0 for one in found.values()) else ""
        marked = any(one.get_label() == "interrupts" for axes in panels[:, 0] for one in axes.containers)
        common.legend(figure, _key(rows, found, marked=marked), note)
        where = f"{size_name(size)}, {suite_name(name)}{selection.setting_name(rows, among=frame)}"
        common.title(figure, f"Where the CPU went: {where}", rows)
    figure.alt = "Bars: CPU of client and peer per operation, split into user and system where ticks suffice, by arm."
    figure.caption = _said(found, workloads, size, unit)
    return figure


def splits(rows: pd.DataFrame, tick: float) -> _Splits:
    """Return the split of each workload, arm and process in the frame. `tick`: between two ticks, in its unit."""
    return {
        (str(workload), arm, who): Split.of(rows_of(part, arm), who, tick)
        for workload, part in rows.groupby("workload")
        for arm in arms_of(part)
        for who in _WHO
    }


def _bar(axes: Axes, y: float, who: str, split: Split, scale: float) -> None:
    dark, light = _WHO[who]
    total = split.total * scale
    style: dict[str, Any] = {"height": 2 * _HALF, "edgecolor": "white", "linewidth": 0.5}
    if not split.known:
        axes.barh(y, total, facecolor=_mixed(dark, light), **style)
        return
    user = total * split.share
    axes.barh(y, user, facecolor=light, **style)
    axes.barh(y, total - user, left=user, facecolor=dark, hatch="...", **style)
    if not split.error:
        return
    ends = [[total * min(split.error, split.share)], [total * min(split.error, 1 - split.share)]]
    axes.errorbar([user], [y], xerr=ends, color="black", elinewidth=0.8, capsize=2)


def _softirq(axes: Axes, at: int, rows: pd.DataFrame, scale: float, grain: float) -> None:
    """Mark the machine's time in interrupts, with the 95 % interval that its resolution allows, where it is known.

    `grain`: what the kernel counts it in, in the table's unit: a tick where it is sampled.
    """
    spent = float((rows["machine_softirq"] * rows["operations"]).sum(skipna=False))
    elapsed = float(rows["elapsed"].sum())
    if math.isnan(spent) or elapsed < ENOUGH * grain:
        return
    each = scale / float(rows["operations"].sum())
    error = elapsed * _error(min(spent / elapsed, 1.0), elapsed / grain)
    ends = [[min(spent, error) * each], [error * each]]
    style: Any = {"marker": "|", "markersize": 11, "markeredgewidth": 1.6, "elinewidth": 0.8, "capsize": 2}
    axes.errorbar([spent * each], [at], xerr=ends, color="black", linestyle="none", label="interrupts", **style)


def _grain(rows: pd.DataFrame, tick: float) -> float:
    """Return the resolution in which the kernel counts interrupts, as the provenance tells it; else a tick."""
    told = [run.get("interrupt_time", {}).get("resolution_ns", tick) for run in runs(rows).values()]
    return float(max(told, default=tick))


def _mixed(dark: str, light: str) -> str:
    """Return the colour between user's and system's, for what is both."""
    (red, green, blue), (pale_red, pale_green, pale_blue) = to_rgb(dark), to_rgb(light)
    return to_hex(((red + pale_red) / 2, (green + pale_green) / 2, (blue + pale_blue) / 2))


def _count(axes: Axes, at: int, value: float) -> None:
    """Draw a small bar with its number, or say that it is not available."""
    if math.isnan(value):
        _say(axes, at, "not available")
        return
    axes.barh(at, value, height=0.5, facecolor="#7D7D7D")
    axes.text(value, at, f" {value:.3g}" if value < 1000 else f" {value:,.0f}", va="center", fontsize=7.5)


def _say(axes: Axes, at: int, words: str) -> None:
    """Write in a bar's place why there is none."""
    axes.text(0.02, at, words, va="center", fontsize=7, alpha=0.7, transform=axes.get_yaxis_transform())


def _key(rows: pd.DataFrame, found: _Splits, *, marked: bool) -> list[Patch | Line2D]:
    keys: list[Patch | Line2D] = []
    for who, (dark, light) in _WHO.items():
        known = {split.known for (_, _, whose), split in found.items() if whose == who}
        if True in known:
            keys.append(Patch(facecolor=light, label=f"{who}, user"))
            keys.append(Patch(facecolor=dark, edgecolor="white", hatch="...", label=f"{who}, system"))
        if False in known:
            keys.append(Patch(facecolor=_mixed(dark, light), label=f"{who}, not split: too few ticks"))
    if marked:
        inside = {run.get("interrupt_time", {}).get("in_process_clocks") for run in runs(rows).values()}
        where = {frozenset({True}): ", within the bars", frozenset({False}): ", beside the bars"}
        label = f"interrupts, whole machine{where.get(frozenset(inside), '')}"
        mark: Any = {"marker": "|", "linestyle": "none", "markersize": 11, "markeredgewidth": 1.6}
        keys.append(Line2D([], [], color="black", label=label, **mark))
    return keys


def _said(found: _Splits, workloads: list[str], size: int, unit: str) -> str:
    """Say for each workload what kernel TLS spends where against userspace TLS at the same I/O engine."""
    said = []
    for workload in workloads:
        engines = [
            e for e in ENGINES if all((workload, Arm(one, e), "client") in found for one in ("kernel", "userspace"))
        ]
        if engines:
            pairs = [
                [found[workload, Arm(one, engines[0]), who].total for one in ("kernel", "userspace")] for who in _WHO
            ]
            costs = [
                f"{who} {common.amount(kernel, 'cpu', unit)} against {common.amount(userspace, 'cpu', unit)}"
                for who, (kernel, userspace) in zip(_WHO, pairs, strict=True)
            ]
            both = sum(pair[0] for pair in pairs) / sum(pair[1] for pair in pairs)
            costs.append(f"together {both:.2f} times as much")
            said.append(f"{common.sentence(workload)} of {size_name(size)} by {engines[0]}, kernel against userspace: ")
            said[-1] += f"{', '.join(costs)}."
    return "\n".join(said)
