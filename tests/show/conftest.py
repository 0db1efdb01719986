"""A small table that is true to the schema and made up, for what draws and compares."""

from __future__ import annotations

import itertools

import pytest

from ktlslab.measure.table import COLUMNS, to_frame

SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
COST = {"plain": (36_000, 1.2), "userspace": (105_000, 18.0), "kernel": (88_000, 17.0)}


def made_up(*, unit="instructions", payloads=(64, 1024, 16384, 262144), layers=tuple(COST), repeats=3, suites=SUITES):
    rows = []
    places = itertools.product(("echo", "upload", "download"), payloads, layers, ("syscall", "uring"), range(repeats))
    for direction, payload, layer, engine, repeat in places:
        fixed, each = COST.get(layer, COST["kernel"])
        for at, suite in enumerate(suites if layer != "plain" else ("",)):
            cost = (fixed + each * payload * (1 + at / 4)) * (1.1 if engine == "uring" else 1)
            cost *= (1 + repeat / 50) * (0.3 if direction != "echo" else 1)
            row = {name: kind() for name, kind, _ in COLUMNS}
            row |= {"run_id": "r1", "machine": "7.3", "kernel": "7.3.4-test", "unit": unit}
            row |= {"clock": "instructions" if unit == "instructions" else "wall", "record_layer": layer}
            row |= {"io_engine": engine, "suite": suite, "tls_version": "TLS 1.3" if suite else ""}
            row |= {"payload_bytes": payload, "direction": direction, "depth": 1, "connections": 1, "repeat": repeat}
            row |= {"latency_p50": cost, "latency_p99": cost * 1.3, "latency_min": cost, "latency_max": cost * 2}
            row |= {"throughput_bytes_per_unit": payload / cost, "client_cpu": cost * 0.5, "peer_cpu": cost * 0.4}
            row |= {"record_layer_observed": layer, "payload_ok": True, "operations": 32, "burst": 1}
            rows.append(row)
    return to_frame(rows, {"r1": {"emulated": True}})


@pytest.fixture(scope="session")
def frame():
    return made_up()


@pytest.fixture(scope="session")
def make_frame():
    return made_up
