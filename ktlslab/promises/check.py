"""What a promise is, and how a check of one speaks.

A check is a function that takes a `Pair` (one end in the kernel's hands, the other in ours) and tries what its
docstring says: that is the promise, and the decorator adds who made it. There are three verdicts. The function returns
(kept), or raises `Broken`, or raises `Absent` where this kernel does not have the thing. None asks for the kernel's
version.
"""

from __future__ import annotations

import errno
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktlslab.linux.ktls import Direction
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite

if TYPE_CHECKING:
    from ktlslab.promises.pair import Pair

KEPT, BROKEN, ABSENT = VERDICTS = ("kept", "broken", "not in this kernel")

TLS13 = (Suite.TLS_AES_128_GCM_SHA256,)
TLS12 = (Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,)
EITHER = TLS13 + TLS12
EVERY = (
    *EITHER,
    Suite.TLS_AES_256_GCM_SHA384,
    Suite.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    Suite.TLS_CHACHA20_POLY1305_SHA256,
    Suite.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    Suite.TLS_AES_128_CCM_SHA256,
    Suite.TLS_ECDHE_ECDSA_WITH_AES_128_CCM,
)
BOTH_WAYS = (Direction.TX, Direction.RX)
_SHORT = 24  # bytes that are shown as they are


class Broken(Exception):  # noqa: N818 - a verdict, not an error
    """The kernel did something other than what was promised; the message says what was seen."""


class Absent(Exception):  # noqa: N818
    """This kernel does not have what the promise is about; the message says how it said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One behaviour that users of kTLS may count on, and the function that checks whether they can.

    `suites`: the cipher suites it is tried with, one after the other. `installed`: what the kernel's end has when the
    check begins: directions with keys, () for the tls module without keys, None for plain TCP.
    """

    name: str
    group: str
    says: str
    source: str
    suites: tuple[Suite, ...]
    installed: tuple[Direction, ...] | None
    check: Callable[[Pair], None]

    @property
    def title(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ")

    @property
    def code(self) -> str:
        """The check as it is written."""
        return inspect.getsource(self.check)

    @property
    def file(self) -> str:
        """The file it is written in, from the package's own folder on."""
        path = Path(inspect.getfile(self.check))
        return (
            "/".join(("ktlslab", *path.parts[path.parts.index("promises") :]))
            if "promises" in path.parts
            else path.name
        )

    @property
    def line(self) -> int:
        """The line it begins at."""
        return inspect.getsourcelines(self.check)[1]


class Group:
    """Promises about one thing; as a decorator, `@promise(source, ...)`, it takes a check in."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.promises: list[Promise] = []

    def __call__(
        self,
        source: str,
        *,
        suites: tuple[Suite, ...] = EITHER,
        installed: tuple[Direction, ...] | None = BOTH_WAYS,
    ) -> Callable[[Callable[[Pair], None]], Callable[[Pair], None]]:
        """Register a check. `source`: where the promise stands, or whose experience it is."""

        def register(check: Callable[[Pair], None]) -> Callable[[Pair], None]:
            says = " ".join((check.__doc__ or "").split())
            name = check.__name__
            self.promises.append(
                Promise(
                    name=name,
                    group=self.title,
                    says=says,
                    source=source,
                    suites=suites,
                    installed=installed,
                    check=check,
                )
            )
            return check

        return register


def attempt(call: Callable[..., Any], *args: Any) -> Any:
    """Return what a call gave, or the name of the errno that it failed with."""
    try:
        return call(*args)
    except OSError as error:
        return errno_of(error)


def errno_of(error: OSError) -> str:
    """Return an errno's name. EOPNOTSUPP has a second one, which Python prefers and no manual page of sockets uses."""
    return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode.get(error.errno or 0, str(error))


def show(value: object) -> str:
    """Say a value briefly: an errno's name, a count, bytes or how many of them, a record's type and bytes."""
    if isinstance(value, bytes | bytearray):
        return repr(bytes(value)) if len(value) <= _SHORT else f"{len(value)} bytes"
    if isinstance(value, ContentType):
        return value.name.lower()
    if isinstance(value, list | tuple):
        parts = [show(part) for part in value]
        return f"{parts[0]} {parts[1]}" if isinstance(value, tuple) and len(parts) == 2 else f"[{', '.join(parts)}]"
    return str(value)


def difference(got: object, wanted: object) -> str:
    """Say where bytes differ that `show` shows alike."""
    if not isinstance(got, bytes | bytearray) or not isinstance(wanted, bytes | bytearray) or show(got) != show(wanted):
        return ""
    at = next(at for at, pair in enumerate(zip(got, wanted, strict=True)) if pair[0] != pair[1])
    return f", others from byte {at} on, {bytes(got[at : at + 8])!r}"
