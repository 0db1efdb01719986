"""The client's half of a measurement: an arm's open session, and one sample on it.

Every arm does the same work through the same `Stream`. The payload is checked at both ends, outside the timed part. Who
made the records is not believed but read off: the kernel's own sequence numbers must have moved by what was sent, and a
session that claims userspace must not have the tls module on its socket.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktlslab.errors import KtlsLabError, MachineError
from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.measure import peer
from ktlslab.measure.clocks import Cpu
from ktlslab.measure.plan import DIRECTIONS, Cell
from ktlslab.measure.statistics import percentile
from ktlslab.session import Session, open_session
from ktlslab.stages import ClientConfig
from ktlslab.tls.suites import Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the peer listens, and the authority it is to be trusted by."""

    plain: int
    secure: int
    ca: Path


WARM_UP = 4  # before each sample a quarter of its work runs unmeasured


class Arm:
    """One open session of a record layer, an I/O engine and a suite."""

    def __init__(self, cell: Cell, ports: Ports) -> None:
        self.layer = cell.record_layer
        config = ClientConfig(ca=ports.ca, suites=(Suite[cell.suite],)) if cell.suite else None
        self.session: Session = open_session(
            "127.0.0.1",
            ports.plain if cell.record_layer == "plain" else ports.secure,
            config=config,
            record_layer=cell.record_layer,  # type: ignore[arg-type]  # the plan has checked it
            io_engine=cell.io_engine,  # type: ignore[arg-type]
            timeout=60,
        )
        if self.session.why:
            self.session.close()
            why = " and ".join(why.value for why in self.session.why)
            remedy = "Measure on a machine that can: `--on newest` boots one; `ktlslab doctor` says what is missing."
            tried = f"opening {cell.record_layer}+{cell.io_engine} with {cell.suite or 'no TLS'}"
            raise MachineError(tried, answered=why, remedy=remedy)

    def sample(self, cell: Cell, bursts: int) -> dict[str, Any]:
        """Time one sample. Latencies and CPU are per operation, in the clock's unit."""
        stream = self.session.stream
        direction = DIRECTIONS.index(cell.direction)
        one = peer.payload(cell.payload_bytes)
        operations = bursts * cell.burst
        mark = bytearray(1)
        received = peer.room_for(0 if cell.direction == "upload" else cell.payload_bytes * operations)
        for count in (max(1, bursts // WARM_UP), bursts):
            stream.send(peer.REQUEST.pack(direction, cell.payload_bytes, cell.burst, count))
            stream.recv_exactly(mark)
            records = self._records()
            cpu = Cpu.read()
            start = time.perf_counter_ns()
            steps = _STEPS[cell.direction](stream, one, cell.burst, count, received)
            elapsed = time.perf_counter_ns() - start
            spent = Cpu.read() - cpu
            moved = {way: number - records[way] for way, number in self._records().items()}
            report = bytearray(peer.REPORT.size)
            stream.recv_exactly(report)
        peer_total, _, _, crc = peer.REPORT.unpack(report)
        expected = peer.crc_of(one, operations)
        ok = crc == expected if cell.direction == "upload" else zlib.crc32(received) == expected
        if cell.direction == "echo":
            ok = ok and crc == expected
        latencies = [step / cell.burst for step in steps]
        return {
            "operations": operations,
            "burst": cell.burst,
            "elapsed": elapsed,
            "latency_p50": percentile(latencies, 50),
            "latency_p99": percentile(latencies, 99),
            "latency_min": min(latencies),
            "latency_max": max(latencies),
            "throughput_bytes_per_unit": cell.payload_bytes * operations / elapsed,
            "client_cpu": spent.total / operations,
            "client_user": spent.user / operations,
            "client_system": spent.system / operations,
            "peer_cpu": peer_total / operations,
            "kernel_tx_records": moved.get(Direction.TX, 0),
            "kernel_rx_records": moved.get(Direction.RX, 0),
            "tls_stat_tx": self.session.counters["TlsTxSw"],
            "tls_stat_rx": self.session.counters["TlsRxSw"],
            "record_layer_observed": self._observed(moved),
            "payload_ok": ok,
        }

    def close(self) -> None:
        self.session.close()

    def _records(self) -> dict[Direction, int]:
        """Read the kernel's sequence numbers, for the directions it says it has keys for."""
        sock = self.session.stream.connection.socket
        if self.session.suite is None or not ktls.attached(sock):
            return {}
        found = {}
        for way in Direction:
            if self.session.stream.layers[way] == "kernel":
                found[way] = ktls.sequence_number(sock, way, self.session.suite.cipher.kernel_type)
        return found

    def _observed(self, moved: dict[Direction, int]) -> str:
        """Say who made the records, from what the kernel shows."""
        tx, rx = (moved.get(way, 0) > 0 for way in (Direction.TX, Direction.RX))
        tx = tx and self.session.counters["TlsTxSw"] > 0
        rx = rx and self.session.counters["TlsRxSw"] > 0
        if tx and rx:
            return "kernel"
        if tx or rx:
            return "kernel-tx" if tx else "kernel-rx"
        if ktls.attached(self.session.stream.connection.socket):
            return "none"  # the kernel has the socket, but did nothing
        # The peer's port decides: one takes nothing but TLS, the other nothing but plain TCP.
        return "plain" if self.session.suite_name is None else "userspace"


def _echo(stream: Any, one: memoryview, _burst: int, bursts: int, room: memoryview) -> list[int]:
    steps = []
    size = len(one)
    for at in range(0, size * bursts, size):
        start = time.perf_counter_ns()
        stream.send(one)
        stream.recv_exactly(room[at : at + size])
        steps.append(time.perf_counter_ns() - start)
    return steps


def _upload(stream: Any, one: memoryview, burst: int, bursts: int, _room: memoryview) -> list[int]:
    steps = []
    mark = bytearray(1)
    for _ in range(bursts):
        start = time.perf_counter_ns()
        for _ in range(burst):
            stream.send(one)
        stream.recv_exactly(mark)
        steps.append(time.perf_counter_ns() - start)
    return steps


def _download(stream: Any, one: memoryview, burst: int, bursts: int, room: memoryview) -> list[int]:
    steps = []
    size = len(one) * burst
    for at in range(0, size * bursts, size):
        start = time.perf_counter_ns()
        stream.send(peer.MARK)
        stream.recv_exactly(room[at : at + size])
        steps.append(time.perf_counter_ns() - start)
    return steps


_STEPS = {"echo": _echo, "upload": _upload, "download": _download}


def check(row: dict[str, Any]) -> None:
    """Refuse a sample without proof: KtlsLabError says which part of it is missing."""
    tried = f"measuring {row['record_layer']}+{row['io_engine']}, {row['payload_bytes']} bytes {row['direction']}"
    if not row["payload_ok"]:
        raise KtlsLabError(tried, answered="the payload's checksum differs at the other end", remedy="Report this.")
    if row["record_layer_observed"] != row["record_layer"]:
        answered = f"the record layer that did the work was {row['record_layer_observed']}"
        raise KtlsLabError(tried, answered=answered, remedy="Does another program use kTLS in this network namespace?")
