"""What a check says of an answer: right, wrong and what is wrong, or not answered yet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from typing import SupportsFloat

from ktlslab.show.html import LINE, Picture, markup, table

Claims = Mapping[str, tuple[str, bool, str]]  # by name: what is said, whether it is so, and why


class Mark(Enum):
    """The verdict in a word, with its sign and its colour, which shows on light and dark pages."""

    RIGHT = ("Right", "✓", "rgba(0,158,115,0.24)")
    WRONG = ("Wrong", "✗", "rgba(213,94,0,0.28)")
    OPEN = ("Not answered yet", "…", "rgba(128,128,128,0.14)")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found, and why."""

    mark: Mark
    said: str

    def _repr_html_(self) -> str:
        word, sign, colour = self.mark.value
        return (
            f'<div style="background-color:{colour};border:1px solid {LINE};border-radius:4px;padding:0.4em 0.8em;'
            f'max-width:62em;line-height:1.45"><b>{sign} {word}.</b> {markup(self.said)}</div>'
        )

    def __repr__(self) -> str:
        return f"{self.mark.value[0]}. {self.said}"


def right(said: str) -> Verdict:
    return Verdict(Mark.RIGHT, said)


def wrong(said: str) -> Verdict:
    return Verdict(Mark.WRONG, said)


def unanswered(*answers: object) -> Verdict | None:
    """Return a verdict where any answer is still `...`, else None."""
    if any(answer is ... for answer in answers):
        return Verdict(Mark.OPEN, "Put your answer in place of the three dots and run the cell again.")
    return None


def not_bytes(answer: object, size: int, name: str = "The answer") -> Verdict | None:
    """Return what is wrong with an answer that should be `size` bytes, None where it is that."""
    if isinstance(answer, str):
        return wrong(f"{name} is text. Bytes are written b'...', or bytes.fromhex('...') from hexadecimal digits.")
    if isinstance(answer, int):
        return wrong(f"{name} is a number. number.to_bytes(8, 'big') makes bytes of it.")
    if not isinstance(answer, bytes | bytearray):
        return wrong(f"{name} is of type {type(answer).__name__}; it should be {size} bytes.")
    if len(answer) != size:
        return wrong(f"{name} has {len(answer)} bytes and not {size}.")
    return None


def not_number(answer: object, name: str = "The answer") -> Verdict | None:
    """Return what is wrong with an answer that should be a whole number, None where it is one."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        return None
    if isinstance(answer, bytes | bytearray):
        return wrong(f"{name} is bytes; a number is asked for. int.from_bytes(data, 'big') makes one of them.")
    return wrong(f"{name} is of type {type(answer).__name__}; it should be a whole number.")


def sentence(*parts: str) -> str:
    """Return parts as one sentence, separated by semicolons; nothing for parts that are empty."""
    said = "; ".join(filter(None, parts))
    return f"{said[:1].upper()}{said[1:]}."


def mistake(answer: bytes | bytearray, known: Mapping[bytes, str], otherwise: str) -> Verdict:
    """Return what is said of a wrong answer: of a mistake that is known, or else of any."""
    return wrong(known.get(bytes(answer), otherwise))


def not_figure(answer: object, name: str = "The answer") -> Verdict | None:
    """Return what is wrong with an answer that should be a number, whole or not; None where it is one."""
    if isinstance(answer, SupportsFloat) and not isinstance(answer, bool | str) and math.isfinite(_float(answer)):
        return None
    return wrong(f"{name} is of type {type(answer).__name__}; it should be a number.")


def near(answer: object, wanted: float, share: float = 0.002) -> bool:
    """Return whether a figure is the wanted one, but for its last digits."""
    return isinstance(answer, SupportsFloat) and math.isclose(_float(answer), wanted, rel_tol=share, abs_tol=1e-9)


def figure(answer: object, known: Mapping[str, float], otherwise: str) -> Verdict:
    """Return what is said of a wrong figure: `known` maps what is said to the figure that a mistake leads to."""
    return wrong(next((said for said, value in known.items() if near(answer, value)), otherwise))


def listed(claims: Claims, head: str) -> Picture:
    """Show claims by their names, without saying which are true."""
    rows = [(name, said) for name, (said, _, _) in claims.items()]
    return Picture(table(("", head), rows), "\n".join(": ".join(row) for row in rows))


def judged(claims: Claims, answer: object) -> Verdict:
    """Check a choice of those claims that are true, by their names, and say of each wrong one why."""
    if verdict := unanswered(answer):
        return verdict
    if isinstance(answer, str | bytes | bytearray) or not isinstance(answer, AbstractSet | Sequence):
        return wrong(f"The answer is of type {type(answer).__name__}. Give names in braces: {{'a', 'b'}}.")
    if unknown := [one for one in answer if one not in list(claims)]:
        return wrong(f"There is no {unknown[0]!r}; there are {', '.join(claims)}.")
    faults = [f"{name}: {why}" for name, (_, true, why) in claims.items() if (name in answer) != true]
    if faults:
        return wrong("\n".join([f"{len(claims) - len(faults)} of {len(claims)} are judged right.", *faults]))
    return right("\n".join(f"{name}: {why}" for name, (_, _, why) in claims.items()))


def _float(answer: SupportsFloat) -> float:
    try:
        return float(answer)
    except (ValueError, OverflowError, TypeError):
        return math.nan
