"""What a check says of an answer: right, wrong and what is wrong, or not answered yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ktlslab.show.html import LINE, markup


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


def mistake(answer: bytes | bytearray, known: Mapping[bytes, str], otherwise: str) -> Verdict:
    """Return what is said of a wrong answer: of a mistake that is known, or else of any."""
    return wrong(known.get(bytes(answer), otherwise))
