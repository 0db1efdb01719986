"""Whatever is called in whatever order, where the kernel makes the records: see tests/model."""

from __future__ import annotations

import os

import pytest
from model.running import run

SECONDS = float(os.environ.get("KTLSLAB_MODEL_SECONDS", "20"))
TIMEOUT_S = 0.6  # the CPU is an emulated one


@pytest.mark.timeout(SECONDS + 600)
def test_no_sequence_of_calls_breaks_the_contract(record_property):
    record_property("model", run(["kernel", "kernel-tx", "kernel-rx"], SECONDS, timeout=TIMEOUT_S, first_seed=1))
