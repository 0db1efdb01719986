"""No fault of a peer takes the process with it: the matrix again and again under a debug allocator, see tests/matrix.

KTLSLAB_FAULT_TIMES says how many times each place is run. The crash that this was written for came after seven.
"""

from __future__ import annotations

import os

import pytest

TIMES = int(os.environ.get("KTLSLAB_FAULT_TIMES", "30"))
OPTIONS = ("--times", TIMES, "--brief", 0.002, "--rows", "peer_faults", "--thin")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("layer", ["plain", "userspace"])
def test_every_fault_is_an_error_again_and_again_and_never_a_crash(debug_allocator, layer):
    said = debug_allocator("tests.matrix", *OPTIONS, layer)
    assert int(said.splitlines()[-1].split()[0]) >= 20 * TIMES


def test_a_view_that_c_holds_in_a_cycle_outlives_the_garbage_collector(debug_allocator):
    assert debug_allocator("tests.matrix.pins", 3) == "3 rings forgotten\n"
