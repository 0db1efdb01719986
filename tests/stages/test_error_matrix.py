"""No fault of a peer takes the process with it, whoever makes the records: see tests/error_matrix.py.

KTLSLAB_FAULT_TIMES says how many times each combination is met. The crash that this was written for came after seven.
"""

from __future__ import annotations

import os

import pytest

TIMES = int(os.environ.get("KTLSLAB_FAULT_TIMES", "30"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("layer", ["plain", "userspace"])
def test_every_fault_is_an_error_again_and_again_and_never_a_crash(error_matrix, layer):
    assert error_matrix(TIMES, layer) >= 20 * TIMES


def test_a_view_that_c_holds_in_a_cycle_outlives_the_garbage_collector(error_matrix):
    assert error_matrix(1, "pins") == 1
