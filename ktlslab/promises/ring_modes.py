"""What only io_uring has, on a kTLS socket: waiting, cancelling, installing keys, and kinds of rings."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import select
import socket

from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.linux.operations import Operation
from ktlslab.linux.ring import Ring
from ktlslab.promises.check import Group
from ktlslab.promises.pair import DATA, QUIET_S, Keys, Pair
from ktlslab.promises.uring import finished, ran, ring_for, waits

promise = Group("io_uring waits and kinds")


@promise("io_uring_prep_poll_add(3)")
def a_ring_polls_for_whole_records(pair: Pair) -> None:
    """IORING_OP_POLL_ADD waits through half a record and ends with the whole."""
    ring, record = ring_for(pair), pair.peer.seal(b"in two parts")
    (token,) = ring.start(Operation.poll_add(pair.sock.fileno(), select.POLLIN))
    pair.peer.sock.sendall(record[:9])
    pair.expect("waits with half a record", waits(ring, token), wanted=True)
    pair.peer.sock.sendall(record[9:])
    pair.expect("poll", finished(ring, token), select.POLLIN)
    pair.expect("recv", pair.recv(64), b"in two parts")


@promise("io_uring_prep_cancel(3)")
def a_cancelled_receive_takes_nothing(pair: Pair) -> None:
    """A receive that waits, cancelled, says ECANCELED; the next record goes to the next receive."""
    ring, buffer, fd = ring_for(pair), bytearray(64), pair.sock.fileno()
    (token,) = ring.start(Operation.recv(fd, buffer))
    pair.expect("waits", waits(ring, token), wanted=True)
    ring.cancel(token)
    pair.expect("recv", finished(ring, token), "ECANCELED")
    pair.peer.send(b"for the next")
    pair.expect("recv", ran(ring, Operation.recv(fd, buffer)), 12)
    pair.expect("received", bytes(buffer[:12]), b"for the next")


@promise("io_uring_prep_cancel(3)")
def a_receive_cancelled_inside_a_record_loses_nothing(pair: Pair) -> None:
    """A receive cancelled when half a record had come leaves that half for the next."""
    ring, buffer, fd = ring_for(pair), bytearray(64), pair.sock.fileno()
    record = pair.peer.seal(b"in two parts")
    (token,) = ring.start(Operation.recv(fd, buffer))
    pair.peer.sock.sendall(record[:9])
    pair.expect("waits", waits(ring, token), wanted=True)
    ring.cancel(token)
    pair.expect("recv", finished(ring, token), "ECANCELED")
    pair.peer.sock.sendall(record[9:])
    pair.expect("recv", ran(ring, Operation.recv(fd, buffer)), 12)
    pair.expect("received", bytes(buffer[:12]), b"in two parts")


@promise("io_uring_prep_link_timeout(3)")
def a_linked_timeout_ends_a_receive(pair: Pair) -> None:
    """A receive with a linked time-out says ECANCELED when the time is up, and takes nothing."""
    ring, buffer, fd = ring_for(pair), bytearray(64), pair.sock.fileno()
    both = (Operation.recv(fd, buffer, linked=True), Operation.link_timeout(QUIET_S))
    pair.expect("recv, time-out", ran(ring, *both), ["ECANCELED", "ETIME"])
    pair.peer.send(b"for the next")
    pair.expect("recv", ran(ring, Operation.recv(fd, buffer)), 12)


@promise("io_uring_prep_cmd_sock(3), SOCKET_URING_OP_SETSOCKOPT", installed=None)
def a_ring_installs_keys_and_sends(pair: Pair) -> None:
    """TCP_ULP, TLS_TX, TLS_RX and the first send, linked, are one submission."""
    ring, fd = ring_for(pair), pair.sock.fileno()
    tx, rx = (Keys(pair.suite, direction).crypto_info().pack() for direction in (Direction.TX, Direction.RX))
    steps = (
        Operation.setsockopt(fd, socket.IPPROTO_TCP, ktls.TCP_ULP, ktls.ULP_NAME.encode(), linked=True),
        Operation.setsockopt(fd, ktls.SOL_TLS, Direction.TX.value, tx, linked=True),
        Operation.setsockopt(fd, ktls.SOL_TLS, Direction.RX.value, rx, linked=True),
        Operation.send(fd, b"sealed at once"),
    )
    results = ran(ring, *steps)
    pair.needs("setsockopt", results[0], "EOPNOTSUPP", "EINVAL")
    pair.expect("TCP_ULP, TLS_TX, TLS_RX, send", results, [0, 0, 0, 14])
    pair.expect("record", pair.peer.record(), (DATA, b"sealed at once"))


@promise("io_uring_enter(2), IOSQE_IO_LINK", installed=None)
def refused_keys_stop_the_send_behind_them(pair: Pair) -> None:
    """Where the kernel refuses linked keys, the send behind them is cancelled: nothing leaves in clear."""
    ring, fd = ring_for(pair), pair.sock.fileno()
    wrong = bytes(Keys(pair.suite, Direction.TX).crypto_info().pack())[:-1]
    attach = Operation.setsockopt(fd, socket.IPPROTO_TCP, ktls.TCP_ULP, ktls.ULP_NAME.encode(), linked=True)
    keys = Operation.setsockopt(fd, ktls.SOL_TLS, Direction.TX.value, wrong, linked=True)
    results = ran(ring, attach, keys, Operation.send(fd, b"in clear"))
    pair.needs("setsockopt", results[0], "EOPNOTSUPP", "EINVAL")
    pair.expect("TCP_ULP, TLS_TX, send", results, [0, "EINVAL", "ECANCELED"])


def echoes(pair: Pair, ring: Ring) -> None:
    """Send and receive a few times with a receive in flight meanwhile."""
    buffer, fd = bytearray(64), pair.sock.fileno()
    for at in range(4):
        (token,) = ring.start(Operation.recv(fd, buffer))
        text = f"number {at}".encode()
        (sending,) = ring.start(Operation.send(fd, text))
        pair.expect("send", finished(ring, sending), 8)
        pair.expect("record", pair.peer.record(), (DATA, text))
        pair.peer.send(text)
        pair.expect("recv", finished(ring, token), 8)
        pair.expect("received", bytes(buffer[:8]), text)


@promise("io_uring_enter(2)")
def a_send_does_not_wait_for_a_receive(pair: Pair) -> None:
    """With a receive in flight, sends on the same socket go out."""
    echoes(pair, ring_for(pair))


@promise("io_uring_setup(2), IORING_SETUP_DEFER_TASKRUN")
def a_ring_with_deferred_work_does_the_same(pair: Pair) -> None:
    """On a ring with DEFER_TASKRUN sends and receives work alike."""
    echoes(pair, ring_for(pair, defer_taskrun=True))


@promise("io_uring_setup(2), IORING_SETUP_SQPOLL")
def a_ring_that_the_kernel_polls_does_the_same(pair: Pair) -> None:
    """On a ring with SQPOLL sends and receives work alike."""
    echoes(pair, ring_for(pair, sqpoll=True))
