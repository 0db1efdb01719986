"""What this kernel accepts, found by trying, never by its version.

A probe is a real setsockopt on a real loopback connection with made-up keys. Answers are kept for the life of the
process: a refusal can cost seconds, because the kernel first asks modprobe for a module that does not exist.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ktlslab.errors import RingUnavailableError, errno_name
from ktlslab.linux import ktls
from ktlslab.linux.ktls import CryptoInfo, Direction
from ktlslab.linux.ring import Ring

TLS_VERSIONS = (0x0303, 0x0304)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Yes, or no with the kernel's errno."""

    accepted: bool
    errno: int = 0

    def __bool__(self) -> bool:
        return self.accepted

    def __str__(self) -> str:
        return "accepted" if self.accepted else f"refused, {errno_name(self.errno)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """All that was found: `suites` maps (TLS version on the wire, cipher type, direction) to the kernel's answer."""

    ulp: Answer
    suites: dict[tuple[int, int, Direction], Answer]
    io_uring: str | None  # None: usable, else why not

    @property
    def ktls(self) -> bool:
        """Whether at least one suite can be handed over in both directions."""
        return any(
            answer and self.suites[version, cipher, Direction.RX]
            for (version, cipher, direction), answer in self.suites.items()
            if direction is Direction.TX
        )


@functools.cache
def ulp() -> Answer:
    """Whether the kernel attaches its tls module to a socket."""
    with _pair() as sock:
        return _try(lambda: ktls.attach(sock))


@functools.cache
def accepts(version: int, cipher_type: int, direction: Direction) -> Answer:
    """Whether the kernel takes keys of this version and cipher in this direction."""
    if not ulp():
        return ulp()
    lengths = {name: size for name, _, size in ktls.layout(cipher_type)}
    keys = {name: bytes(lengths[name]) for name in ktls.FIELDS}
    packed = CryptoInfo(version=version, cipher_type=cipher_type, **keys).pack()
    with _pair() as sock:
        ktls.attach(sock)
        return _try(lambda: ktls.set_keys(sock, direction, packed))


@functools.cache
def io_uring() -> str | None:
    """None where io_uring may be used, else the sentence that says why not and what to do."""
    try:
        Ring(2).close()
    except RingUnavailableError as error:
        return str(error)
    return None


def probe() -> Probe:
    """Try everything there is a struct for."""
    keys = [(version, cipher, way) for version in TLS_VERSIONS for cipher in ktls.STRUCTS for way in Direction]
    return Probe(ulp=ulp(), suites={key: accepts(*key) for key in keys}, io_uring=io_uring())


def _try(setting: Callable[[], None]) -> Answer:
    try:
        setting()
    except OSError as error:
        return Answer(accepted=False, errno=error.errno or errno.EIO)
    return Answer(accepted=True)


@contextlib.contextmanager
def _pair() -> Iterator[socket.socket]:
    """One end of an established loopback connection: kTLS takes no other kind of socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            yield client
