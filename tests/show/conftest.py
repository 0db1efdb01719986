"""A table that is true to the schema and made up, so that what draws and compares is held against known figures.

Arms differ by factors that are known, blocks by a drift that hits all arms alike. So ratios within blocks are exact,
unless `noise` is asked for: a seeded one, a share of each figure.
"""

from __future__ import annotations

import itertools
import random

import pytest

from ktlslab.measure.table import SCHEMA, to_frame

SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
COST = {"plain": (36_000, 1.2), "userspace": (105_000, 18.0), "kernel": (88_000, 17.0)}
KERNEL = ("7.3", "7.3.4-test")
FREE = {"client_cycles", "client_instructions", "client_cache_misses"}  # no counter in this machine


def made_up(
    *,
    unit="instructions",
    payloads=(64, 1024, 16384, 262144),
    layers=tuple(COST),
    repeats=3,
    suites=SUITES,
    workloads=("echo", "upload", "download"),
    kernels=(KERNEL,),
    depths=(1,),
    control=False,
    noise=0.0,
):
    """Make a table. `control`: kernel+uring has an equal arm in the first suite. A later kernel is a tenth cheaper."""
    chance = random.Random(7)  # noqa: S311 - figures, no secrets
    rows = []
    cells = itertools.product(enumerate(kernels), workloads, payloads, layers, ("syscall", "uring"), depths)
    for (age, (machine, kernel)), workload, payload, layer, engine, depth in cells:
        fixed, each = COST.get(layer, COST["kernel"])
        for (at, suite), repeat in itertools.product(enumerate(suites if layer != "plain" else ("",)), range(repeats)):
            for replica in range(2 if control and (layer, engine, at) == ("kernel", "uring", 0) else 1):
                cost = (fixed + each * payload * (1 + at / 4)) * (1.1 / depth**0.5 if engine == "uring" else 1)
                cost *= (1 + repeat / 50) * (0.3 if workload != "echo" else 1) * 0.9**age
                cost *= 1 + chance.uniform(-noise, noise)
                row = {name: kind() for name, kind, _ in SCHEMA} | dict.fromkeys(FREE, float("nan"))
                row |= {"run_id": f"r{age + 1}", "host": "bench", "machine": machine, "kernel": kernel, "unit": unit}
                row |= {"clock": "instructions" if unit == "instructions" else "wall", "record_layer": layer}
                row |= {"io_engine": engine, "suite": suite, "tls_version": "TLS 1.3" if suite else ""}
                row |= {"payload_bytes": payload, "workload": workload, "depth": depth, "connections": 1}
                row |= {
                    "repeat": repeat,
                    "record_size": 16384,
                    "request_bytes": 0,
                    "link": "loopback",
                    "replica": replica,
                }
                row |= {"latency_p50": cost, "latency_p99": cost * 1.3, "latency_min": cost, "latency_max": cost * 2}
                row |= {"latency_histogram": [[int(cost), 98], [int(cost * 1.3), 1], [int(cost * 2), 1]]}
                row |= {"throughput_bytes_per_unit": payload / cost, "client_cpu": cost * 0.5, "peer_cpu": cost * 0.4}
                row |= {"client_user": cost * 0.2, "client_system": cost * 0.3}
                row |= {"peer_user": cost * 0.1, "peer_system": cost * 0.3, "machine_softirq": cost * 0.05}
                row |= {"client_syscalls": 2.0 if engine == "syscall" else 1.0}
                extra = 22.0 if suite else 0.0
                row |= {
                    "wire_tx_bytes": payload + extra,
                    "wire_rx_bytes": (payload if workload == "echo" else 0) + extra,
                }
                row |= {"record_layer_observed": layer, "payload_ok": True, "steady": True, "warm_up": 8}
                row |= {"operations": 32, "operations_per_step": depth, "elapsed": int(cost * 32)}
                rows.append(row)
    return to_frame(rows, {f"r{age + 1}": {"emulated": True} for age in range(len(kernels))})


@pytest.fixture(scope="session")
def frame():
    return made_up()


@pytest.fixture(scope="session")
def make_frame():
    return made_up


@pytest.fixture(scope="session")
def drawn(measured):
    """Draw all that a frame with two kernels and two depths allows."""
    from ktlslab.show import plots

    return plots.figures(measured)


@pytest.fixture(scope="session")
def measured():
    """Give a small table with all that a report shows: two kernels, two depths, an A/A arm, noise."""
    return made_up(
        payloads=(64, 16384),
        suites=SUITES[:2],
        workloads=("echo", "upload"),
        kernels=(("6.1", "6.1.0-test"), KERNEL),
        depths=(1, 16),
        repeats=5,
        control=True,
        noise=0.004,
    )
