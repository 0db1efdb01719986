"""No fault of a peer takes the process with it where the kernel makes the records: see tests/matrix."""

from __future__ import annotations

import pytest


@pytest.mark.timeout(300)
def test_every_fault_is_an_error_and_never_a_crash(debug_allocator):
    """Each once, as the CPU is an emulated one."""
    said = debug_allocator("tests.matrix", "--collect", "--brief", 0.05, "--rows", "peer_faults", "--thin", "kernel")
    assert "0 with another outcome" in said
