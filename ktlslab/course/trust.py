"""Notebook 10's exercises: what a clock adds, an estimate by weights, and what no count shows.

made()                     a copy that two CPUs count, and a profile with weights; made up
counted(given, with, without)   kernel over userspace, as each CPU counts it
estimated(given, answer)   nanoseconds from instructions and weights
claims()                   five differences
believable(answer)         which of them to believe
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.course.verdicts import Verdict, figure, judged, listed, near, not_figure, right, unanswered, wrong
from ktlslab.packages import extra
from ktlslab.show.html import table

with extra("lab"):
    import pandas as pd

if TYPE_CHECKING:
    from ktlslab.show.html import Picture

PAYLOAD_BYTES, VECTOR_BYTES = 16_384, 32
_COPIES = {"userspace": 2, "kernel": 1}
_CLAIMS = {
    "a": ("a difference smaller than the noise floor, at every payload", False, "two equal arms differ by as much."),
    "b": ("fewer system calls per operation", True, "counted; what one costs is for your CPU to say."),
    "c": ("a saving that appears only with erms", False, "it is the clock's: it changes sign with the emulated CPU."),
    "d": ("fewer bytes copied, on both emulated CPUs", True, "real, and to be weighed: its price is your CPU's."),
    "e": ("no gain from a card that encrypts", False, "there was no card, so nothing is known of it."),
}


@dataclass(frozen=True, slots=True)
class Given:
    """`other`: instructions per operation that copy nothing, of either arm. `profile`: instructions and weights."""

    other: int
    profile: pd.DataFrame

    def _repr_html_(self) -> str:
        rows = [
            (str(kind), f"{line['instructions']:,.0f}", f"{line['ns_each']:.2f}")
            for kind, line in self.profile.iterrows()
        ]
        head = ("class", "instructions or calls", "ns each")
        return f"<div>given.other is {self.other:,}. given.profile:{table(head, rows, numbers=(1, 2))}</div>"

    def __repr__(self) -> str:
        return f"Given(other={self.other}, {len(self.profile)} classes)"


def made(seed: int | None = None) -> Given:
    """Return new figures, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - figures, no secrets
    rows = [
        ("cipher", chance.randrange(60_000, 90_000), round(chance.uniform(0.06, 0.12), 2)),
        ("kernel", chance.randrange(30_000, 50_000), round(chance.uniform(0.4, 0.7), 2)),
        ("interpreter", chance.randrange(4_000, 9_000), round(chance.uniform(0.15, 0.35), 2)),
        ("system calls", chance.randrange(2, 7), float(chance.randrange(150, 400))),
    ]
    profile = pd.DataFrame(rows, columns=["class", "instructions", "ns_each"]).set_index("class")
    return Given(chance.randrange(30_000, 60_000), profile)


def counted(given: Given, loaded: object, bare: object) -> Verdict:
    """Check kernel over userspace with erms, where a copied byte is an instruction, and without it, where 32 are."""
    other = _given(given).other
    verdict = (
        unanswered(loaded, bare) or not_figure(loaded, "The ratio with erms") or not_figure(bare, "The ratio without")
    )
    if verdict:
        return verdict
    told, wanted = (loaded, bare), [_ratio(other, each) for each in (1, VECTOR_BYTES)]
    fit = [near(one, of) for one, of in zip(told, wanted, strict=True)]
    if all(fit):
        return right(
            f"{wanted[0]:.3f} and {wanted[1]:.3f}: the same work. With erms the arm that copies more looks dear."
        )
    if near(loaded, wanted[1]) and near(bare, wanted[0]):
        return wrong("These are swapped: with erms each byte is counted.")
    first = fit.index(False)
    known = {
        "it leaves out given.other": 0.5,
        "it copies as often in both arms": 1.0,
        "upside down: userspace over the kernel": 1 / wanted[first],
    }
    why = next((f": {said}" for said, value in known.items() if near(told[first], value)), "")
    said = [f"{'right' if ok else 'wrong'} {name}" for ok, name in zip(fit, ("with erms", "without"), strict=True)]
    return wrong(f"The ratios are {' and '.join(said)}{why}.")


def estimated(given: Given, answer: object) -> Verdict:
    """Check the time of one operation in nanoseconds: each class by its own weight, added."""
    profile = _given(given).profile
    if verdict := unanswered(answer) or not_figure(answer):
        return verdict
    costs = profile["instructions"] * profile["ns_each"]
    wanted, instructions = float(costs.sum()), profile["instructions"].iloc[:-1]
    if near(answer, wanted):
        share = instructions["cipher"] / instructions.sum()
        time = costs["cipher"] / wanted
        return right(f"{wanted:,.0f} ns. The cipher is {share:.0%} of the instructions and {time:.0%} of the time.")
    known = {
        "This is the sum of the instructions, without weights.": float(instructions.sum()),
        "The system calls are missing: each costs more than the instructions that it executes.": float(
            costs.iloc[:-1].sum()
        ),
        "This takes the mean of the weights for all. Each class has its own.": float(
            profile["instructions"].sum() * profile["ns_each"].mean()
        ),
        "This divides by the weights. They are nanoseconds for each, so multiply.": float(
            (profile["instructions"] / profile["ns_each"]).sum()
        ),
        "This is in microseconds.": wanted / 1000,
    }
    return figure(answer, known, "Multiply each class by its weight, and add.")


def claims() -> Picture:
    """Show five differences that somebody reports."""
    return listed(_CLAIMS, "reported")


def believable(answer: object) -> Verdict:
    """Check which of the `claims` are to be believed."""
    return judged(_CLAIMS, answer)


def _ratio(other: int, bytes_each: int) -> float:
    """Return kernel over userspace where one instruction copies so many bytes."""
    kernel, userspace = (other + _COPIES[arm] * PAYLOAD_BYTES / bytes_each for arm in ("kernel", "userspace"))
    return kernel / userspace


def _given(given: Given) -> Given:
    return _checks.instance("checking an answer", "given", given, Given, "ktlslab.course.trust.made")
