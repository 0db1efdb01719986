"""MSG_PEEK: looking at bytes without consuming them."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import socket

from ktlslab.promises.check import Group
from ktlslab.promises.pair import Pair

promise = Group("peek")
PEEK, ALL = socket.MSG_PEEK, socket.MSG_WAITALL
FIRST, SECOND = b"peek at two ", b"records"


@promise("selftest recv_peek")
def a_peek_takes_nothing(pair: Pair) -> None:
    """What MSG_PEEK showed, the next receive takes."""
    pair.peer.send(b"look first")
    pair.expect("peek", pair.recv(64, PEEK), b"look first")
    pair.expect("recv", pair.recv(64), b"look first")
    pair.expect("recv again", pair.recv_now(64), "EAGAIN")


@promise("selftest recv_peek_multiple")
def a_hundred_peeks_see_the_same(pair: Pair) -> None:
    """MSG_PEEK a hundred times shows the same bytes."""
    pair.peer.send(b"look again")
    pair.expect("a hundred peeks", {pair.recv(64, PEEK) for _ in range(100)}, {b"look again"})
    pair.expect("recv", pair.recv(64), b"look again")


@promise("selftest recv_peek_multiple_records")
def a_peek_at_one_record_leaves_both(pair: Pair) -> None:
    """A peek of the first record's size shows that record; a receive then takes both, in order."""
    pair.peer.sock.sendall(pair.peer.seal(FIRST) + pair.peer.seal(SECOND))
    pair.settled()
    pair.expect("peek", pair.recv(len(FIRST), PEEK | ALL), FIRST)
    pair.expect("recv", pair.recv(len(FIRST + SECOND), ALL), FIRST + SECOND)


@promise("selftest recv_peek_large_buf_mult_recs")
def a_large_peek_sees_several_records(pair: Pair) -> None:
    """MSG_PEEK with MSG_WAITALL for the bytes of two records shows both."""
    pair.peer.sock.sendall(pair.peer.seal(FIRST) + pair.peer.seal(SECOND))
    pair.settled()
    pair.expect("peek", pair.recv(len(FIRST + SECOND), PEEK | ALL), FIRST + SECOND)
    pair.expect("recv", pair.recv(len(FIRST + SECOND), ALL), FIRST + SECOND)
