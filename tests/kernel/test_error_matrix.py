"""No fault of a peer takes the process with it where the kernel makes the records: see tests/error_matrix.py."""

from __future__ import annotations

import pytest

TIMES = 1  # the CPU is an emulated one


@pytest.mark.timeout(300)
def test_every_fault_is_an_error_again_and_again_and_never_a_crash(error_matrix):
    assert error_matrix(TIMES, "kernel") >= 20 * TIMES
