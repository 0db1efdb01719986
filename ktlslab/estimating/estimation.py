"""An estimate of a plan: run here what can run here, count everything in a guest, fit, check, predict."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ktlslab import _checks
from ktlslab.errors import MachineError, UsageError
from ktlslab.estimating.checking import left_out
from ktlslab.estimating.costs import IDENTITY, family, features
from ktlslab.estimating.fitting import Evidence
from ktlslab.estimating.frames import CELLS, ESTIMATE, FITTED, UNIT, Estimate
from ktlslab.estimating.observing import observed, said_of
from ktlslab.estimating.predicting import Drawn, predict
from ktlslab.linux import capabilities
from ktlslab.measure.dimensions import RECORD_LAYERS
from ktlslab.measure.plan import Plan, named
from ktlslab.measure.sweeping import sweep
from ktlslab.measure.table import check as check_samples
from ktlslab.measure.table import read_table
from ktlslab.measure.worker import MIN_SAMPLE_NS
from ktlslab.packages import extra, require
from ktlslab.profiling import plugin
from ktlslab.profiling.collecting import profile
from ktlslab.profiling.frames import Profile, read_profile
from ktlslab.runs import clocks
from ktlslab.runs.journal import interrupted
from ktlslab.runs.machines import machine
from ktlslab.runs.storage import beside, table_path
from ktlslab.tls.suites import Suite

with extra("lab"):
    import pandas as pd

EVERYWHERE = ("plain", "userspace", "stdlib-ssl")  # record layers that every kernel can run
MIN_REPEATS = 7  # blocks here: the median of so many survives a busy machine
_BUSY = 0.5  # load per CPU from which on it is worth a word
_TRIED = "estimating"


def estimate(
    plan: str | Path | Plan = "quick",
    on: str = "newest",
    *,
    check: bool = False,
    output: str | Path | None = None,
    measured: str | Path | pd.DataFrame | None = None,
    profiled: str | Path | Profile | None = None,
    progress: bool = True,
) -> Estimate:
    """Estimate what every cell of a plan costs on this CPU (see `ktlslab.estimating`).

    `plan`: quick, standard, full, a file, or a Plan. The arms that run on every kernel are swept here, pinned to one
    CPU; the same arms and the plan's others are profiled in a guest of kernel `on`. `check`: sweep the plan's other
    arms here as well, on a machine that has kTLS, so that estimates stand beside measurements. `output`: NAME.parquet;
    table and profile are kept beside it, as NAME.measured.parquet and NAME.profiled.parquet, and a sweep that was
    interrupted there goes on.

    `measured`, `profiled`: a table and a profile that exist already, to be used instead: all that they share is fitted,
    and all that was profiled is estimated. Such a table should have been swept on one CPU (`taskset -c 0 ktlslab sweep
    --on here`). With `profiled` this machine needs no QEMU, so a guest that runs by the wall clock can be asked, too.

    Raises UsageError (nothing to fit, or table and profile of different suites), MachineError (a CPU clock that is too
    coarse or counts instructions; `check` without kTLS), TableError (`measured` or `profiled` is none), and what
    `sweep` and `profile` raise (GuestError where QEMU is missing or takes no plugins). All that can be known before the
    sweep is found out first. Where estimates are refused, the cells say why.
    """
    require("lab", "pandas", "pyarrow", "numpy", "tqdm")
    _checks.instance(_TRIED, "on", on, str, "a guest's kernel: 6.1, oldest, newest")
    _checks.instance(_TRIED, "check", check, bool)
    plan = named(plan)
    path = table_path(_TRIED, "output", output) if output is not None else None
    if check and measured is None and not capabilities.probe().ktls:
        answered = "this machine's kernel has no kTLS, so estimates cannot be checked against it"
        raise MachineError(_TRIED, answered=answered, remedy="Leave out the check; left-out arms are checked anyway.")
    table = read_table(measured) if isinstance(measured, str | Path) else measured
    if table is not None:
        check_samples(table, _TRIED)
    counted = read_profile(profiled) if isinstance(profiled, str | Path) else profiled
    if counted is None:  # before anything takes minutes
        machine(on, "instructions")
        plugin.option(Path())
    else:
        _checks.instance(_TRIED, "profiled", counted, Profile, "what `ktlslab.profile` returned, or its file")
        _refuse_strangers(_suites(table) if table is not None else {*plan.suites}, counted)
    if table is None:
        _refuse_clock()
        if progress and (said := busy(os.getloadavg()[0], os.cpu_count() or 1)):
            print(said, file=sys.stderr)  # noqa: T201
        rows = beside(path, "measured") if path else None
        unfinished = rows is not None and interrupted(rows)
        with one_cpu():
            table = sweep(here_plan(plan, check=check), "here", output=rows, resume=unfinished, progress=progress)
    if counted is None:
        counts = beside(path, "profiled") if path else None
        counted = profile(guest_plan(plan), on, output=counts, progress=progress)
    found = estimated(table, counted)
    if path:
        found.write(path)
    return found


def busy(load: float, cpus: int) -> str:
    """Say that this machine is busy; "" where it is not. `load`: processes that run or want to (proc_loadavg(5))."""
    said = f"this machine is busy (load {load:.1f} on {cpus} CPUs): errors may be larger; they are found and shown"
    return said if load > _BUSY * cpus else ""


def _suites(table: pd.DataFrame) -> set[str]:
    return {*table["suite"]} - {""}


def _refuse_strangers(suites: set[str], counted: Profile) -> None:
    """Refuse a profile that has none of the suites that are measured here: UsageError."""
    if suites and (theirs := _suites(counted.functions)) and not suites & theirs:
        answered = f"the profile has {', '.join(sorted(theirs))}, and what is measured here {', '.join(sorted(suites))}"
        raise UsageError(_TRIED, answered=answered, remedy="Profile the same plan, or leave the profile out.")


def _refuse_clock() -> None:
    """Refuse a clock with which no sample would have a figure: MachineError."""
    if clocks.current() != "wall":
        answered = "this guest's clock counts instructions, all alike, so there are no nanoseconds to learn from"
        raise MachineError(_TRIED, answered=answered, remedy="Run the guest with `--clock wall`.")
    if (tick := clocks.resolution_ns()) * clocks.MIN_TICKS > MIN_SAMPLE_NS:
        answered = f"this machine's CPU clock advances by {tick / 1e6:g} ms at a time, too coarse for a sample"
        raise MachineError(
            _TRIED, answered=answered, remedy="Estimate on a machine with a finer one: not in a UML guest."
        )


def estimated(table: pd.DataFrame, counted: Profile) -> Estimate:
    """Return the estimate that a table of samples from this CPU and a profile of one machine make."""
    if len(machines := set(counted.functions["machine"])) != 1:
        answered = f"the profile is of {len(machines)} machines"
        raise UsageError(_TRIED, answered=answered, remedy="Estimate from the rows of one machine.")
    ns, counts = observed(table), features(counted.functions)
    _refuse_strangers(_suites(table), counted)
    fitting = ns[ns.index.get_level_values("record_layer").isin(EVERYWHERE)]
    if fitting.empty:
        answered = f"there is nothing to fit: no arm of {', '.join(EVERYWHERE)} was measured"
        raise UsageError(_TRIED, answered=answered, remedy="Sweep these record layers here as well.")
    evidence = Evidence.of(counts, fitting)
    checks, off = left_out(evidence)
    drawn = Drawn.of(evidence, counts.columns)
    cells = predict(counts, drawn, off, checks).reset_index()
    keys = pd.MultiIndex.from_frame(cells[list(IDENTITY)])
    measured = ns.groupby(list(IDENTITY)).sum().reindex(keys).to_numpy()
    userspace = cells.assign(ns=measured)[cells["record_layer"] == "userspace"]
    shared = [name for name in IDENTITY if name != "record_layer"]
    theirs = cells[shared].merge(userspace[[*shared, "ns"]], "left", shared)["ns"].to_numpy()
    first = counted.functions.iloc[0]
    cells = cells.assign(
        kind=[FITTED if layer in EVERYWHERE else ESTIMATE for layer in cells["record_layer"]],
        unit=UNIT,
        machine=first["machine"],
        kernel=first["kernel"],
        instructions=_instructions(counted.functions).reindex(keys).to_numpy(),
        measured_ns=measured,
        measured_ratio=measured / theirs,
    )[list(CELLS)]
    return Estimate(
        cells=cells,
        weights=drawn.table(),
        checks=checks,
        notes=said_of(table) + _differing(table.attrs["provenance"], counted.provenance),
        runs={"measured": dict(table.attrs["provenance"]), "profiled": dict(counted.provenance)},
    )


def _differing(measured: dict[str, Any], profiled: dict[str, Any]) -> list[str]:
    """Return a sentence for each thing that table and profile should have in common and have not."""
    found = []
    for words, name in (("ktlslab's commit", "commit"), ("Python", "python"), ("the peer's OpenSSL", "peer_openssl")):
        theirs = [sorted({str(run.get(name)) for run in runs.values()}) for runs in (measured, profiled)]
        if theirs[0] != theirs[1]:
            found.append(f"{words} is {', '.join(theirs[0])} in the table and {', '.join(theirs[1])} in the profile.")
    return found


def _instructions(functions: pd.DataFrame) -> pd.Series:
    return functions.groupby(list(IDENTITY))["instructions"].sum()


def here_plan(plan: Plan, *, check: bool) -> Plan:
    """Return the plan to sweep here: the arms that run everywhere, and the plan's others if they are to be checked."""
    repeats = max(plan.repeats, MIN_REPEATS)
    return _with(plan, RECORD_LAYERS if check else EVERYWHERE, name=f"{plan.name}, here", repeats=repeats)


def guest_plan(plan: Plan) -> Plan:
    """Return the plan to profile: the arms that run everywhere, and the plan's others."""
    return _with(plan, RECORD_LAYERS, name=f"{plan.name}, in a guest", repeats=1)


def _with(plan: Plan, allowed: tuple[str, ...], *, name: str, repeats: int) -> Plan:
    """Return a plan with the record layers that run everywhere and its own as far as allowed, and no more blocks."""
    also = [
        {**part, "record_layers": kept}
        for part in plan.also
        if (kept := tuple(layer for layer in part.get("record_layers", plan.record_layers) if layer in allowed))
    ]
    return replace(
        plan,
        name=name,
        record_layers=tuple(dict.fromkeys((*EVERYWHERE, *(one for one in plan.record_layers if one in allowed)))),
        also=(*also, *_siblings(plan)),
        control="userspace+syscall",
        repeats=repeats,
        max_repeats=0,
        precision=0.0,
        handicap="",
    )


def _siblings(plan: Plan) -> list[Mapping[str, Any]]:
    """Return further products: a second suite for each cipher that only one suite has, so that each can be left out."""
    have = Counter(family(suite) for suite in plan.suites)
    lone = [suite for suite in plan.suites if have[family(suite)] == 1]
    others = {
        suite: next((one.name for one in Suite if one.name != suite and family(one.name) == family(suite)), "")
        for suite in lone
    }
    suites = tuple(other for other in others.values() if other)
    return [{"record_layers": EVERYWHERE[1:], "suites": suites, "workloads": plan.workloads[:1]}] if suites else []


@contextlib.contextmanager
def one_cpu() -> Iterator[int]:
    """Pin this thread, and the processes that it starts, to one CPU meanwhile; the value is its number."""
    before = os.sched_getaffinity(0)
    chosen = max(before)
    os.sched_setaffinity(0, {chosen})
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)
