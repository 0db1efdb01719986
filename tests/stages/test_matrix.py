"""Every fault has one typed outcome on this machine's kernel: see tests/matrix."""

from __future__ import annotations

import pytest

from tests.matrix.cells import Cells, each_on


@pytest.fixture(scope="module")
def cells(request):
    with Cells(request) as cells:
        yield cells


@pytest.mark.timeout(300)
@each_on(("plain", "userspace", "userspace-rustls"))
def test_outcome(cells, record_property, row, layer):
    cells.check(row, layer, record_property)
