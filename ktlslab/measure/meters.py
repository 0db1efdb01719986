"""The counters of the kernel and the hardware, read before and after the timed part, in addition to the clocks.

Wire bytes come from TCP itself (struct tcp_info in linux/tcp.h). They include TLS headers and tags, but not TCP and IP
headers and not retransmissions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ktlslab.linux import tcpinfo
from ktlslab.linux.interrupts import interrupt_time_ns
from ktlslab.linux.ktls import Direction
from ktlslab.linux.perf import HardwareCounters
from ktlslab.measure.channels import Channel
from ktlslab.runs.clocks import Cpu


@dataclass(frozen=True, slots=True, kw_only=True)
class WireBytes:
    """Bytes of TCP payload since the connections were opened."""

    tx: int
    rx: int

    @classmethod
    def read(cls, channels: Sequence[Channel]) -> WireBytes:
        tx = rx = 0
        for channel in channels:
            sent, received = tcpinfo.moved(channel.socket)
            tx, rx = tx + sent, rx + received
        return cls(tx=tx, rx=rx)

    def __sub__(self, before: WireBytes) -> WireBytes:
        return WireBytes(tx=self.tx - before.tx, rx=self.rx - before.rx)


class Meters:
    """A context manager around the timed part; afterwards its attributes hold what changed.

    `records`: the kernel's sequence numbers, a mapping per channel. `hardware`, `softirq`: NaN where not available.
    """

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._channels = channels
        self.records: list[dict[Direction, int]] = []
        self.wire = WireBytes(tx=0, rx=0)
        self.softirq = math.nan
        self.hardware: dict[str, float] = {}
        self.cpu = Cpu(0, 0, 0)

    def __enter__(self) -> Self:
        self._records = [channel.records() for channel in self._channels]
        self._wire = WireBytes.read(self._channels)
        self._hardware = HardwareCounters()
        self._softirq = interrupt_time_ns()
        self._counts = self._hardware.read()
        self._cpu = Cpu.read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cpu = Cpu.since(self._cpu)
        counts = self._hardware.read()
        self._hardware.close()
        self.hardware = {name: count - self._counts[name] for name, count in counts.items()}
        if error:
            return
        softirq = interrupt_time_ns()
        if softirq is not None and self._softirq is not None:
            self.softirq = float(softirq - self._softirq)
        self.wire = WireBytes.read(self._channels) - self._wire
        for channel, before in zip(self._channels, self._records, strict=True):
            self.records.append({one: number - before[one] for one, number in channel.records().items()})
