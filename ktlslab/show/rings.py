"""io_uring, tried here and recorded: what completes and when, and where it pays.

    run(*operations)     submit operations together and show their completions in the order in which they came
    multishot(pieces)    one armed receive, and all that it receives
    typed()              the same on a socket whose records the kernel opens, with and without room for a record's type
    zero_copy()          a send without a copy, on TCP and on kTLS
    calls(frame)         recorded: system calls per operation, against depth
    pays(frame)          recorded: io_uring over system calls, against depth
    depths(frame)        recorded: instructions or nanoseconds, a row per depth

The first four show the refusal where this machine has no io_uring.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ktlslab import _checks
from ktlslab.errors import RingUnavailableError, UsageError, errno_name
from ktlslab.linux import capabilities
from ktlslab.linux._native import lib
from ktlslab.linux.ktls import Direction
from ktlslab.linux.operations import Completion, Operation
from ktlslab.linux.ring import Ring
from ktlslab.promises.pair import HANDSHAKE, Pair
from ktlslab.show.html import Lines, plural
from ktlslab.tls.suites import Suite

if TYPE_CHECKING:
    import pandas as pd

_SUITE = "TLS_AES_256_GCM_SHA384"
_TICKET = b"\x04\x00\x00\x06ticket"
_WAIT_S = 5.0
_BUFFERS, _BUFFER_BYTES = 4, 256
_NAMES = {
    lib.IORING_OP_NOP: "nop",
    lib.IORING_OP_SEND: "send",
    lib.IORING_OP_RECV: "recv",
    lib.IORING_OP_WRITE: "write",
    lib.IORING_OP_READ: "read",
    lib.IORING_OP_SHUTDOWN: "shutdown",
    lib.IORING_OP_TIMEOUT: "timeout",
    lib.IORING_OP_LINK_TIMEOUT: "link_timeout",
    lib.KL_OP_SEND_ZC: "send_zc",
}
_NO_RING = "io_uring is not available here: {}. Choose the Jupyter kernel with kTLS (user mode)."


def _or_refusal(shown: Callable[..., Lines]) -> Callable[..., Lines]:
    @functools.wraps(shown)
    def tried(*arguments: object) -> Lines:
        try:
            return shown(*arguments)
        except RingUnavailableError as error:
            return Lines(head=(), rows=[], caption=_NO_RING.format(error.answered))

    return tried


@_or_refusal
def run(*operations: Operation) -> Lines:
    """Submit these operations with one system call, wait for all, and show each completion in its turn."""
    _checks.items("running operations", "operations", operations, Operation, "operations, such as Operation.send(...)")
    with Ring(max(8, len(operations))) as ring:
        tokens = ring.start(*operations)
        done: list[Completion] = []
        with contextlib.suppress(TimeoutError):  # closing the ring cancels what is still in flight
            while ring.in_flight:
                done += ring.reap(1, timeout=_WAIT_S)
    rows: list[tuple[str, ...]] = []
    for one in done:
        at = tokens.index(one.token)
        rows.append((str(at + 1), _name(operations[at]), str(one.result), _meaning(operations[at], one)))
    finished = {one.token for one in done}
    rows += [
        (str(at), _name(one), "", f"nothing within {_WAIT_S:g} seconds: cancelled")
        for at, (token, one) in enumerate(zip(tokens, operations, strict=True), start=1)
        if token not in finished
    ]
    caption = (
        f"{plural(len(operations), 'operation')} in one submission. The completions, in the order of their coming:"
    )
    return Lines(
        head=("submitted as", "operation", "result", "which means"), rows=rows, numbers=(0, 2), caption=caption
    )


@_or_refusal
def multishot(pieces: Iterable[bytes]) -> Lines:
    """Arm one receive, send these pieces one after the other, and show what it received."""
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        Ring() as ring,
        ring.buffer_ring(_BUFFERS, _BUFFER_BYTES) as buffers,
        ring.recv_multishot(theirs.fileno(), buffers, timeout=_WAIT_S) as incoming,
    ):
        rows = []
        for piece in pieces:
            ours.sendall(piece)
            rows.append((repr(piece), ", ".join(repr(data) for _, data in incoming.take())))
    caption = f"One submission, {plural(_BUFFERS, 'buffer')} of {_BUFFER_BYTES} bytes, and every piece that came:"
    return Lines(head=("sent", "received"), rows=rows, caption=caption)


@_or_refusal
def typed() -> Lines:
    """Receive data, a session ticket and data from kTLS, by a multishot recv and by a multishot recvmsg."""
    rows = []
    for name in ("recv_multishot", "recvmsg_multishot"):
        said = _received(name) if capabilities.ulp() else "this kernel has no tls module"
        rows.append((name.replace("_", ", "), said))
    caption = "On the wire: a record of data, a session ticket, a record of data."
    return Lines(head=("receive", "what comes"), rows=rows, caption=caption)


@_or_refusal
def zero_copy() -> Lines:
    """Send without a copy, on TCP and on kTLS, and show both completions."""
    rows = []
    with Pair(Suite[_SUITE], None) as plain, Ring() as ring:
        rows.append(("TCP", *_sent_without_copy(ring, plain.sock)))
        if capabilities.ulp():
            with Pair(Suite[_SUITE], (Direction.TX,)) as pair:
                rows.append(("kTLS", *_sent_without_copy(ring, pair.sock)))
        else:
            rows.append(("kTLS", "this kernel has no tls module", ""))
    return Lines(head=("socket", "first completion", "second"), rows=rows)


def calls(frame: pd.DataFrame) -> Lines:
    """Return the client's system calls per operation of 64 bytes: a row per workload and arm, a column per depth."""
    rows = _small(frame)
    values = rows.pivot_table("client_syscalls", ["workload", "record_layer", "io_engine"], "depth", "median")
    shown = [
        (*map(str, key), *(f"{value:.2f}" for value in line))
        for key, line in zip(values.index, values.to_numpy(), strict=True)
    ]
    head = ("workload", "record layer", "I/O engine", *(f"depth {depth}" for depth in values.columns))
    return Lines(head=head, rows=shown, numbers=range(3, len(head)), caption=_said(rows, "system calls per operation"))


def pays(frame: pd.DataFrame) -> Lines:
    """Return io_uring over system calls for 64 bytes, the latency: a row per workload and record layer."""
    from ktlslab.measure.analysis import effects  # noqa: PLC0415 - pandas and numpy, which a guest need not import

    rows = _small(frame)
    found = effects(rows).query("effect == 'io_uring' and quantity == 'latency_p50'")
    depths = sorted(map(int, found["depth"].unique()))
    shown = []
    for (work, layer), some in found.groupby(["workload", "at"]):
        cells = {int(one["depth"]): f"{one['ratio']:.3f} {one['verdict']}" for one in some.to_dict("records")}
        shown.append((str(work), str(layer), *(cells.get(depth, "") for depth in depths)))
    head = ("workload", "record layer", *(f"depth {depth}" for depth in depths))
    return Lines(head=head, rows=shown, caption=_said(rows, "latency by io_uring over latency by system calls"))


def depths(frame: pd.DataFrame, *, workload: str = "echo", record_layer: str = "plain") -> pd.DataFrame:
    """Return the median latency of 64 bytes on the newest kernel: a row per depth, a column per I/O engine."""
    rows = _small(frame)
    some = rows[(rows["workload"] == workload) & (rows["record_layer"] == record_layer)]
    table: pd.DataFrame = some.pivot_table("latency_p50", "depth", "io_engine", "median")
    return table


def _small(frame: pd.DataFrame) -> pd.DataFrame:
    """Return echo and upload of 64 bytes on one connection, at every depth, on the newest kernel, in one suite."""
    needed = ("machine", "workload", "payload_bytes", "depth", "connections", "suite", "io_engine", "client_syscalls")
    rows = _checks.frame("comparing I/O engines", "frame", frame, needed)
    rows = rows[(rows["payload_bytes"] == 64) & (rows["connections"] == 1) & rows["suite"].isin([_SUITE, ""])]
    rows = rows[rows["record_layer"].isin(["plain", "userspace", "kernel"]) & rows["workload"].isin(["echo", "upload"])]
    if not (rows["depth"] > 1).any():
        remedy = "Sweep the standard plan: it has several depths."
        raise UsageError("comparing I/O engines", answered="the table has no depth above 1", remedy=remedy)
    newest = max(rows["machine"].unique(), key=lambda name: [int(part) for part in str(name).split(".")])
    some: pd.DataFrame = rows[rows["machine"] == newest]
    return some


def _said(rows: pd.DataFrame, what: str) -> str:
    return f"64 bytes, Linux {rows['machine'].iloc[0]}, {rows['clock'].iloc[0]} clock, recorded: {what}."


def _name(one: Operation) -> str:
    name = _NAMES.get(one.opcode, f"operation {one.opcode}")
    return f"{name}, linked to the next" if one.linked or one.hardlinked else name


def _meaning(one: Operation, done: Completion) -> str:
    if done.result < 0:
        return errno_name(-done.result)
    moves = one.opcode in {lib.IORING_OP_SEND, lib.IORING_OP_RECV, lib.IORING_OP_WRITE, lib.IORING_OP_READ}
    return plural(done.result, "byte") if moves else "done"


def _received(name: str) -> str:
    with Pair(Suite[_SUITE], (Direction.RX,)) as pair, Ring() as ring:
        pair.peer.send(b"data")
        pair.peer.send(_TICKET, HANDSHAKE)
        pair.peer.send(b"more")
        pair.settled()
        told: list[str] = []
        with (
            ring.buffer_ring(_BUFFERS, _BUFFER_BYTES) as buffers,
            getattr(ring, name)(pair.sock.fileno(), buffers, timeout=_WAIT_S) as incoming,
        ):
            try:
                while len(told) < 3:
                    told += [_piece(kind, data) for kind, data in incoming.take()]
            except OSError as error:
                told.append(errno_name(error.errno or 0))
    return "; ".join(told)


def _piece(kind: int, data: bytes) -> str:
    return f"type {kind}: {plural(len(data), 'byte')}" if kind >= 0 else repr(data)


def _sent_without_copy(ring: Ring, sock: socket.socket) -> tuple[str, str]:
    ring.start(Operation.send_zc(sock.fileno(), b"data"))
    said: list[str] = []
    while ring.in_flight:
        for one in ring.reap(1, timeout=_WAIT_S):
            result = plural(one.result, "byte") if one.result >= 0 else errno_name(-one.result)
            said.append("the buffer is free again" if one.notification else result)
    return said[0], "; ".join(said[1:])
