"""The contestants: the C program, ktlslab's `Stream` on either engine, and each layer below it.

Each opens its own connection to the same peer, installs the same made-up keys, and moves the same payload. All buffers
begin on a page boundary and are in memory. A quarter of the work is warm-up. No handshake is needed: `install` and
`Stream` are ktlslab's, only the keys are made up. The peer is part of the C program, with blocking calls and kernel TLS
as well: the cheaper the peer, the more ktlslab's own cost shows in a ratio.

Runs in a guest.
"""

from __future__ import annotations

import json
import struct
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.measure.peer import payload, room_for
from ktlslab.measure.statistics import percentile
from ktlslab.stages import BOTH, Stream, TrafficKeys, connect, install
from ktlslab.stages.keys import DirectionKeys, Secret
from ktlslab.tls.suites import Suite

SUITE = Suite.TLS_AES_256_GCM_SHA384
WORKLOADS = ("echo", "upload", "sends", "replies", "receives")  # reference.c has the same ones, in this order
REQUEST = struct.Struct("=IIII")
PAUSE_S = 0.005  # for all data to arrive; costs nothing where instructions are counted
WARM_UP = 4
TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of a run: `steps` times `batch` operations of `size` bytes."""

    workload: str
    size: int
    batch: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures per operation: the median time and the CPU; and the record counts that prove the path."""

    step: float
    cpu: float
    sent: int
    received: int


class Contestant(Protocol):
    def run(self, work: Work, port: int) -> Figures: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The C program, with one of its engines."""

    program: Path
    engine: str

    def run(self, work: Work, port: int) -> Figures:
        argv = [self.program, "client", "kernel", self.engine, port, *asdict(work).values()]
        done = subprocess.run([*map(str, argv)], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        if done.returncode:
            raise RuntimeError(f"reference.c, {work}: {done.stderr}")
        return Figures(**json.loads(done.stdout))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """ktlslab's Stream, or a layer of `layers.py` below it; `batched` sends a batch with one call."""

    engine: str
    layer: Any = None
    batched: bool = False

    def run(self, work: Work, port: int) -> Figures:
        with open_stream(port, self.engine) as stream:
            one, room = payload(work.size), room_for(work.size * work.batch * work.steps)
            calls = self.layer(stream, one, room[: work.size]) if self.layer else None
            for steps in (max(1, work.steps // WARM_UP), work.steps):
                stream.send(REQUEST.pack(WORKLOADS.index(work.workload), work.size, work.batch, steps))
                if calls:
                    took, cpu = layer_steps(calls, stream, work, steps)
                else:
                    took, cpu = stream_steps(stream, one, room, work, steps, batched=self.batched)
            if work.workload == "echo" and bytes(room) != bytes(one) * (len(room) // work.size):
                raise RuntimeError(f"{self}, {work}: other bytes came back")
            sent, received = (records(stream, direction) for direction in (Direction.TX, Direction.RX))
        return Figures(step=percentile(took, 50), cpu=cpu / (work.batch * work.steps), sent=sent, received=received)


def stream_steps(
    stream: Stream, one: memoryview, room: memoryview, work: Work, steps: int, *, batched: bool
) -> tuple[list[float], int]:
    """Do echoes or uploads like `measure.arms`; return each batch's time per operation, and the CPU of all."""
    took, batch, clock = [], work.batch, time.perf_counter_ns
    size, many, cost = work.size * batch, [one] * batch, clock_cost()
    parts = [room[at : at + size] for at in range(0, size * steps, size)]
    if work.workload == "upload":
        parts = [memoryview(bytearray(1))] * steps
    send = stream.send_many if batched else stream.send
    one_call = batched or batch == 1
    data = many if batched else one
    cpu = time.process_time_ns()
    for part in parts:
        start = clock()
        if one_call:
            send(data)
        else:
            for _ in range(batch):
                send(data)
        stream.recv_exactly_into(part)
        took.append((clock() - start - cost) / batch)
    return took, time.process_time_ns() - cpu


def layer_steps(calls: Any, stream: Stream, work: Work, steps: int) -> tuple[list[float], int]:
    """Time single calls of a layer; all layers are called the same way, `call(*arguments)`."""
    took, clock, mark, cost = [], time.perf_counter_ns, bytearray(1), clock_cost()
    (send, sent), (receive, received) = calls
    cpu = time.process_time_ns()
    for _ in range(steps):
        if work.workload == "upload":
            start = clock()
            for _ in range(work.batch):
                send(*sent)
            stream.recv_exactly_into(mark)
            took.append((clock() - start - cost) / work.batch)
        elif work.workload == "receives":
            stream.send(b".")
            time.sleep(PAUSE_S)
            for _ in range(work.batch):
                start = clock()
                receive(*received)
                took.append(clock() - start - cost)
        else:
            start = clock()
            send(*sent)
            between = clock()
            receive(*received)
            took.append((between - start if work.workload == "sends" else clock() - between) - cost)
    return took, time.process_time_ns() - cpu


def clock_cost() -> float:
    """Return the cost of reading the clock."""
    clock, costs = time.perf_counter_ns, []
    for _ in range(101):
        start = clock()
        costs.append(clock() - start)
    return percentile(costs, 50)


def open_stream(port: int, engine: str) -> Stream:
    """Open a stream with made-up keys: of 'c' for what the client sends, of 's' for what it receives."""
    connection = connect("127.0.0.1", port, io_engine=engine, timeout=TIMEOUT_S)  # type: ignore[arg-type]
    sides = [
        DirectionKeys(suite=SUITE, key=Secret(filler * 32), write_iv=Secret(filler * 12), sequence=0)
        for filler in (b"c", b"s")
    ]
    answer = install(connection, TrafficKeys(tx=sides[0], rx=sides[1]), BOTH)
    if not answer:
        raise RuntimeError(f"no kernel TLS: {answer!r}")
    return Stream(connection, None, answer.directions)


def records(stream: Stream, direction: Direction) -> int:
    return ktls.sequence_number(stream.connection.socket, direction, SUITE.cipher.kernel_type)
