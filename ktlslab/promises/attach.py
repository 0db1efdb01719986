"""Which sockets can become kTLS sockets, what is refused, and what is no longer possible afterwards."""
# ruff: noqa: D401 - a promise is a statement

from __future__ import annotations

import ctypes
import os
import socket

from ktlslab.linux import ktls
from ktlslab.linux.counters import Counters
from ktlslab.linux.ktls import Direction
from ktlslab.promises.check import EVERY, TLS12, TLS13, Group, attempt
from ktlslab.promises.pair import DATA, Keys, Pair, connected
from ktlslab.tls.suites import Suite

promise = Group("attach and refuse")
AES_256 = (Suite.TLS_AES_256_GCM_SHA384, Suite.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)


@promise("selftest base_base", installed=())
def without_keys_bytes_pass_in_clear(pair: Pair) -> None:
    """With the tls module attached and no keys set, bytes pass both ways as they are."""
    pair.expect("send", pair.send(b"clear"), 5)
    pair.expect("the peer got", pair.peer.sock.recv(64), b"clear")
    pair.peer.sock.sendall(b"as clear")
    pair.expect("recv", pair.recv(64), b"as clear")


@promise("tls.rst, Creating a TLS connection; selftest non_established", suites=TLS13, installed=None)
def only_a_connected_socket_can_be_attached(pair: Pair) -> None:
    """TCP_ULP on a new or a listening socket says ENOTCONN."""
    with socket.socket() as new, socket.create_server(("127.0.0.1", 0)) as listening:
        pair.expect("a new socket", attempt(ktls.attach, new), "ENOTCONN")
        pair.expect("a listening one", attempt(ktls.attach, listening), "ENOTCONN")


@promise("selftest non_established", suites=TLS13, installed=())
def attaching_twice_is_refused(pair: Pair) -> None:
    """A second TCP_ULP on the same socket says EEXIST, and getsockopt names the first."""
    pair.expect("TCP_ULP again", attempt(ktls.attach, pair.sock), "EEXIST")
    pair.expect("attached", ktls.attached(pair.sock), wanted=True)


@promise("tls.rst, Creating a TLS connection", suites=TLS13, installed=None)
def keys_before_attaching_are_refused(pair: Pair) -> None:
    """TLS_TX on a plain TCP socket says ENOPROTOOPT."""
    pair.expect("TLS_TX", pair.install(Direction.TX), "ENOPROTOOPT")


@promise("selftest bad_cipher", suites=TLS13, installed=())
def unknown_versions_and_ciphers_are_refused(pair: Pair) -> None:
    """A version that is not TLS 1.2 or 1.3, or a cipher that no kernel has, says EINVAL."""
    packed = Keys(pair.suite, Direction.TX).crypto_info().pack()
    for offset, value in ((0, 200), (0, 0x0302), (0, 0x0305), (2, 10), (2, 50), (2, 70)):
        wrong = bytearray(packed)
        wrong[offset : offset + 2] = value.to_bytes(2, "little")
        what = "version" if offset == 0 else "cipher type"
        pair.expect(f"{what} {value}", attempt(ktls.set_keys, pair.sock, Direction.TX, wrong), "EINVAL")


@promise("selftest keysizes", suites=AES_256, installed=())
def a_struct_of_another_length_is_refused(pair: Pair) -> None:
    """Keys must come in exactly their cipher's struct: a byte more or less says EINVAL, the right length is taken."""
    packed = Keys(pair.suite, Direction.TX).crypto_info().pack()
    pair.expect("a byte less", attempt(ktls.set_keys, pair.sock, Direction.TX, packed[:-1]), "EINVAL")
    pair.expect("a byte more", attempt(ktls.set_keys, pair.sock, Direction.TX, packed + b"\0"), "EINVAL")
    pair.expect("the right length", pair.install(Direction.TX), "done")
    pair.expect("TLS_RX too", pair.install(Direction.RX), "done")


@promise("tls.rst, Creating a TLS connection; selftest's variants of its fixture tls", suites=EVERY)
def records_are_those_of_the_cipher(pair: Pair) -> None:
    """What the kernel seals opens by hand and the other way round, with every cipher and both versions."""
    pair.send(b"from the kernel")
    pair.expect("sealed by the kernel", pair.peer.record(), (DATA, b"from the kernel"))
    pair.peer.send(b"by hand")
    pair.expect("sealed by hand", pair.recv(64), b"by hand")


@promise("selftest tls_v6ops", installed=None)
def ipv6_sockets_work_alike(pair: Pair) -> None:
    """An IPv6 connection takes keys, keeps its address and carries records."""
    with Pair(pair.suite, None, socket.AF_INET6) as six:
        before = six.sock.getsockname()
        ktls.attach(six.sock)
        pair.expect("TLS_TX", six.install(Direction.TX), "done")
        pair.expect("TLS_RX", six.install(Direction.RX), "done")
        pair.expect("the same address", six.sock.getsockname() == before, wanted=True)
        six.send(b"six")
        pair.expect("sealed", six.peer.record(), (DATA, b"six"))
        six.peer.send(b"6")
        pair.expect("opened", six.recv(64), b"6")


@promise("selftest disconnect")
def a_tls_socket_cannot_be_disconnected(pair: Pair) -> None:
    """connect(2) with AF_UNSPEC says EOPNOTSUPP, and what was received is still there."""
    pair.peer.send(b"still here")
    unspecified = ctypes.create_string_buffer(16)
    libc = ctypes.CDLL(None, use_errno=True)
    answer = "done"
    if libc.connect(pair.sock.fileno(), unspecified, 16):
        answer = attempt(_fail, ctypes.get_errno())
    pair.expect("connect to AF_UNSPEC", answer, "EOPNOTSUPP")
    pair.expect("recv", pair.recv(64), b"still here")


@promise("selftest rekey_fail", suites=TLS12)
def tls12_keys_are_set_once(pair: Pair) -> None:
    """TLS 1.2 knows no KeyUpdate: a second TLS_TX or TLS_RX says EBUSY, and the first keys go on."""
    pair.expect("TLS_TX again", pair.install(Direction.TX, generation=1), "EBUSY")
    pair.expect("TLS_RX again", pair.install(Direction.RX, generation=1), "EBUSY")
    pair.send(b"the first keys")
    pair.expect("sealed", pair.peer.record(), (DATA, b"the first keys"))


@promise("tls.rst, Creating a TLS connection", installed=())
def version_and_cipher_are_the_same_in_both_directions(pair: Pair) -> None:
    """Where TLS_TX was set, a TLS_RX of another version or cipher is refused by EINVAL."""
    other_version = TLS12[0] if pair.suite in TLS13 else TLS13[0]
    other_cipher = next(suite for suite in AES_256 if suite.version is pair.suite.version)
    pair.expect("TLS_TX", pair.install(Direction.TX), "done")
    pair.expect("TLS_RX of another version", pair.install(Direction.RX, suite=other_version), "EINVAL")
    pair.expect("of another cipher", pair.install(Direction.RX, suite=other_cipher), "EINVAL")
    pair.expect("of the same", pair.install(Direction.RX), "done")


@promise("tls.rst, Statistics", installed=())
def an_install_is_counted(pair: Pair) -> None:
    """TlsTxSw and TlsRxSw in /proc/net/tls_stat rise by one for each direction that the kernel took over."""
    before = Counters.read()
    pair.install(Direction.TX)
    pair.expect("TlsTxSw", (Counters.read() - before)["TlsTxSw"], 1)
    pair.install(Direction.RX)
    pair.expect("TlsRxSw", (Counters.read() - before)["TlsRxSw"], 1)


@promise("selftest shutdown")
def shutdown_ends_both_directions(pair: Pair) -> None:
    """After SHUT_RDWR the peer reads the end of the stream, and so does the kernel's end."""
    pair.send(b"last words")
    pair.expect("the peer got", pair.peer.record(), (DATA, b"last words"))
    pair.expect("shutdown", attempt(pair.sock.shutdown, socket.SHUT_RDWR), None)
    pair.expect("the peer's recv", pair.peer.sock.recv(64), b"")
    pair.expect("recv", pair.recv(64), b"")


@promise("selftest shutdown_unsent")
def shutdown_with_an_open_record_ends_too(pair: Pair) -> None:
    """SHUT_RDWR while MSG_MORE holds a record open neither fails nor waits."""
    pair.expect("send with MSG_MORE", pair.send(b"more to come", socket.MSG_MORE), 12)
    pair.expect("shutdown", attempt(pair.sock.shutdown, socket.SHUT_RDWR), None)
    pair.expect("the peer's shutdown", attempt(pair.peer.sock.shutdown, socket.SHUT_RDWR), None)


@promise("selftest shutdown_reuse", installed=())
def a_tls_socket_cannot_be_used_anew(pair: Pair) -> None:
    """After its end a TLS socket neither listens (EINVAL) nor connects (EISCONN)."""
    pair.install(Direction.TX)
    pair.sock.shutdown(socket.SHUT_RDWR)
    pair.peer.sock.shutdown(socket.SHUT_RDWR)
    pair.peer.sock.close()
    pair.expect("bind", attempt(pair.sock.bind, ("0.0.0.0", 0)), None)  # noqa: S104 - any port, to listen on
    pair.expect("listen", attempt(pair.sock.listen, 10), "EINVAL")
    with connected() as (other, _):
        pair.expect("connect", attempt(pair.sock.connect, other.getpeername()), "EISCONN")


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number))
