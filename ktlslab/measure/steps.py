"""The client's half of the timed part: what one step does in each workload, and a round of such steps.

The loops are the same for all arms: one Python frame that makes the channel's calls. A step sends, then receives the
answer. An echo returns what was sent; one byte answers a batch of an upload; one byte asks for a batch of a download.
With several connections a step sends on all of them, then receives on all.
"""

from __future__ import annotations

import atexit
import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from ktlslab.measure import peer
from ktlslab.measure.channels import Channel
from ktlslab.measure.payloads import Room, checksum, crc_of, payload
from ktlslab.measure.plan import Cell
from ktlslab.runs.clocks import Cpu

_REQUESTS = {"echo": peer.ECHO, "upload": peer.UPLOAD, "sendfile": peer.UPLOAD, "download": peer.DOWNLOAD}
_rooms = Room()

Call = Callable[[Any], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerReport:
    """The peers' CPU time in a round, on all connections, and whether every payload arrived intact."""

    cpu: Cpu
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A step: each connection's send call, its argument, how often it is called, and the bytes of the answer."""

    sends: list[Call]
    what: Any
    times: int
    size: int


class Round:
    """A number of steps, agreed on with the peer: `run` them, then `settle`. `spin` adds that many units to each step.

    Both ends do `lead` more steps at once. The first step of a round finds caches and counters in a different state
    than later ones, and few steps would share that cost.
    """

    def __init__(self, channels: Sequence[Channel], cell: Cell, steps: int, *, spin: int = 0, lead: int = 0) -> None:
        self._channels, self._cell, self._steps = channels, cell, lead + steps
        size, batch = cell.payload_bytes, cell.batch
        self._comes_back = cell.workload in {"echo", "download"}
        self._answer = size * batch if self._comes_back else 1
        request = peer.REQUEST.pack(_REQUESTS[cell.workload], size, batch, lead, steps)
        for channel in channels:
            channel.send(request)
        length = self._answer * self._steps
        whole = _rooms.take(length * len(channels))  # while the peers allocate theirs
        self._rooms = [whole[at : at + length] for at in range(0, len(whole), length)]
        self._receives: list[Call] = [channel.receive for channel in channels]
        if spin:
            self._receives[-1] = _slowed(self._receives[-1], spin)
        mark = bytearray(1)
        for channel in channels:
            channel.receive(mark)
        self._work = self._work_of_a_step()
        self._do([room[: self._answer * lead] for room in self._rooms])
        self._timed = [room[self._answer * lead :] for room in self._rooms]

    def run(self) -> list[int]:
        """Do the steps; return how long each took, in the clock's unit."""
        return self._do(self._timed)

    def _do(self, rooms: list[memoryview]) -> list[int]:
        if len(rooms) > 1:
            return _everywhere(self._work, self._receives, rooms)
        if self._work.times > 1:
            return _batch(self._work, self._receives[0], rooms[0])
        return _exchange(self._work, self._receives[0], rooms[0])

    def settle(self) -> PeerReport:
        """Get the peers' reports, and compare what was received with what was sent."""
        size = self._cell.payload_bytes
        expected = crc_of(size)
        for channel in self._channels:
            channel.send(peer.MARK)
        if self._comes_back:
            ok = all(checksum(room, size) == expected for room in self._rooms)
        else:
            ok = all(bytes(room) == peer.MARK * self._steps for room in self._rooms)
        total = user = system = 0
        report = bytearray(peer.REPORT.size)
        for channel in self._channels:
            channel.receive(report)
            one_total, one_user, one_system, crc = peer.REPORT.unpack(report)
            total, user, system = total + one_total, user + one_user, system + one_system
            ok = ok and (crc == expected or self._cell.workload == "download")
        return PeerReport(cpu=Cpu(total, user, system), ok=ok)

    def _work_of_a_step(self) -> Work:
        cell, channels, size = self._cell, self._channels, self._answer
        one = payload(cell.payload_bytes)
        if cell.workload == "download":
            return Work(sends=[channel.send for channel in channels], what=peer.MARK, times=1, size=size)
        if cell.workload == "sendfile":
            count = cell.payload_bytes
            sends = [_whole(channel.send_file, count) for channel in channels]
            return Work(sends=sends, what=_file(count), times=cell.batch, size=size)
        if cell.depth > 1:
            many: list[Call] = [channel.send_many for channel in channels]
            return Work(sends=many, what=[one] * cell.batch, times=1, size=size)
        return Work(sends=[channel.send for channel in channels], what=one, times=cell.batch, size=size)


def _exchange(work: Work, receive: Call, room: memoryview) -> list[int]:
    (send,), what, size = work.sends, work.what, work.size
    took = []
    for at in range(0, len(room), size):
        start = time.perf_counter_ns()
        send(what)
        receive(room[at : at + size])
        took.append(time.perf_counter_ns() - start)
    return took


def _batch(work: Work, receive: Call, room: memoryview) -> list[int]:
    (send,), what, times, size = work.sends, work.what, work.times, work.size
    took = []
    for at in range(0, len(room), size):
        start = time.perf_counter_ns()
        for _ in range(times):
            send(what)
        receive(room[at : at + size])
        took.append(time.perf_counter_ns() - start)
    return took


def _everywhere(work: Work, receives: list[Call], rooms: list[memoryview]) -> list[int]:
    sends, what, times, size = work.sends, work.what, work.times, work.size
    ends = list(zip(receives, rooms, strict=True))
    took = []
    for at in range(0, len(rooms[0]), size):
        start = time.perf_counter_ns()
        for _ in range(times):
            for send in sends:
                send(what)
        for receive, room in ends:
            receive(room[at : at + size])
        took.append(time.perf_counter_ns() - start)
    return took


def _slowed(receive: Call, spin: int) -> Call:
    """Return `receive` followed by `spin` units of busy waiting: a step ends with its last answer."""

    def slowed(buffer: Any) -> None:
        receive(buffer)
        until = time.perf_counter_ns() + spin
        while time.perf_counter_ns() < until:
            pass

    return slowed


def _whole(send_file: Callable[[BinaryIO, int, int], object], count: int) -> Call:
    return lambda file: send_file(file, 0, count)


@functools.cache
def _file(size: int) -> BinaryIO:
    """Return a file of the payload in memory (memfd_create(2)), so no disk is measured. It is open until exit."""
    file = os.fdopen(os.memfd_create("ktlslab-payload"), "w+b")
    atexit.register(file.close)
    file.write(payload(size))
    file.flush()
    return file
