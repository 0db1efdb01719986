"""The matrix as pytest's tests: one per row and record layer, which runs with every engine, role and variant."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from tests.matrix import ROWS
from tests.matrix.rows import Row
from tests.matrix.running import Runner, right


def each_on(layers: Iterable[str]) -> pytest.MarkDecorator:
    """Parametrize `row` and `layer`."""
    cells = [(row, layer) for row in ROWS for layer in layers if layer in row.layers]
    return pytest.mark.parametrize(("row", "layer"), cells, ids=[f"{row.name}-{layer}" for row, layer in cells])


def check(row: Row, layer: str, runner: Runner, record: Callable[[str, object], None], *, thin: bool = False) -> None:
    """Run a row on a layer, record the outcomes for the printed table, and fail where they are not as expected."""
    wrong = []
    for place in row.places(layer, thin=thin):
        outcome = runner.run(row, place)
        record("matrix", f"{row.name}|{layer}|{place.engine}|{place.role}|{outcome}")
        if not right(row, place, outcome):
            wrong.append(f"{place}: {outcome}, not: {row.outcome_at(place)}")
    assert not wrong, "\n".join(wrong)
