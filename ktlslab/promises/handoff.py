"""What is in flight, or being read by another process, when the kernel takes over."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import socket

from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.promises.check import Group, attempt
from ktlslab.promises.elsewhere import Elsewhere
from ktlslab.promises.pair import DATA, Pair, pattern

promise = Group("handoff")
LAST_NUMBER = 2**64 - 1


@promise("selftest prequeue", installed=None)
def records_that_came_before_the_keys_are_opened(pair: Pair) -> None:
    """What the peer sent before TCP_ULP and TLS_RX lies in the socket and comes out decrypted."""
    pair.peer.send(pattern(16384))
    pair.peer.send(pattern(3616, 16384))
    pair.settled()
    ktls.attach(pair.sock)
    pair.install(Direction.RX)
    pair.expect("recv", pair.recv(20000, socket.MSG_WAITALL), pattern(20000))


@promise("selftest prequeue, with half a record", installed=())
def half_a_record_before_the_keys_is_no_loss(pair: Pair) -> None:
    """A record whose first half came before TLS_RX and whose second half comes after it is opened."""
    record = pair.peer.seal(b"in two halves")
    pair.peer.sock.sendall(record[:9])
    pair.settled()
    pair.install(Direction.RX)
    pair.expect("recv of the first half", pair.recv_now(64), "EAGAIN")
    pair.peer.sock.sendall(record[9:])
    pair.expect("recv of both", pair.recv(64), b"in two halves")


@promise(
    "selftest data_steal",
    installed=(),
    cve="CVE-2025-38616",
    mended=("6.1.185", "6.6.103", "6.12.43", "6.15.11", "6.16.2", "6.17"),
)
def a_reader_already_in_tcp_gets_what_tcp_has(pair: Pair) -> None:
    """A reader that waited in TCP when TLS_RX was set gets bytes in clear; later readers get no wrong data."""
    size = 400
    reader = Elsewhere(lambda: pair.recv(size, socket.MSG_WAITALL))
    pair.peer.sock.sendall(b"!")
    pair.expect("another process waits in recv", reader.sleeps(), wanted=True)
    pair.settled()
    pair.install(Direction.RX)
    record = pair.peer.seal(pattern(1000))
    pair.peer.sock.sendall(record)
    pair.expect("it gets ciphertext", reader.result(), b"!" + record[: size - 1])
    pair.fails("recv of the rest", pair.recv_now(2000))


@promise("selftest recseq_wrap", installed=())
def the_last_sequence_number_ends_sending(pair: Pair) -> None:
    """No record is numbered twice: with the number at its end, send says EBADMSG."""
    pair.expect("TLS_TX at 2**64 - 1", pair.install(Direction.TX, sequence=LAST_NUMBER), "done")
    pair.expect("send", pair.send(b"one too many"), "EBADMSG")


@promise("tls.rst, Creating a TLS connection: rec_seq", installed=())
def sealing_goes_on_at_the_given_number(pair: Pair) -> None:
    """Keys set with sequence number 7 seal the next record as number 7."""
    pair.install(Direction.TX, sequence=7)
    pair.peer.opened = 7
    pair.send(b"number seven")
    pair.expect("opened as number 7", pair.peer.record(), (DATA, b"number seven"))


@promise("tls.rst, Creating a TLS connection: rec_seq", installed=())
def opening_goes_on_at_the_given_number(pair: Pair) -> None:
    """Keys set with sequence number 7 open the next record as number 7."""
    pair.install(Direction.RX, sequence=7)
    pair.peer.sealed = 7
    pair.peer.send(b"number seven")
    pair.expect("recv", pair.recv(64), b"number seven")


@promise("tls.rst, Creating a TLS connection: set separately", installed=(Direction.TX,))
def one_direction_leaves_the_other_alone(pair: Pair) -> None:
    """With TLS_TX alone, sends are sealed and receives give records as they are on the wire."""
    pair.send(b"sealed")
    pair.expect("the peer opened", pair.peer.record(), (DATA, b"sealed"))
    record = pair.peer.seal(b"for the library to open")
    pair.peer.sock.sendall(record)
    pair.expect("recv is the record itself", pair.recv(200), record)


@promise("tls.rst, Creating a TLS connection: set separately", installed=(Direction.TX,))
def receiving_can_follow_later(pair: Pair) -> None:
    """TLS_RX set after records were read from the socket by hand goes on with the next one."""
    record = pair.peer.seal(b"by hand")
    pair.peer.sock.sendall(record)
    pair.expect("by hand", attempt(pair.sock.recv, len(record), socket.MSG_WAITALL), record)
    pair.peer.send(b"by the kernel")
    pair.expect("TLS_RX at 1", pair.install(Direction.RX, sequence=1), "done")
    pair.expect("recv", pair.recv(64), b"by the kernel")
