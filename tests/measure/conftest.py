"""A plan that is small enough for a test, with arms that any kernel can run."""

import pytest

from ktlslab.measure.plan import Plan


@pytest.fixture
def small() -> Plan:
    return Plan(
        name="small",
        record_layers=("plain", "userspace"),
        suites=("TLS_AES_128_GCM_SHA256",),
        payloads=(64, 16384),
        repeats=2,
        steps=4,
    )
