"""Published figures beside ours, where the setting can be built here: sign and order, never the size.

Others measured time, on silicon, through a network card; here instructions are counted, on loopback. So a figure of
theirs and one of ours are never put on one axis: what is compared is whether kernel records cost less, as much or more,
and in what order. A claim names its source, the arms that stand for it here, and the rule that decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.measure.analysis import Contrast, effects
from ktlslab.measure.plan import Arm
from ktlslab.packages import extra
from ktlslab.profiling.classes import AEAD
from ktlslab.profiling.comparison import compared
from ktlslab.profiling.frames import Profile
from ktlslab.show.doubts import BINDING
from ktlslab.show.html import Lines
from ktlslab.show.names import size_name
from ktlslab.show.signmap import signed

with extra("lab"):
    import pandas as pd

if TYPE_CHECKING:
    from ktlslab.estimating.frames import Estimate

ALIKE = 0.05  # a difference that is called none in a publication without intervals
FALLS, SAME, LESS, NOT_LESS = "it falls with size", "no change", "it costs less", "it costs no less"
EXACT = 0.01  # a difference of two profiles that is called none: they have no noise, but a cell has one session
_MAX_REASONS = 3
_QUANTITY = "client_cpu"
_SUITE = "TLS_AES_256_GCM_SHA384"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What somebody published. `theirs`: their figures in their words. `rule`: what ours must do to agree.

    `of`, `over`: the arms that stand for it. The client's instructions count: the peer is OpenSSL's in every arm.
    """

    source: str
    setting: str
    theirs: str
    rule: str
    of: str
    over: str
    workload: str
    payloads: tuple[int, ...]

    @property
    def ours(self) -> str:
        """What stands for it here, in words."""
        what = "bytes per instruction" if self.rule == FALLS else "instructions"
        return f"{self.of} over {self.over}, {self.workload}: {what} of the client"


# Gbit/s of kTLS and of TCP at 1, 4, 16 and 64 KiB, MTU 1500: https://github.com/lxin/quic, README.md.
_IPERF = ((2.16, 2.49), (5.04, 8.36), (7.84, 15.1), (7.95, 16.2))
CLAIMS = (
    Claim(
        source="lxin/quic, README",
        setting="iperf, 100 Gbit/s card, MTU 1500: throughput of kTLS over that of TCP at 1, 4, 16, 64 KiB",
        theirs=", ".join(f"{tls / tcp:.2f}" for tls, tcp in _IPERF),
        rule=FALLS,
        of="kernel+syscall",
        over="plain+syscall",
        workload="upload",
        payloads=(1024, 4096, 16384, 65536),
    ),
    Claim(
        source="h2o/h2o#3201",
        setting="a server sends files of 10 MB on 1000 connections: core clocks per byte sent",
        theirs="no meaningful difference",
        rule=SAME,
        of="kernel-tx+syscall",
        over="userspace+syscall",
        workload="upload",
        payloads=(65536,),
    ),
    Claim(
        source="MDA2AV/HttpArena#1444",
        setting="small answers by io_uring, the kernel makes the records that are sent: requests per second",
        theirs="+15.5 %, +8.5 %",
        rule=LESS,
        of="kernel-tx+uring",
        over="userspace+uring",
        workload="echo",
        payloads=(4096, 16384),
    ),
    Claim(
        source="MDA2AV/HttpArena#1447",
        setting="the same, and the kernel opens the records that are received: requests per second",
        theirs="\N{MINUS SIGN}3 %; on large echoes no difference",
        rule=NOT_LESS,
        of="kernel+uring",
        over="kernel-tx+uring",
        workload="echo",
        payloads=(4096, 16384),
    ),
    Claim(
        source="dotnet/runtime#125110",
        setting="an HTTP client receives 64 KB, kernel records both ways: requests per second",
        theirs="0 % to \N{MINUS SIGN}14 % (HTTP/1.1), \N{MINUS SIGN}40 % (HTTP/2)",
        rule=NOT_LESS,
        of="kernel+syscall",
        over="userspace+syscall",
        workload="download",
        payloads=(65536,),
    ),
)


def beside(
    frame: pd.DataFrame, profile: Profile, estimate: Estimate | None = None, claims: Sequence[Claim] = CLAIMS
) -> Lines:
    """Show each claim, what table and profile say of it, whether they agree, and where the difference is.

    The profile also says it without the interpreter and our C, which no program but ours has. `estimate`: where it has
    a claim's cells, a column says what they would take on its CPU. UsageError where table or profile lack a cell.
    """
    _checks.instance("comparing with what was published", "profile", profile, Profile, "ktlslab.read_profile")
    found = effects(frame, [_QUANTITY], asked=[_asked(claim) for claim in claims])
    estimates = {claim: _estimated(claim, estimate) if estimate else "" for claim in claims}
    rows = []
    for claim in claims:
        ours, bare = _cells(found, claim), unbound(claim, profile)
        row = [
            f"{claim.source}\n{claim.setting}:\n{claim.theirs}",
            claim.ours,
            _judged(claim, ours),
            _judged(claim, bare),
        ]
        row += [estimates[claim] or "not estimated"] if any(estimates.values()) else []
        rows.append((*row, why(claim, profile)))
    head = ["published", "what stands for it here", "counted", "without interpreter and our C"]
    head += ["ESTIMATED on silicon, not measured"] if any(estimates.values()) else []
    return Lines(head=(*head, "the difference, in instructions per operation"), rows=rows)


def _judged(claim: Claim, ours: pd.DataFrame) -> str:
    return f"{_figures(claim, ours)}\n{'agrees' if agrees(claim, ours) else 'disagrees'}: {claim.rule}"


def _asked(claim: Claim) -> Contrast:
    """Return the cost of one arm over the other's; for a claim on throughput, the inverse."""
    of, over = (claim.over, claim.of) if claim.rule == FALLS else (claim.of, claim.over)
    return Contrast(claim.source, (of,), (over,), claim.rule)


def _cells(found: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    """Return the effects that stand for a claim, a row per payload in their order."""
    rows = found[
        (found["effect"] == claim.source)
        & (found["workload"] == claim.workload)
        & found["payload_bytes"].isin(claim.payloads)
    ].sort_values("payload_bytes")
    if len(rows) != len(claim.payloads):
        tried = f"comparing with {claim.source}"
        answered = f"the table has {len(rows)} of {len(claim.payloads)} cells of {claim.ours}"
        raise UsageError(tried, answered=answered, remedy="Sweep data/field.toml on one machine.")
    return rows


def agrees(claim: Claim, ours: pd.DataFrame) -> bool:
    """Whether our figures do what the claim says; what is not above the noise counts as no difference."""
    ratios, verdicts = ours["ratio"], ours["verdict"]
    if claim.rule == FALLS:
        return bool(ratios.is_monotonic_decreasing and (ratios < 1).all())
    if claim.rule == SAME:
        return bool(((ratios - 1).abs() <= ALIKE).all())
    return bool((verdicts == "less").all()) if claim.rule == LESS else bool((verdicts != "less").all())


def _figures(claim: Claim, ours: pd.DataFrame) -> str:
    if claim.rule == FALLS:
        return ", ".join(f"{ratio:.2f}" for ratio in ours["ratio"])
    cells = zip(ours["payload_bytes"], ours["ratio"], ours["verdict"], strict=True)
    noise = {"none": " (none)"}
    return "\n".join(f"{signed(ratio)} %{noise.get(word, '')} at {size_name(int(size))}" for size, ratio, word in cells)


def _estimated(claim: Claim, estimate: Estimate) -> str:
    """Return the estimated ratios of the claim's cells, of both ends together; "" where one is lacking."""
    cells = estimate.cells[estimate.cells["workload"] == claim.workload].set_index(
        ["record_layer", "io_engine", "payload_bytes", "suite"]
    )["estimate_ns"]
    said = []
    for size in claim.payloads:
        pair = []
        for arm in map(Arm.named, (claim.of, claim.over)):
            suite = "" if arm.record_layer == "plain" else _SUITE
            pair.append(cells.get((arm.record_layer, arm.io_engine, size, suite), math.nan))
        ratio = pair[1] / pair[0] if claim.rule == FALLS else pair[0] / pair[1]
        if math.isnan(ratio):  # no such cell, or it was refused
            return ""
        said.append(f"{ratio:.2f}" if claim.rule == FALLS else f"{signed(ratio)} %")
    return ", ".join(said)


def _functions(claim: Claim, profile: Profile, size: int) -> pd.DataFrame:
    """Return the client's functions in both arms, `of` as B and `over` as A."""
    rows = profile.functions
    rows = rows[(rows["payload_bytes"] == size) & (rows["workload"] == claim.workload) & (rows["end"] == "client")]
    rows.attrs = {}  # or each step would copy the provenance
    cell = replace(profile, functions=rows)
    theirs, ours = (
        {"record_layer": arm.record_layer, "io_engine": arm.io_engine} for arm in map(Arm.named, (claim.over, claim.of))
    )
    return compared(cell, cell, a_only=theirs, b_only=ours).functions


def unbound(claim: Claim, profile: Profile) -> pd.DataFrame:
    """Return the ratios of a claim's arms, by payload, without what the interpreter and our C execute."""
    rows = []
    for size in claim.payloads:
        functions = _functions(claim, profile, size)
        sums = functions.loc[~functions["class"].isin(BINDING), ["instructions_a", "instructions_b"]].sum()
        ratio = sums["instructions_b"] / sums["instructions_a"]
        ratio = 1 / ratio if claim.rule == FALLS else ratio
        verdict = "none" if abs(ratio - 1) < EXACT else "less" if ratio < 1 else "more"
        rows.append({"payload_bytes": size, "ratio": ratio, "verdict": verdict})
    return pd.DataFrame(rows)


def why(claim: Claim, profile: Profile) -> str:
    """Say in which classes the difference of a claim's arms is, at its smallest and largest payload."""
    sizes = dict.fromkeys((claim.payloads[0], claim.payloads[-1]))
    return "\n".join(f"{size_name(size)}: {_reasons(_functions(claim, profile, size))}" for size in sizes)


def _reasons(functions: pd.DataFrame) -> str:
    named = functions["class"].where(~functions["class"].str.startswith(AEAD), AEAD)
    by = functions.groupby([named, "mode"])["difference"].sum()
    largest = by.reindex(by.abs().sort_values(ascending=False).index).head(_MAX_REASONS)
    said = [
        f"{_count(row['difference'])} {row['class']} ({row['mode']})" for _, row in largest.reset_index().iterrows()
    ]
    return f"{_count(by.sum())}: {', '.join(said)}"


def _count(value: float) -> str:
    return f"{value:+,.0f}".replace("-", "\N{MINUS SIGN}")
