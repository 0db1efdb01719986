"""A sample as a row of the table: the same figures for every workload, from what was timed and counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ktlslab.linux.ktls import Direction
from ktlslab.measure.channels import Channel
from ktlslab.measure.meters import Meters
from ktlslab.measure.plan import Cell
from ktlslab.measure.statistics import histogram, percentile
from ktlslab.measure.steps import PeerReport
from ktlslab.measure.warmup import Warm
from ktlslab.runs import clocks

Around = Callable[[Callable[[], list[int]]], list[int]]


def bare(run: Callable[[], list[int]]) -> list[int]:
    """Run a timed part with nothing around it."""
    return run()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A timed round. `took`: units per step. `used`: the channels on which it ran, in the order of the meters'."""

    took: list[int]
    elapsed: int
    meters: Meters
    used: Sequence[Channel]
    report: PeerReport
    warm: Warm
    syscalls: float


def row_of(cell: Cell, timed: Timed, channels: Sequence[Channel], driver: str) -> dict[str, Any]:
    """Return the figures of a sample. Latencies and CPU are per operation, in the clock's unit.

    `channels`: all that are open. `driver`: the kernel's for the cipher.
    """
    meters, report = timed.meters, timed.report
    operations = len(timed.took) * cell.operations_per_step
    latencies = [step / cell.operations_per_step for step in timed.took]
    observed = {channel.observed(moved) for channel, moved in zip(timed.used, meters.records, strict=True)}
    by_kernel = any(any(moved.values()) for moved in meters.records)
    return {
        "warm_up": timed.warm.steps,
        "steady": timed.warm.steady,
        "operations": operations,
        "operations_per_step": cell.operations_per_step,
        "elapsed": timed.elapsed,
        "latency_p50": percentile(latencies, 50),
        "latency_p99": percentile(latencies, 99),
        "latency_min": min(latencies),
        "latency_max": max(latencies),
        "latency_histogram": histogram(latencies),
        "throughput_bytes_per_unit": cell.payload_bytes * operations / timed.elapsed,
        "client_cpu": clocks.cpu_figure(meters.cpu.total, operations),
        "client_user": meters.cpu.user / operations,
        "client_system": meters.cpu.system / operations,
        "peer_cpu": clocks.cpu_figure(report.cpu.total, operations),
        "peer_user": report.cpu.user / operations,
        "peer_system": report.cpu.system / operations,
        "machine_softirq": meters.softirq / operations,
        "client_syscalls": timed.syscalls,
        "client_cycles": meters.hardware["cycles"] / operations,
        "client_instructions": meters.hardware["instructions"] / operations,
        "client_cache_misses": meters.hardware["cache_misses"] / operations,
        "wire_tx_bytes": meters.wire.tx / operations,
        "wire_rx_bytes": meters.wire.rx / operations,
        "crypto_driver": driver if by_kernel else "",
        "kernel_tx_records": sum(moved.get(Direction.TX, 0) for moved in meters.records),
        "kernel_rx_records": sum(moved.get(Direction.RX, 0) for moved in meters.records),
        "tls_stat_tx": sum(channel.counters["TlsTxSw"] for channel in channels),
        "tls_stat_rx": sum(channel.counters["TlsRxSw"] for channel in channels),
        "record_layer_observed": " and ".join(sorted(observed)),
        "payload_ok": report.ok,
        "session_bytes": math.nan,
        "kernel_session_bytes": math.nan,
    }
