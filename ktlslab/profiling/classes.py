"""The class of a function: who, in the words of a network engineer, executed its instructions. classes.txt decides."""

from __future__ import annotations

import functools
import re
from fnmatch import translate
from pathlib import Path
from typing import NamedTuple

from ktlslab.tls.suites import Suite

USER, KERNEL = "user", "kernel"
OTHER = "other"
INTERRUPTS = "interrupts"
AEAD = "AEAD"
_TABLE = Path(__file__).with_name("classes.txt")


class Rule(NamedTuple):
    """A line of the table."""

    mode: str
    name: str
    objects: re.Pattern[str]
    functions: re.Pattern[str]


@functools.cache
def rules() -> tuple[Rule, ...]:
    """Return the table."""
    lines = (line for line in _TABLE.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#")
    return tuple(
        Rule(mode, name, _pattern(objects), _pattern(functions))
        for mode, name, objects, functions in ([part.strip() for part in line.split("|")] for line in lines)
    )


def _pattern(words: str) -> re.Pattern[str]:
    # A bracket is a bracket: [vdso] is a name.
    return re.compile("|".join(translate(word.replace("[", "[[]")) for word in words.split()))


@functools.cache
def class_of(mode: str, where: str, function: str) -> str:
    """Return the class of a function. `where`: `kernel`, a kernel module or a file of user code."""
    for rule in rules():
        if rule.mode == mode and rule.objects.match(where) and rule.functions.match(function):
            return rule.name
    return OTHER


def name_of(name: str, suite: str) -> str:
    """Return the name of a class in a cell with this suite: that of AEAD says which."""
    return f"{AEAD} {Suite[suite].cipher.name}" if name == AEAD and suite else name


def in_order() -> list[str]:
    """Return every class, in the table's order."""
    return [*dict.fromkeys(rule.name for rule in rules()), OTHER]
