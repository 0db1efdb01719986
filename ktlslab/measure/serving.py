"""The workload `serve`: a process that answers many open connections, and the sessions that it holds open.

The measured process is the server here; `measure.driver` is the peer, with all the clients. Each set of sessions, those
of a record layer and a suite, has two processes of its own, this one's child and the peer. So its memory is known, and
closing the sessions is the end of the processes.

The server's loop is in C (`linux.serverloop`). The engines share the sessions, since the loop only needs sockets. In
userspace, OpenSSL works on memory in both engines: a received byte is copied once more, by BIO_write, and a sent one,
by BIO_read.
"""

from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, NamedTuple

from ktlslab.certificates import make_certificates
from ktlslab.errors import KtlsLabError, MachineError, RecordLayerUnavailableError
from ktlslab.linux import memory
from ktlslab.linux.counters import Counters
from ktlslab.linux.descriptors import allow
from ktlslab.linux.perf import Syscalls, count_syscalls
from ktlslab.linux.process import end_with_parent, run_in_long_slices
from ktlslab.linux.serverloop import Served, ServerLoop
from ktlslab.measure import driver, peer
from ktlslab.measure.channels import TIMEOUT_S, Channel, channel_of, limit_records, refuse, unmet
from ktlslab.measure.meters import Meters
from ktlslab.measure.payloads import crc_of, payload
from ktlslab.measure.plan import Cell
from ktlslab.measure.rows import Around, Timed, bare, row_of
from ktlslab.measure.statistics import percentile
from ktlslab.measure.steps import PeerReport
from ktlslab.measure.warmup import warm_up
from ktlslab.runs import clocks, provenance
from ktlslab.runs.clocks import Cpu
from ktlslab.session import accept_session
from ktlslab.stages import ServerConfig, accept, handshake
from ktlslab.tls import openssl
from ktlslab.tls.suites import Suite

LEAD = 2  # waves of a timed round that come before its clocks are read
FIRST = 4  # connections opened before the memory of the others is measured: what is made once for all
MAX_WAVES = 4096
PASS_BYTES = 32 << 20  # of a round's responses, which the clients keep
TOLERANCE = {"instructions": 0.01, "wall": 0.05}
_EXIT_S = 60.0  # a process closes thousands of sockets when it ends


class Sessions(NamedTuple):
    """Open connections, as the loop and as the meters need them.

    `own_bytes`: what each took of this process's memory; `kernel_bytes`: of the kernel's, for both ends.
    """

    channels: list[Channel]
    served: list[Served]
    own_bytes: float
    kernel_bytes: float


class Round(NamedTuple):
    """What a round of waves took; the fields are those of `rows.Timed`."""

    took: list[int]
    elapsed: int
    meters: Meters
    used: list[Channel]
    report: PeerReport
    syscalls: float


class ServerSet:
    """A child process with open sessions, and the peer at their other ends. What is public is as in `OpenArm`."""

    def __init__(self, cell: Cell, address: str, prefix: Sequence[str] = ()) -> None:
        refuse(cell)
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self._pipe = ours
        self._process = context.Process(target=_child, args=((ours, theirs), os.getpid(), cell, address, prefix))
        self._process.start()
        theirs.close()
        self.took: list[int] = []
        self.pid = self._process.pid
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._answer()
            undo.pop_all()

    def sample(
        self, cell: Cell, steps: int, min_ns: int = 0, handicap: float = 0.0, around: Around = bare
    ) -> dict[str, Any]:
        """Time one sample, and return its row's figures. `around` runs in the child, so pickle must know it."""
        self._pipe.send((cell, steps, min_ns, handicap, around))
        row: dict[str, Any]
        row, self.took = self._answer()
        return row

    def close(self) -> None:
        self._pipe.close()  # at which the child ends, and the peer with it
        self._process.join(_EXIT_S)
        self._process.kill()
        self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError as error:
            self._process.join(_EXIT_S)
            answered = f"its process ended with status {self._process.exitcode}"
            remedy = "Its message is above; -9 is a lack of memory."
            raise MachineError("serving many connections", answered=answered, remedy=remedy) from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _child(pipes: tuple[Pipe, Pipe], parent: int, cell: Cell, address: str, prefix: Sequence[str]) -> None:
    """Open the sessions, then take samples until the pipe is closed."""
    end_with_parent(parent)
    run_in_long_slices()  # a wave is longer than a usual slice, and would be cut where the slice ends
    parents, pipe = pipes
    parents.close()  # or the parent's closing it would be no end
    try:
        with _server(cell, address, prefix) as server:
            pipe.send(None)
            while True:
                pipe.send(server.sample(*pipe.recv()))
    except EOFError:
        pass
    except (KtlsLabError, OSError) as error:
        pipe.send(error)
    os._exit(0)  # no farewell to each of thousands of sessions


class Server:
    """The open sessions in their process."""

    def __init__(self, orders: subprocess.Popen[bytes], sessions: Sessions, driver_name: str) -> None:
        self._peer, self._sessions, self._driver = orders, sessions, driver_name
        self._turns, self._turn = driver.order(len(sessions.channels)), 0
        self._last: dict[Any, float] = {}
        self._syscalls: dict[Any, float] = {}
        self._passed: set[tuple[int, int]] = set()

    def sample(
        self, cell: Cell, steps: int, min_ns: int, handicap: float, around: Around
    ) -> tuple[dict[str, Any], list[int]]:
        """Time one sample; see `OpenArm.sample`. Return its row and its steps."""
        request, response = payload(cell.request_bytes), payload(cell.payload_bytes)
        alike = cell.io_engine, cell.setting
        with ServerLoop(self._sessions.served, cell.io_engine, request, response) as loop:
            self._pass(loop, cell)

            def median_of(size: int) -> float:
                return percentile(self._round(loop, cell, size).took, 50)

            best, lead = self._last.get(alike, math.inf), max(1, steps // 4)
            warm = warm_up(median_of, lead, best, TOLERANCE[clocks.current()], lambda _: 1)
            if alike not in self._syscalls:
                self._syscalls[alike] = self._round(loop, cell, steps, counting=True).syscalls
            if min_ns:
                steps = min(MAX_WAVES, max(steps, math.ceil(min_ns / warm.step)))
            spin = round(handicap * warm.step)
            done = self._round(loop, cell, steps, spin=spin, around=around)
        self._last[alike] = percentile(done.took, 50) - spin
        timed = Timed(**done._asdict() | {"syscalls": self._syscalls[alike]}, warm=warm)
        row = row_of(cell, timed, self._sessions.channels, self._driver)
        row["session_bytes"] = self._sessions.own_bytes
        row["kernel_session_bytes"] = self._sessions.kernel_bytes
        return row, done.took

    def _pass(self, loop: ServerLoop, cell: Cell) -> None:
        """Use every session once with these sizes. The first use of one is dear, and not what is measured.

        The client's OpenSSL takes in the session tickets, buffers grow to their size, TCP leaves its first state.
        """
        sizes = cell.request_bytes, cell.payload_bytes
        left = 0 if sizes in self._passed else len(self._turns)
        while left > 0:
            waves = math.ceil(min(left, PASS_BYTES // cell.bytes_per_operation) / cell.depth)
            self._round(loop, cell, max(1, waves))
            left -= max(1, waves) * cell.depth
        self._passed.add(sizes)

    def _round(
        self,
        loop: ServerLoop,
        cell: Cell,
        steps: int,
        *,
        spin: int = 0,
        around: Around = bare,
        counting: bool = False,
    ) -> Round:
        """Serve a round of waves and have it checked. `counting` counts system calls, which slows each of them."""
        width, before = cell.depth, cell.depth * LEAD
        count = width * (LEAD + steps)
        turns = [self._turns[(self._turn + n) % len(self._turns)] for n in range(count)]
        self._turn += count
        used = [self._sessions.channels[turn] for turn in dict.fromkeys(turns[before:])]
        waves = driver.WAVES.pack(cell.request_bytes, cell.payload_bytes, width, LEAD, steps)
        self._tell(driver.ROUND + waves)
        self._hear(1)
        loop.run(before)
        with Meters(used) as meters, count_syscalls() if counting else contextlib.nullcontext(Syscalls()) as counted:
            start = time.perf_counter_ns()
            self._tell(peer.MARK)
            took = around(lambda: loop.run(width * steps, width, spin))
            elapsed = time.perf_counter_ns() - start
        self._tell(peer.MARK)
        total, user, system, crc = peer.REPORT.unpack(self._hear(peer.REPORT.size))
        report = PeerReport(cpu=Cpu(total, user, system), ok=crc == crc_of(cell.payload_bytes))
        return Round(took, elapsed, meters, used, report, counted.count / (width * steps))

    def _tell(self, what: bytes) -> None:
        assert self._peer.stdin is not None  # noqa: S101 - a pipe
        self._peer.stdin.write(what)
        self._peer.stdin.flush()

    def _hear(self, size: int) -> bytes:
        return _hear(self._peer, size)


def _hear(process: subprocess.Popen[bytes], size: int) -> bytes:
    said = process.stdout.read(size) if process.stdout else b""
    if len(said) != size:
        answered = f"it ended with status {process.wait(_EXIT_S)}"
        raise MachineError("hearing from the clients' process", answered=answered, remedy="Its message is above.")
    return said


@contextlib.contextmanager
def _server(cell: Cell, address: str, prefix: Sequence[str]) -> Iterator[Server]:
    """Start the peer, and open the sessions with it."""
    allow(cell.connections)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ktlslab-serve-")))
        files = make_certificates(folder, address)
        argv = [*prefix, sys.executable, "-m", "ktlslab.measure.driver", address, str(files.ca), str(os.getpid())]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        peer_process = stack.enter_context(subprocess.Popen(argv, **pipes))
        stack.callback(peer_process.kill)
        suites = (Suite[cell.suite],) if cell.suite else None
        config = ServerConfig(certificate=files.chain, key=files.key, suites=suites)
        first = _open(cell, min(FIRST, cell.connections), address, peer_process, config)
        for channel in first.channels:
            channel.socket.close()  # their memory is kept: it would be taken for a part of the others'
        gc.collect()
        gc.freeze()  # what there is already need not be looked at again and again while thousands are opened
        sessions = _open(cell, cell.connections, address, peer_process, config)
        files.key.unlink()
        kernel = bool(sessions.channels[0].kernel)
        yield Server(peer_process, sessions, provenance.driver_of(cell.suite) if kernel else "")
        del first


def _open(cell: Cell, count: int, address: str, process: subprocess.Popen[bytes], config: ServerConfig) -> Sessions:
    """Open connections one after the other, each with a full handshake."""
    own, kernel = memory.own_bytes(), memory.kernel_bytes()
    opened: list[tuple[Channel, Served]] = []
    # A port of its own for each set: the former one's connections may linger in TIME_WAIT.
    with socket.create_server((address, 0), backlog=4096) as listener:
        order = driver.OPENING.pack(count, listener.getsockname()[1], cell.record_layer != "plain")
        assert process.stdin is not None  # noqa: S101 - a pipe
        process.stdin.write(driver.OPEN + order)
        process.stdin.flush()
        for _ in range(count):
            opened.append(_accept(cell, listener, config))
            peer.set_up(opened[-1][0].socket)
        _hear(process, 1)
    own, kernel = memory.own_bytes() - own, memory.kernel_bytes() - kernel
    channels, served = [one[0] for one in opened], [one[1] for one in opened]
    return Sessions(channels, served, max(0, own) / count, max(0, kernel) / count)


def _accept(cell: Cell, listener: socket.socket, config: ServerConfig) -> tuple[Channel, Served]:
    if cell.record_layer == "userspace":
        connection = accept(listener, io_engine="syscall", timeout=TIMEOUT_S)
        library = handshake(connection, config).machine.library.connection
        openssl.release_buffers(library)
        return _bare(connection.socket), Served(connection.socket.fileno(), library)
    try:
        session = accept_session(
            listener,
            config,
            record_layer=cell.record_layer,  # type: ignore[arg-type]  # one of SERVED
            io_engine="syscall",
            timeout=TIMEOUT_S,
        )
    except RecordLayerUnavailableError as error:
        raise unmet(cell, error) from error
    limit_records(session, cell)
    return channel_of(session), Served(session.stream.connection.socket.fileno())


def _bare(sock: socket.socket) -> Channel:
    """Return a channel for the meters, of a connection on which the loop calls OpenSSL: nobody else may send."""

    def unused(*_: Any) -> None:
        raise NotImplementedError

    return Channel(
        socket=sock,
        send=unused,
        send_many=unused,
        send_file=unused,
        receive=unused,
        close=sock.close,
        counters=Counters({}),
        kernel=(),
        cipher_type=0,
        names={},
        otherwise="userspace",
    )
