"""The printed matrix: a row per fault, with one outcome where all places agree, otherwise the places of each.

python -m tests.matrix.table RESULTS    print what the tests recorded in RESULTS/*.xml, a file for each kernel
"""
# ruff: noqa: T201 - a command prints

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

Place = tuple[str, ...]  # kernel, record layer, I/O engine, role
HERE = ("here", "this machine")


class Table:
    """Collects outcomes by `add`; `str` gives the table."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[Place, set[str]]] = {}

    def add(self, kernel: str, fault: str, *place_and_outcome: str) -> None:
        """Add an outcome: kernel, fault, record layer, I/O engine, role, outcome."""
        *place, outcome = place_and_outcome
        self._seen.setdefault(fault, {}).setdefault((kernel, *place), set()).add(outcome)

    def __bool__(self) -> bool:
        return bool(self._seen)

    def __str__(self) -> str:
        width = max(map(len, self._seen), default=0)
        return "\n".join(f"{fault.ljust(width)}  {_told(cells)}" for fault, cells in self._seen.items())


def _told(cells: dict[Place, set[str]]) -> str:
    """Say the commonest outcome, then where others were seen."""
    outcomes = {place: " or ".join(sorted(seen)) for place, seen in cells.items()}
    counted = Counter(outcomes.values()).most_common()
    words = [counted[0][0]]
    for outcome, _ in counted[1:]:
        words.append(f"{outcome} ({_named([place for place in outcomes if outcomes[place] == outcome], outcomes)})")
    return "; ".join(words)


def _named(places: list[Place], every: dict[Place, str]) -> str:
    """Name places by the dimensions in which they are not all that there are."""
    words = []
    for names, all_names in zip(zip(*places, strict=True), zip(*every, strict=True), strict=True):
        if set(names) != set(all_names):
            words.append("/".join(dict.fromkeys(names)))
    return " ".join(words) or "at times"


def read(results: Path) -> Table:
    """Return the outcomes in pytest's reports, which are named after the kernels."""
    table = Table()
    for path in sorted(results.glob("*.xml"), key=lambda path: (path.stem != HERE[0], path.stem)):
        try:
            properties = ET.parse(path).getroot().iter("property")  # noqa: S314 - written by our own run
        except (OSError, ET.ParseError):
            continue
        kernel = HERE[1] if path.stem == HERE[0] else path.stem
        for item in properties:
            if item.get("name") == "matrix":
                table.add(kernel, *item.get("value", "").split("|"))
    return table


if __name__ == "__main__":
    print(read(Path(sys.argv[1])))
