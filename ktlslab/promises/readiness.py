"""When a socket says that it can be read or written, and when a wait ends."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import select
import socket
import time

from ktlslab.promises.check import Group
from ktlslab.promises.elsewhere import Elsewhere
from ktlslab.promises.pair import ALERT, CLOSE_NOTIFY, ENOUGH_S, QUIET_S, Pair, bound, pattern

promise = Group("readiness")
MUCH = 400_000  # more than the buffers of both ends hold


@promise("selftest pollin")
def a_record_makes_the_socket_readable(pair: Pair) -> None:
    """POLLIN comes with a record and goes once it is read."""
    pair.expect("before", pair.readable(0), wanted=False)
    pair.peer.send(b"readable")
    pair.expect("with a record", pair.readable(), wanted=True)
    pair.expect("recv", pair.recv(64), b"readable")
    pair.expect("after", pair.readable(QUIET_S), wanted=False)


@promise("selftest poll_wait")
def a_poll_that_waits_is_woken(pair: Pair) -> None:
    """A poll that began before the record came ends with it."""
    poller = Elsewhere(pair.readable)
    pair.expect("another process waits in poll", poller.sleeps(), wanted=True)
    pair.peer.send(b"wake up")
    pair.expect("it was woken", poller.result(), wanted=True)
    pair.expect("recv", pair.recv(64), b"wake up")


@promise("selftest poll_wait_split")
def the_rest_of_a_record_is_readable(pair: Pair) -> None:
    """After part of a record was read, the socket is readable still: the rest lies in kTLS, not in TCP."""
    pair.peer.send(pattern(20))
    pair.expect("recv of 15", pair.recv(15, socket.MSG_WAITALL), pattern(15))
    pair.expect("readable", pair.readable(), wanted=True)
    pair.expect("recv of the rest", pair.recv(15), pattern(5, 15))
    pair.expect("readable then", pair.readable(QUIET_S), wanted=False)


@promise("selftest poll_partial_rec")
def part_of_a_record_is_not_readable(pair: Pair) -> None:
    """Poll says nothing on most of a record, and POLLIN when its last bytes come."""
    record = pair.peer.seal(pattern(128))
    pair.peer.sock.sendall(record[:100])
    pair.expect("with 100 bytes of it", pair.readable(QUIET_S), wanted=False)
    pair.peer.sock.sendall(record[100:])
    pair.expect("with all of it", pair.readable(), wanted=True)
    pair.expect("recv", pair.recv(200), pattern(128))


@promise("selftest epoll_partial_rec")
def epoll_says_the_same(pair: Pair) -> None:
    """epoll, too, waits for a record's last bytes."""
    epoll = pair.keep(select.epoll())
    epoll.register(pair.sock, select.EPOLLIN)
    record = pair.peer.seal(pattern(128))
    pair.peer.sock.sendall(record[:100])
    pair.expect("with 100 bytes of it", epoll.poll(QUIET_S), [])
    pair.peer.sock.sendall(record[100:])
    pair.expect("with all of it", [events for _, events in epoll.poll(ENOUGH_S)], [select.EPOLLIN])
    pair.expect("recv", pair.recv(200), pattern(128))


@promise("epoll(7): edge-triggered, read until EAGAIN")
def an_edge_comes_with_each_record(pair: Pair) -> None:
    """Edge-triggered epoll reports every record to a program that reads until EAGAIN."""
    epoll = pair.keep(select.epoll())
    epoll.register(pair.sock, select.EPOLLIN | select.EPOLLET)
    for text in (b"first", b"second"):
        pair.peer.send(text)
        pair.expect("event", [events for _, events in epoll.poll(ENOUGH_S)], [select.EPOLLIN])
        pair.expect("recv", [pair.recv_now(64), pair.recv_now(64)], [text, "EAGAIN"])


@promise("a user's expectation: edges as on TCP")
def an_edge_comes_with_a_record_behind_an_unread_one(pair: Pair) -> None:
    """As on TCP, edge-triggered epoll reports what came after the last event, though that was not read."""
    epoll = pair.keep(select.epoll())
    epoll.register(pair.sock, select.EPOLLIN | select.EPOLLET)
    for number in ("first", "second"):
        pair.peer.send(number.encode())
        pair.settled()
        pair.expect(f"{number} event", [events for _, events in epoll.poll(4 * QUIET_S)], [select.EPOLLIN])


@promise("selftest poll_partial_rec_async")
def part_of_a_record_wakes_no_poll(pair: Pair) -> None:
    """A poll that waits sleeps through a record's first part and wakes with its last."""
    record = pair.peer.seal(pattern(128))

    def waits() -> list[bool]:
        return [pair.readable(4 * QUIET_S), pair.readable()]

    poller = Elsewhere(waits)
    pair.expect("another process waits in poll", poller.sleeps(), wanted=True)
    pair.peer.sock.sendall(record[:100])
    time.sleep(6 * QUIET_S)
    pair.peer.sock.sendall(record[100:])
    pair.expect("woken by a part, by the whole", poller.result(), [False, True])


@promise("selftest blocking")
def blocking_ends_wait_for_each_other(pair: Pair) -> None:
    """Much data through small buffers: a blocking send waits for the reader, and all arrives."""
    pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    writer = Elsewhere(lambda: pair.sock.sendall(pattern(MUCH)))
    pair.expect("data", pair.peer.data(MUCH), pattern(MUCH))
    pair.expect("the writer", writer.result(), None)


@promise("selftest nonblocking")
def a_full_socket_says_eagain_and_goes_on(pair: Pair) -> None:
    """A non-blocking send into a full socket says EAGAIN; written on when writable, all arrives."""
    pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pair.sock.settimeout(0)
    writable = select.poll()
    writable.register(pair.sock, select.POLLOUT)
    data, sent, refused, got = pattern(MUCH), 0, 0, b""
    deadline = time.monotonic() + ENOUGH_S
    while sent < MUCH and time.monotonic() < deadline:
        count = pair.send(data[sent : sent + 16384])
        if count == "EAGAIN":
            refused += 1
            got += b"".join(part for _, part in pair.peer.records(100, within=0.02))
            writable.poll(100)
        else:
            sent += count
    pair.sock.settimeout(None)
    pair.expect("EAGAIN came", refused > 0, wanted=True)
    pair.expect("sent", sent, MUCH)
    pair.expect("data", got + pair.peer.data(MUCH - len(got)), data)


@promise("selftest timeo")
def a_receive_time_out_ends_every_wait(pair: Pair) -> None:
    """SO_RCVTIMEO ends the waits of two readers of one socket, each time, with EAGAIN."""
    bound(pair.sock, 2 * QUIET_S)
    reader = Elsewhere(lambda: pair.recv(64))
    pair.expect("recv", [pair.recv(64), pair.recv(64)], ["EAGAIN", "EAGAIN"])
    pair.expect("recv in another process", reader.result(), "EAGAIN")


@promise("poll(2): a read would not block")
def a_control_record_is_readable(pair: Pair) -> None:
    """A close_notify makes the socket readable, before and after a recv that says EIO."""
    pair.peer.send(CLOSE_NOTIFY, ALERT)
    pair.expect("readable", pair.readable(), wanted=True)
    pair.expect("recv", pair.recv(64), "EIO")
    pair.expect("readable still", pair.readable(), wanted=True)
    pair.expect("recvmsg", pair.recv_typed(64), (ALERT, CLOSE_NOTIFY))
