"""Every fault has one typed outcome where the kernel makes the records: see tests/matrix."""

from __future__ import annotations

import pytest

from tests.matrix.cells import check, each_on
from tests.matrix.rows import KERNEL
from tests.matrix.running import Runner


@pytest.fixture(scope="module")
def runner():
    with Runner() as runner:
        yield runner


@pytest.mark.timeout(300, method="thread")  # the matrix has its own limit, which uses the alarm
@each_on(KERNEL)
def test_outcome(runner, record_property, row, layer):
    check(row, layer, runner, record_property, thin=True)
