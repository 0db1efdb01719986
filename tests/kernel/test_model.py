"""Whatever is called in whatever order, where the kernel makes the records: see tests/model.

Each kernel has seeds of its own: together they try more sequences than each of them could.
"""

from __future__ import annotations

import os
import re

import pytest
from kinds import USER_MODE
from model.running import run

# With short time-outs a user-mode kernel runs as many sequences in a third of the time as with an emulated CPU's.
SECONDS = float(os.environ.get("KTLSLAB_MODEL_SECONDS", "8"))
TIMEOUT_S = 0.15 if USER_MODE else 0.6
SERIES = [int(part) for part in re.findall(r"\d+", os.uname().release)[:2]]
FIRST_SEED = (SERIES[0] * 1000 + SERIES[1]) * 10_000 + 5_000 * USER_MODE


@pytest.mark.timeout(SECONDS + 600)
def test_no_sequence_of_calls_breaks_the_contract(record_property):
    record_property(
        "model", run(["kernel", "kernel-tx", "kernel-rx"], SECONDS, timeout=TIMEOUT_S, first_seed=FIRST_SEED)
    )
