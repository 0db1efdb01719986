"""The printed matrix: a row per fault, with one outcome where all places agree, otherwise the places of each."""

from __future__ import annotations

from collections import Counter

DIMENSIONS = 4  # kernel, record layer, I/O engine, role


class Table:
    """Collects outcomes by `add`; `str` gives the table."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[tuple[str, ...], set[str]]] = {}

    def add(self, kernel: str, fault: str, *place_and_outcome: str) -> None:
        """Add an outcome: kernel, fault, record layer, I/O engine, role, outcome."""
        *place, outcome = place_and_outcome
        self._seen.setdefault(fault, {}).setdefault((kernel, *place), set()).add(outcome)

    def __bool__(self) -> bool:
        return bool(self._seen)

    def __str__(self) -> str:
        width = max(map(len, self._seen), default=0)
        return "\n".join(f"{fault.ljust(width)}  {_told(cells)}" for fault, cells in self._seen.items())


def _told(cells: dict[tuple[str, ...], set[str]]) -> str:
    """Say the commonest outcome, then where others were seen."""
    outcomes = {place: " or ".join(sorted(seen)) for place, seen in cells.items()}
    counted = Counter(outcomes.values()).most_common()
    words = [counted[0][0]]
    for outcome, _ in counted[1:]:
        words.append(f"{outcome} ({_places([p for p, o in outcomes.items() if o == outcome], list(outcomes))})")
    return "; ".join(words)


def _places(places: list[tuple[str, ...]], every: list[tuple[str, ...]]) -> str:
    """Name places by the fewest words: a dimension in which nothing is left out is not mentioned."""
    words = []
    for at in range(DIMENSIONS):
        named = dict.fromkeys(place[at] for place in places)
        if len(named) < len({place[at] for place in every}):
            words.append("/".join(named))
    return " ".join(words) or "in part"
