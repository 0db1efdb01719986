"""What this kernel accepts, found by trying, never by its version.

A probe is a real setsockopt on a real loopback connection with made-up keys. Answers are kept for the life of the
process, because a refusal can take seconds while the kernel asks modprobe for a module that does not exist. Only a
temporary failure (no memory, no descriptor left) is raised as OSError, and tried again next time.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ktlslab.errors import RingUnavailableError, errno_name
from ktlslab.linux import ktls
from ktlslab.linux.ktls import CryptoInfo, Direction
from ktlslab.linux.operations import Operation
from ktlslab.linux.ring import Ring, transfer
from ktlslab.tls.suites import CIPHERS

TLS_VERSIONS = (0x0303, 0x0304)
_USUAL = (TLS_VERSIONS[-1], ktls.COMMON[0])  # TLS 1.3, AES-128-GCM: every kernel with kTLS for 1.3 has it
_SECONDS = 10.0
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
# No memory, no descriptors, a signal: the next answer may be different.
_PASSING = frozenset(
    {errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Yes, or no with the kernel's errno. `reason` may say what to do about it."""

    accepted: bool
    errno: int = 0
    reason: str = ""

    def __bool__(self) -> bool:
        return self.accepted

    def __str__(self) -> str:
        if self.accepted:
            return "accepted"
        return f"refused, {errno_name(self.errno)}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """All answers. `suites` maps (TLS version on the wire, cipher type, direction) to the kernel's answer."""

    ulp: Answer
    suites: dict[tuple[int, int, Direction], Answer]
    io_uring: Answer

    @property
    def ktls(self) -> bool:
        """Whether the kernel takes at least one suite in both directions."""
        return any(
            answer and self.suites[version, cipher, Direction.RX]
            for (version, cipher, direction), answer in self.suites.items()
            if direction is Direction.TX
        )

    def _repr_html_(self) -> str:
        from ktlslab._html import Html, card, table  # noqa: PLC0415 - only in a notebook

        rows: list[tuple[str, object]] = [("tls module", self.ulp), ("io_uring", self.io_uring)]
        if self.ulp:  # without the module every suite has its answer
            names = {cipher.kernel_type: cipher.name for cipher in CIPHERS}
            lines = [
                (
                    f"{names[cipher]}, TLS 1.{version - 0x0301}",
                    *(self.suites[version, cipher, one] for one in Direction),
                )
                for version, cipher in dict.fromkeys(key[:2] for key in self.suites)
            ]
            rows.append(("keys", Html(table(("", *(one.name for one in Direction)), lines))))
        return card("What this kernel accepts", rows)


@functools.cache
def ulp() -> Answer:
    """Whether the kernel attaches its tls module to a socket."""
    with connected() as (sock, _):
        return _try(lambda: ktls.attach(sock))


@functools.cache
def accepts(version: int, cipher_type: int, direction: Direction) -> Answer:
    """Whether the kernel takes keys of this version and cipher in this direction."""
    if not ulp():
        return ulp()
    packed = _made_up(version, cipher_type)
    with connected() as (sock, _):
        ktls.attach(sock)
        return _try(lambda: ktls.set_keys(sock, direction, packed))


@functools.cache
def rekey() -> Answer:
    """Whether the kernel takes new keys during a TLS 1.3 session (KeyUpdate); EBUSY means that it does not.

    Any other errno says why there is no answer: no tls module, no AES-GCM.
    """
    return _after_keys(lambda sock: ktls.set_keys(sock, Direction.TX, _made_up(*_USUAL)))


@functools.cache
def max_payload() -> Answer:
    """Whether the kernel can limit the size of its records (TLS_TX_MAX_PAYLOAD_LEN)."""
    return _after_keys(lambda sock: ktls.set_max_payload(sock, 512))


@functools.cache
def uring_setsockopt() -> Answer:
    """Whether io_uring can set socket options, so that one submission installs keys and sends the first bytes."""
    try:
        with Ring(2) as ring, connected() as (sock, _):
            on = (1).to_bytes(4, sys.byteorder)
            option = Operation.setsockopt(sock.fileno(), socket.IPPROTO_TCP, socket.TCP_NODELAY, on)
            (result,) = transfer(ring, [option], timeout=_SECONDS)
            return _answer(-result or (0 if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) else errno.EIO))
    except RingUnavailableError as error:
        return _answer(error.errno or errno.ENOSYS)


@functools.cache
def io_uring() -> Answer:
    """Whether this process may use io_uring; if not, `Answer.reason` says what to do.

    A temporary failure, such as no descriptor left, raises RingUnavailableError instead.
    """
    try:
        Ring(2).close()
    except RingUnavailableError as error:
        if error.errno in _NO_DESCRIPTORS:
            raise
        return Answer(accepted=False, errno=error.errno or errno.ENOSYS, reason=error.remedy)
    return Answer(accepted=True)


def probe() -> Probe:
    """Try each version, usual cipher and direction. A rare cipher can take seconds; `accepts` tries a single one."""
    keys = [
        (version, cipher, direction) for version in TLS_VERSIONS for cipher in ktls.COMMON for direction in Direction
    ]
    return Probe(ulp=ulp(), suites={key: accepts(*key) for key in keys}, io_uring=io_uring())


def _made_up(version: int, cipher_type: int) -> bytearray:
    """Return all-zero keys, for a socket that never carries data."""
    lengths = {name: size for name, _, size in ktls.layout(cipher_type)}
    keys = {name: bytes(lengths[name]) for name in ktls.FIELDS}
    return CryptoInfo(version=version, cipher_type=cipher_type, **keys).pack()


def _after_keys(setting: Callable[[socket.socket], None]) -> Answer:
    """Try something on a socket with made-up TX keys. If it cannot get keys, that errno is the answer."""
    if not ulp():
        return ulp()
    with connected() as (sock, _):
        ktls.attach(sock)
        given = _try(lambda: ktls.set_keys(sock, Direction.TX, _made_up(*_USUAL)))
        return _try(lambda: setting(sock)) if given else given


def _try(setting: Callable[[], None]) -> Answer:
    try:
        setting()
    except OSError as error:
        return _answer(error.errno or errno.EIO)
    return _answer(0)


def _answer(number: int) -> Answer:
    """Return an answer, unless the errno is temporary: that is raised, because functools.cache keeps no exceptions."""
    if number in _PASSING:
        raise OSError(number, os.strerror(number))
    return Answer(accepted=number == 0, errno=number)


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield both ends of an established loopback connection; kTLS requires an established socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            yield client, accepted
