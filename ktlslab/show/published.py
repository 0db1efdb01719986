"""Published figures beside ours, where the setting can be built here: sign and order, never the size.

Others measured time, on silicon, through a network card; here instructions are counted, on loopback. So a figure of
theirs and one of ours are never put on one axis: what is compared is whether kernel records cost less, as much or more,
and in what order. A claim names its source, the arms that stand for it here, and the rule that decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.measure.analysis import QUANTITIES, Contrast, effects
from ktlslab.measure.plan import Arm
from ktlslab.profiling.comparison import compared
from ktlslab.profiling.frames import Profile
from ktlslab.show.html import Lines
from ktlslab.show.names import size_name
from ktlslab.show.signmap import signed

if TYPE_CHECKING:
    import pandas as pd

    from ktlslab.estimating.frames import Estimate

ALIKE = 0.05  # a difference that is called none in a publication without intervals
FALLS, SAME, LESS, NOT_LESS = "falls with size", "no change", "costs less", "costs no less"
_MAX_REASONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What somebody published. `theirs`: their figures in their words. `rule`: what ours must do to agree.

    `of`, `over`: the arms that stand for it. `end`: whose instructions count, "" for both ends'.
    """

    source: str
    setting: str
    theirs: str
    rule: str
    of: str
    over: str
    workload: str
    payloads: tuple[int, ...]
    end: str = ""

    @property
    def quantity(self) -> str:
        return f"{self.end}_cpu" if self.end else "throughput_bytes_per_unit"

    @property
    def ours(self) -> str:
        """What stands for it here, in words."""
        what = f"{self.end}'s instructions" if self.end else "bytes per instruction"
        return f"{self.of} over {self.over}, {self.workload}: {what}"


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
        end="client",
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
        end="client",
    ),
    Claim(
        source="MDA2AV/HttpArena#1447",
        setting="the same, and the kernel opens the records that are received: requests per second",
        theirs="-3 %; on large echoes no difference",
        rule=NOT_LESS,
        of="kernel+uring",
        over="kernel-tx+uring",
        workload="echo",
        payloads=(4096, 16384),
        end="client",
    ),
    Claim(
        source="dotnet/runtime#125110",
        setting="an HTTP client receives 64 KB, kernel records both ways: requests per second",
        theirs="0 % to -14 % (HTTP/1.1), -40 % (HTTP/2)",
        rule=NOT_LESS,
        of="kernel+syscall",
        over="userspace+syscall",
        workload="download",
        payloads=(65536,),
        end="client",
    ),
)


def beside(
    frame: pd.DataFrame, profile: Profile, estimate: Estimate | None = None, claims: Sequence[Claim] = CLAIMS
) -> Lines:
    """Show each claim, what the table says of it, whether they agree, and by the profile why.

    `estimate`: where it has the claim's cells, a column says what they would take on its CPU. UsageError where table or
    profile lack a cell of a claim.
    """
    _checks.instance("comparing with what was published", "profile", profile, Profile, "ktlslab.read_profile")
    found = effects(frame, sorted({claim.quantity for claim in claims}), asked=[_asked(claim) for claim in claims])
    rows, said = [], estimate is not None and any(_estimated(claim, estimate) for claim in claims)
    for claim in claims:
        ours = _cells(found, claim)
        row = [f"{claim.source}\n{claim.rule}", claim.setting, claim.theirs, claim.ours, _figures(claim, ours)]
        row += [_estimated(claim, estimate) or "not estimated"] if said and estimate else []
        rows.append((*row, "agrees" if agrees(claim, ours) else "disagrees", why(claim, profile)))
    head = ["published", "there", "theirs", "what stands for it here", "ours, counted"]
    head += ["ESTIMATED on silicon, not measured"] if said else []
    return Lines(head=(*head, "", "where the difference is, in instructions per operation"), rows=rows)


def _asked(claim: Claim) -> Contrast:
    return Contrast(claim.source, (claim.of,), (claim.over,), claim.rule)


def _cells(found: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    """Return the effects that stand for a claim, a row per payload in their order."""
    rows = found[
        (found["effect"] == claim.source)
        & (found["workload"] == claim.workload)
        & (found["quantity"] == claim.quantity)
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
    noise = {"none": " (noise)"}
    said = [f"{signed(ratio)} %{noise.get(verdict, '')} at {size_name(int(size))}" for size, ratio, verdict in cells]
    return f"{QUANTITIES[claim.quantity][0]} {', '.join(said)}"


def _estimated(claim: Claim, estimate: Estimate) -> str:
    """Return the estimated ratios of the claim's cells, of both ends together; "" where one is lacking."""
    cells = estimate.cells[estimate.cells["workload"] == claim.workload].set_index(
        ["record_layer", "io_engine", "payload_bytes", "suite"]
    )["estimate_ns"]
    said = []
    for size in claim.payloads:
        pair = []
        for name in (claim.of, claim.over):
            arm = Arm.named(name)
            suite = "" if arm.record_layer == "plain" else "TLS_AES_256_GCM_SHA384"
            pair.append(cells.get((arm.record_layer, arm.io_engine, size, suite), float("nan")))
        ratio = pair[1] / pair[0] if claim.rule == FALLS else pair[0] / pair[1]
        if ratio != ratio:  # noqa: PLR0124 - not a number: no such cell, or it was refused
            return ""
        said.append(f"{ratio:.2f}" if claim.rule == FALLS else f"{signed(ratio)} %")
    return ", ".join(said)


def why(claim: Claim, profile: Profile) -> str:
    """Say in which classes the difference of a claim's arms is, at its smallest and largest payload."""
    lines = []
    for size in dict.fromkeys((claim.payloads[0], claim.payloads[-1])):
        ours, theirs = (
            {"record_layer": arm.record_layer, "io_engine": arm.io_engine, "payload_bytes": size}
            | {"workload": claim.workload}
            | ({"end": claim.end} if claim.end else {})
            for arm in map(Arm.named, (claim.of, claim.over))
        )
        functions = compared(profile, profile, a_only=theirs, b_only=ours).functions
        lines.append(f"{size_name(size)}: {_reasons(functions)}")
    return "\n".join(lines)


def _reasons(functions: pd.DataFrame) -> str:
    by = functions.groupby(["class", "mode"])["difference"].sum()
    largest = by.reindex(by.abs().sort_values(ascending=False).index).head(_MAX_REASONS)
    said = [
        f"{_count(row['difference'])} {row['class']} ({row['mode']})" for _, row in largest.reset_index().iterrows()
    ]
    return f"{_count(by.sum())}: {', '.join(said)}"


def _count(value: float) -> str:
    return f"{value:+,.0f}".replace("-", "\N{MINUS SIGN}")
