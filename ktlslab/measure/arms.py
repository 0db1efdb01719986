"""The client's half of a measurement: an arm's open connections, and one sample on them.

Every arm does the same work in the same steps. Both ends check the payload, outside the timed part. The kernel shows
who made the records: its sequence numbers must have moved, or, where a session claims userspace, the socket must not
have the tls module.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import Any

from ktlslab.errors import KtlsLabError
from ktlslab.linux.perf import count_syscalls
from ktlslab.linux.ring import Ring
from ktlslab.measure.channels import Channel, LeftOut, Ports, open_channel
from ktlslab.measure.meters import Meters
from ktlslab.measure.plan import Cell, Setting
from ktlslab.measure.rows import Around, Timed, bare, row_of
from ktlslab.measure.statistics import percentile
from ktlslab.measure.steps import Round
from ktlslab.measure.warmup import Warm, warm_up
from ktlslab.runs import clocks, provenance

__all__ = ["LeftOut", "OpenArm", "Ports", "check"]

LEAD = 2  # steps of a timed round that run before its clocks are read
WARM_UP = 4  # a round of the warm-up is a quarter of the work
# How far a round's median step may differ from the best one before and still count as steady, by clock.
TOLERANCE = {"instructions": 0.01, "wall": 0.05}
WARM_UP_SHARE = 32  # under the wall clock a warm-up round lasts at least this part of a sample
MAX_BYTES = 32 << 20  # of a sample under the wall clock: the receiver keeps them for the checksum

# System calls per operation. They do not depend on the suite, and counting them takes tens of milliseconds.
_syscalls: dict[tuple[str, str, str, Setting], float] = {}


class OpenArm:
    """The open connections of a record layer, an I/O engine and a suite.

    MachineError where this machine cannot do what the cell asks for; LeftOut where a sweep should continue without it.
    """

    def __init__(self, cell: Cell, ports: Ports) -> None:
        self._stack = contextlib.ExitStack()
        self._channels: list[Channel] = []
        self._last: dict[Setting, float] = {}  # the median step of the last sample
        self.took: list[int] = []  # the last sample's steps, in the clock's unit
        self.pid = os.getpid()  # of the process that is measured
        self._tolerance = TOLERANCE[clocks.current()]
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            ring = self._stack.enter_context(Ring()) if cell.io_engine == "uring" and cell.connections > 1 else None
            for _ in range(cell.connections):
                channel = open_channel(cell, ports, ring)
                self._stack.callback(channel.close)
                self._channels.append(channel)
            self._driver = provenance.driver_of(cell.suite) if channel.kernel else ""
            undo.pop_all()

    def sample(
        self,
        cell: Cell,
        steps: int,
        min_ns: int = 0,
        handicap: float = 0.0,
        around: Around = bare,
    ) -> dict[str, Any]:
        """Time one sample, and return its row's figures.

        It has more than `steps` timed steps where those would take less than `min_ns` nanoseconds. A `handicap` of 0.03
        makes each timed step 3 % longer by spinning, which the analysis must then find. `around` is called with the
        timed part: it calls it and returns its result.
        """
        alike = (cell.record_layer, cell.io_engine, cell.tls_version, cell.setting)
        warm = self._warm_up(cell, steps, min_ns)
        if alike not in _syscalls:
            _syscalls[alike] = self._count_syscalls(cell, steps)
        if min_ns:
            steps = max(steps, _lasting(cell, min_ns / warm.step))
        spin = round(handicap * warm.step)
        timed = Round(self._channels, cell, steps, spin=spin, lead=LEAD)
        with Meters(self._channels) as meters:
            start = time.perf_counter_ns()
            self.took = took = around(timed.run)
            elapsed = time.perf_counter_ns() - start
        report = timed.settle()
        self._last[cell.setting] = percentile(took, 50) - spin
        done = Timed(
            took=took,
            elapsed=elapsed,
            meters=meters,
            used=self._channels,
            report=report,
            warm=warm,
            syscalls=_syscalls[alike],
        )
        return row_of(cell, done, self._channels, self._driver)

    def close(self) -> None:
        self._stack.close()

    def _warm_up(self, cell: Cell, steps: int, min_ns: int) -> Warm:
        """Run short rounds until this arm is as fast as it gets, or as fast as in its last sample."""

        def median_of(size: int) -> float:
            work = Round(self._channels, cell, size)
            step = percentile(work.run(), 50)
            work.settle()
            return step

        def lasting(step: float) -> int:
            return _lasting(cell, min_ns / WARM_UP_SHARE / step) if min_ns else 1

        best = self._last.get(cell.setting, math.inf)
        return warm_up(median_of, max(1, steps // WARM_UP), best, self._tolerance, lasting)

    def _count_syscalls(self, cell: Cell, steps: int) -> float:
        """Count system calls per operation, in a round that is not timed: counting slows each call."""
        work = Round(self._channels, cell, steps, lead=LEAD)
        with count_syscalls() as counted:
            work.run()
        work.settle()
        return counted.count / (steps * cell.operations_per_step)


def _lasting(cell: Cell, wanted: float) -> int:
    """Return `wanted` steps rounded up to a power of two, limited by MAX_BYTES."""
    most = max(1, MAX_BYTES // (cell.payload_bytes * cell.operations_per_step))
    return min(1 << max(0, math.ceil(wanted) - 1).bit_length(), most)


def check(row: dict[str, Any]) -> None:
    """Refuse a sample without proof: KtlsLabError says which part of it is missing."""
    tried = f"measuring {row['record_layer']}+{row['io_engine']}, {row['payload_bytes']} bytes {row['workload']}"
    if not row["payload_ok"]:
        raise KtlsLabError(tried, answered="the payload's checksum differs at the other end", remedy="Report this.")
    if row["record_layer_observed"] != row["record_layer"]:
        answered = f"the record layer that did the work was {row['record_layer_observed']}"
        remedy = "Check whether another program uses kTLS in this network namespace."
        raise KtlsLabError(tried, answered=answered, remedy=remedy)
