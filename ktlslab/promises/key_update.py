"""New keys in a running connection (RFC 8446 7.2): when the kernel stops, and how it resumes."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import socket
import time

from ktlslab.linux.counters import Counters
from ktlslab.linux.ktls import Direction
from ktlslab.promises.check import TLS12, TLS13, Group
from ktlslab.promises.elsewhere import Elsewhere
from ktlslab.promises.pair import DATA, HANDSHAKE, KEY_UPDATE, QUIET_S, Keys, Pair, pattern
from ktlslab.promises.splice_out import splice_through_pipe
from ktlslab.tls.suites import Suite

promise = Group("key update")
RX, TX = Direction.RX, Direction.TX
DOCUMENT = "tls.rst, TLS 1.3 Key Updates"


def rekeyed(pair: Pair, direction: Direction) -> None:
    """Set the next generation's keys. Absent where the kernel does not accept them."""
    answer = pair.install(direction, generation=1)
    pair.needs(f"TLS_{direction.name} again", answer, "EBUSY")
    pair.expect(f"TLS_{direction.name} again", answer, "done")


def can_rekey(pair: Pair) -> None:
    """Raise Absent where a kernel does not accept second keys, tried on another pair of sockets."""
    with Pair(pair.suite, (TX,)) as other:
        pair.needs("TLS_TX again", other.install(TX, generation=1), "EBUSY")


@promise(f"{DOCUMENT}; selftest rekey", suites=TLS13)
def receiving_pauses_until_the_new_key_is_set(pair: Pair) -> None:
    """After a KeyUpdate was read, reads say EKEYEXPIRED until TLS_RX is set again, and nothing is lost."""
    can_rekey(pair)
    pair.peer.send(b"before")
    pair.peer.update_keys()
    pair.peer.send(b"after")
    pair.settled()
    pair.expect("recv", pair.recv(64), b"before")
    pair.expect("recv", pair.recv(64), "EIO")
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, KEY_UPDATE))
    pair.expect("recv", pair.recv(64), "EKEYEXPIRED")
    pair.expect("recv, not waiting", pair.recv_now(64), "EKEYEXPIRED")
    rekeyed(pair, RX)
    pair.expect("recv", pair.recv(64), b"after")


@promise(f"{DOCUMENT}; selftest rekey_tx", suites=TLS13)
def sending_goes_on_with_the_new_key(pair: Pair) -> None:
    """TLS_TX set again after a KeyUpdate of ours seals with the new key, from number 0 on."""
    pair.send(b"before")
    pair.expect("record", pair.peer.record(), (DATA, b"before"))
    pair.send_typed(KEY_UPDATE, HANDSHAKE)
    pair.expect("record", pair.peer.record(), (HANDSHAKE, KEY_UPDATE))
    rekeyed(pair, TX)
    pair.peer.opening, pair.peer.opened = Keys(pair.suite, TX, 1), 0
    pair.send(b"after")
    pair.expect("record", pair.peer.record(), (DATA, b"after"))


@promise("selftest rekey_rx", suites=TLS13)
def a_receive_key_can_be_replaced_at_once(pair: Pair) -> None:
    """TLS_RX set twice before anything came opens records of the second key."""
    rekeyed(pair, RX)
    pair.peer.sealing = Keys(pair.suite, RX, 1)
    pair.peer.send(b"the second key")
    pair.expect("recv", pair.recv(64), b"the second key")


@promise(f"{DOCUMENT}: version and cipher; selftest rekey_fail", suites=TLS13)
def version_and_cipher_stay(pair: Pair) -> None:
    """New keys of another version or cipher are refused by EINVAL, and the connection goes on unharmed."""
    can_rekey(pair)
    for direction in Direction:
        pair.expect("TLS 1.2", pair.install(direction, generation=1, suite=TLS12[0]), "EINVAL")
        other = Suite.TLS_CHACHA20_POLY1305_SHA256
        pair.expect("another cipher", pair.install(direction, generation=1, suite=other), "EINVAL")
    pair.send(b"unharmed")
    pair.expect("record", pair.peer.record(), (DATA, b"unharmed"))
    pair.peer.send(b"as well")
    pair.expect("recv", pair.recv(64), b"as well")


@promise("selftest rekey_peek", suites=TLS13)
def a_key_update_can_be_peeked_at(pair: Pair) -> None:
    """MSG_PEEK shows data before a KeyUpdate, then the KeyUpdate, which a receive still takes."""
    can_rekey(pair)
    pair.peer.send(b"before")
    pair.peer.update_keys()
    pair.settled()
    pair.expect("peek", pair.recv(64, socket.MSG_PEEK), b"before")
    pair.expect("recv", pair.recv(64), b"before")
    pair.expect("peek without room", pair.recv(64, socket.MSG_PEEK), "EIO")
    pair.expect("peek", pair.recv_typed(64, socket.MSG_PEEK), (HANDSHAKE, KEY_UPDATE))
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, KEY_UPDATE))
    rekeyed(pair, RX)


@promise("selftest rekey_peek_splice", suites=TLS13)
def what_was_peeked_at_before_a_key_update_is_spliced(pair: Pair) -> None:
    """Data before a KeyUpdate, peeked at, goes through a splice."""
    can_rekey(pair)
    pair.peer.send(b"before")
    pair.peer.update_keys()
    pair.settled()
    pair.expect("peek", pair.recv(64, socket.MSG_PEEK), b"before")
    pair.expect("splice", splice_through_pipe(pair, pair.pipe(), 64), b"before")


@promise("selftest splice_rekey", suites=TLS13)
def a_splice_pauses_too(pair: Pair) -> None:
    """Splice says EINVAL on a KeyUpdate, EKEYEXPIRED after it, and goes on with the new key."""
    can_rekey(pair)
    pipe = pair.pipe()
    pair.peer.send(pattern(8000))
    pair.peer.update_keys()
    pair.peer.send(pattern(8000, 99))
    pair.settled()
    pair.expect("splice", splice_through_pipe(pair, pipe, 16384), pattern(8000))
    pair.expect("splice", splice_through_pipe(pair, pipe, 16384), "EINVAL")
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, KEY_UPDATE))
    pair.expect("splice", splice_through_pipe(pair, pipe, 16384), "EKEYEXPIRED")
    rekeyed(pair, RX)
    pair.expect("splice", splice_through_pipe(pair, pipe, 16384), pattern(8000, 99))


@promise(f"{DOCUMENT}: poll; selftest rekey_poll_pending", suites=TLS13)
def poll_is_silent_until_the_new_key_is_set(pair: Pair) -> None:
    """With a record of the new key waiting, a poll sleeps until TLS_RX is set, and is woken by it."""
    can_rekey(pair)
    pair.peer.update_keys()
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, KEY_UPDATE))
    pair.peer.send(b"after")
    pair.settled()
    pair.expect("readable", pair.readable(QUIET_S), wanted=False)
    poller = Elsewhere(pair.readable)
    pair.expect("another process waits in poll", poller.sleeps(), wanted=True)
    rekeyed(pair, RX)
    pair.expect("it was woken", poller.result(), wanted=True)
    pair.expect("recv", pair.recv(64), b"after")


@promise("selftest rekey_poll_delay", suites=TLS13)
def poll_wakes_for_a_record_after_the_new_key(pair: Pair) -> None:
    """A poll that began before TLS_RX was set again ends when a record of the new key comes later."""
    can_rekey(pair)
    pair.peer.update_keys()
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, KEY_UPDATE))
    poller = Elsewhere(pair.readable)
    pair.expect("another process waits in poll", poller.sleeps(), wanted=True)
    rekeyed(pair, RX)
    time.sleep(QUIET_S)
    pair.peer.send(b"after")
    pair.expect("it was woken", poller.result(), wanted=True)
    pair.expect("recv", pair.recv(64), b"after")


@promise(f"{DOCUMENT}: statistics", suites=TLS13)
def key_updates_are_counted(pair: Pair) -> None:
    """TlsRxRekeyReceived, TlsRxRekeyOk and TlsTxRekeyOk rise by one for what they name."""
    can_rekey(pair)
    before = Counters.read()
    pair.peer.update_keys()
    pair.recv_typed(64)
    rekeyed(pair, RX)
    rekeyed(pair, TX)
    changed = Counters.read() - before
    for name in ("TlsRxRekeyReceived", "TlsRxRekeyOk", "TlsTxRekeyOk"):
        pair.expect(name, changed[name], 1)


@promise(f"{DOCUMENT}: no pausing on the transmit side", suites=TLS13)
def sending_does_not_pause(pair: Pair) -> None:
    """While receiving waits for a new key, sends go out."""
    can_rekey(pair)
    pair.peer.update_keys()
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, KEY_UPDATE))
    pair.expect("recv", pair.recv(64), "EKEYEXPIRED")
    pair.send(b"meanwhile")
    pair.expect("record", pair.peer.record(), (DATA, b"meanwhile"))


@promise("poll(2): a read would not block", suites=TLS13)
def a_key_update_that_waits_is_readable(pair: Pair) -> None:
    """A KeyUpdate that nobody has read makes the socket readable, also after a recv that said EIO."""
    pair.peer.update_keys()
    pair.expect("readable", pair.readable(), wanted=True)
    pair.expect("recv", pair.recv(64), "EIO")
    pair.expect("readable after EIO", pair.readable(8 * QUIET_S), wanted=True)
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, KEY_UPDATE))


@promise("a user's expectation: new keys belong to a KeyUpdate", suites=TLS13)
def keys_without_a_key_update_are_refused(pair: Pair) -> None:
    """TLS_RX set again with no KeyUpdate received is refused, and the stream goes on with the first key."""
    pair.install(RX, generation=1)
    pair.peer.send(b"the first key")
    pair.expect("recv", pair.recv(64), b"the first key")


@promise("a user's expectation: a KeyUpdate is no corruption", suites=TLS13)
def after_a_key_update_no_record_is_called_bad(pair: Pair) -> None:
    """A record that follows a KeyUpdate is never reported as EBADMSG, which would mean an attack."""
    pair.peer.update_keys()
    pair.peer.send(b"after")
    pair.settled()
    pair.expect("recvmsg", pair.recv_typed(64), (HANDSHAKE, KEY_UPDATE))
    pair.expect("recv", pair.recv(64), "EKEYEXPIRED")
