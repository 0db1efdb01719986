"""Every fault has one typed outcome where the kernel makes the records: see tests/matrix."""

from __future__ import annotations

import pytest

from tests.matrix.cells import Cells, each_on
from tests.matrix.rows import KERNEL

AT_ONCE = 3  # on an emulated CPU, rows also wait for each other


@pytest.fixture(scope="module")
def cells(request):
    with Cells(request, thin=True, at_once=AT_ONCE) as cells:
        yield cells


@pytest.mark.timeout(600)
@each_on(KERNEL)
def test_outcome(cells, record_property, row, layer):
    cells.check(row, layer, record_property)
