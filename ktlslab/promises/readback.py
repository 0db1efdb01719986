"""What getsockopt returns for a kTLS socket. Any holder of the descriptor can read it, keys included."""

from __future__ import annotations

import socket
from typing import Any

from ktlslab.linux import ktls
from ktlslab.linux.ktls import Direction
from ktlslab.promises.check import EVERY, TLS12, TLS13, Group, attempt
from ktlslab.promises.pair import Keys, Pair

promise = Group("read-back of state")
TLS_TX_ZEROCOPY_RO, TLS_RX_EXPECT_NO_PAD = 3, 4  # linux/tls.h
HEAD = 4  # bytes of struct tls_crypto_info: version and cipher type


def option(sock: socket.socket, name: int, size: int) -> Any:
    """Getsockopt at the TLS level: bytes, or the errno's name."""
    return attempt(sock.getsockopt, ktls.SOL_TLS, name, size)


def set_option(sock: socket.socket, name: int, value: int) -> Any:
    """Setsockopt at the TLS level: "done", or the errno's name."""
    return attempt(sock.setsockopt, ktls.SOL_TLS, name, value) or "done"


@promise("selftest getsockopt", suites=EVERY)
def keys_read_back_as_they_were_set(pair: Pair) -> None:
    """Getsockopt of a cipher's whole struct gives what was set; of its head alone, version and cipher."""
    for direction in Direction:
        packed = bytes(Keys(pair.suite, direction).crypto_info().pack())
        pair.expect(f"{direction.name} is", option(pair.sock, direction.value, len(packed)) == packed, wanted=True)
        pair.expect("its head", option(pair.sock, direction.value, HEAD), packed[:HEAD])


@promise("selftest getsockopt")
def a_short_get_is_refused(pair: Pair) -> None:
    """Getsockopt with room for less than the head, or for less than the struct, says EINVAL."""
    size = len(Keys(pair.suite, Direction.TX).crypto_info().pack())
    pair.expect("a head less a byte", option(pair.sock, Direction.TX.value, HEAD - 1), "EINVAL")
    pair.expect("a struct less a byte", option(pair.sock, Direction.TX.value, size - 1), "EINVAL")


@promise("experience: EBUSY says that no keys are set", installed=())
def without_keys_there_is_nothing_to_read(pair: Pair) -> None:
    """Getsockopt of a direction that the kernel has not taken over says EBUSY."""
    pair.expect("TLS_TX", option(pair.sock, Direction.TX.value, 64), "EBUSY")
    pair.expect("TLS_RX", option(pair.sock, Direction.RX.value, 64), "EBUSY")


@promise("tls.rst, Creating a TLS connection: rec_seq")
def the_sequence_number_counts_records(pair: Pair) -> None:
    """rec_seq rises by one for each record sealed, and for each one opened."""
    cipher = pair.suite.cipher.kernel_type
    for text in (b"one", b"two"):
        pair.send(text)
        pair.peer.send(text)
        pair.expect("recv", pair.recv(64), text)
    pair.expect("TX at", ktls.sequence_number(pair.sock, Direction.TX, cipher), 2)
    pair.expect("RX at", ktls.sequence_number(pair.sock, Direction.RX, cipher), 2)


@promise("tls.rst, TLS_RX_EXPECT_NO_PAD; selftest no_pad", suites=TLS13)
def expecting_no_padding_can_be_set_and_read(pair: Pair) -> None:
    """TLS_RX_EXPECT_NO_PAD is set to 1 and back to 0, and getsockopt says which."""
    pair.needs("setsockopt", set_option(pair.sock, TLS_RX_EXPECT_NO_PAD, 1), "ENOPROTOOPT")
    for value in (1, 0):
        pair.expect(f"set to {value}", set_option(pair.sock, TLS_RX_EXPECT_NO_PAD, value), "done")
        pair.expect("reads", option(pair.sock, TLS_RX_EXPECT_NO_PAD, 4), value.to_bytes(4, "little"))


@promise("tls.rst, TLS_RX_EXPECT_NO_PAD: TLS 1.3 only", suites=TLS12)
def tls12_has_no_padding_to_expect(pair: Pair) -> None:
    """On a TLS 1.2 socket TLS_RX_EXPECT_NO_PAD is refused by EINVAL."""
    answer = set_option(pair.sock, TLS_RX_EXPECT_NO_PAD, 1)
    pair.needs("setsockopt", answer, "ENOPROTOOPT")
    pair.expect("setsockopt", answer, "EINVAL")


@promise("tls.rst, TLS_TX_ZEROCOPY_RO")
def zero_copy_sendfile_can_be_set_and_read(pair: Pair) -> None:
    """TLS_TX_ZEROCOPY_RO, of use to a network card alone, is set and read back on any TLS socket."""
    pair.needs("setsockopt", set_option(pair.sock, TLS_TX_ZEROCOPY_RO, 1), "ENOPROTOOPT")
    for value in (1, 0):
        pair.expect(f"set to {value}", set_option(pair.sock, TLS_TX_ZEROCOPY_RO, value), "done")
        pair.expect("reads", option(pair.sock, TLS_TX_ZEROCOPY_RO, 4), value.to_bytes(4, "little"))


@promise("selftest rekey_getsockopt", suites=TLS13)
def new_keys_read_back(pair: Pair) -> None:
    """After a KeyUpdate getsockopt gives the new keys of each direction."""
    pair.needs("TLS_TX again", pair.install(Direction.TX, generation=1), "EBUSY")
    pair.peer.update_keys()
    pair.expect("the KeyUpdate came", pair.recv_typed(64)[0].name, "HANDSHAKE")
    pair.expect("TLS_RX again", pair.install(Direction.RX, generation=1), "done")
    for direction in Direction:
        packed = bytes(Keys(pair.suite, direction, 1).crypto_info().pack())
        pair.expect(f"{direction.name} is new", option(pair.sock, direction.value, len(packed)) == packed, wanted=True)
