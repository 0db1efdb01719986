"""Whatever is called in whatever order, whatever the peer does: each call does what it says, or says why not.

KTLSLAB_MODEL_SECONDS says for how long; `python tests/model` runs it by itself.
"""

from __future__ import annotations

import os

import pytest
from model.running import run

SECONDS = float(os.environ.get("KTLSLAB_MODEL_SECONDS", "20"))


@pytest.mark.timeout(SECONDS + 600)  # a fault is shrunk
def test_no_sequence_of_calls_breaks_the_contract(record_property):
    record_property("model", run(["plain", "userspace"], SECONDS, first_seed=1))
