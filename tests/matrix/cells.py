"""The matrix as pytest's tests: one per row and record layer, which runs with every engine, role and variant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool

import pytest

from ktlslab._closing import Closing
from tests.handpeer import RUSTLS
from tests.matrix import ROWS
from tests.matrix.rows import Row
from tests.matrix.running import AT_ONCE, Crew


def each_on(layers: Iterable[str]) -> pytest.MarkDecorator:
    """Parametrize `row` and `layer`."""
    cells = [(row, layer) for row in ROWS for layer in layers if layer in row.layers]
    return pytest.mark.parametrize(("row", "layer"), cells, ids=[f"{row.name}-{layer}" for row, layer in cells])


class Cells(Closing):
    """Runs the rows of all tests of a module that were chosen, many at once, before the first of them looks."""

    def __init__(self, request: pytest.FixtureRequest, *, thin: bool = False, at_once: int = AT_ONCE) -> None:
        self._crew = Crew(at_once)
        chosen = (item for item in request.session.items if getattr(item, "module", None) is request.module)
        cells = (item.callspec.params for item in chosen if hasattr(item, "callspec"))
        self._seen = {
            (cell["row"].name, cell["layer"]): self._crew.start(
                cell["row"], cell["layer"], thin=thin or cell["layer"].endswith(RUSTLS)
            )
            for cell in cells
        }

    def close(self) -> None:
        self._crew.close()

    def check(self, row: Row, layer: str, record: Callable[[str, object], None]) -> None:
        """Record the outcomes of a row on a layer for the printed table, and fail where they are not as expected."""
        try:
            seen = self._seen[row.name, layer].result()
        except BrokenProcessPool:
            pytest.fail("a process that ran this row or another one died: see what it printed", pytrace=False)
        for one in seen:
            record("matrix", f"{row.name}|{layer}|{one.engine}|{one.role}|{one.outcome}")
        wrong = [one.wrong for one in seen if one.wrong]
        assert not wrong, "\n".join(wrong)
