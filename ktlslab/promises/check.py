"""Promises, the functions that check them, and their verdicts.

A check is a function that takes a `Pair` (the kernel's end and ours) and tests what its docstring says. The docstring
is the promise; the decorator adds its source. There are three verdicts: the function returns (kept), raises `Broken`,
or raises `Absent` where this kernel lacks the feature. No check asks for the kernel's version.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ktlslab.linux.ktls import Direction
from ktlslab.promises.verdicts import ABSENT, BROKEN, KEPT, VERDICTS, Absent, Broken, attempt, errno_of
from ktlslab.tls.suites import Suite

if TYPE_CHECKING:
    from ktlslab.promises.pair import Pair

# All that a check is written with has one home for its author: this module.
__all__ = [
    "ABSENT",
    "BOTH_WAYS",
    "BROKEN",
    "EITHER",
    "EVERY",
    "KEPT",
    "TLS12",
    "TLS13",
    "VERDICTS",
    "Absent",
    "Broken",
    "Group",
    "Promise",
    "attempt",
    "errno_of",
]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A behaviour that users of kTLS rely on, and the function that checks it.

    `suites`: the cipher suites to check it with, one after the other. `installed`: the state of the kernel's end when
    the check begins: directions with keys, () for the tls module without keys, None for plain TCP.
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
        """The name in words."""
        return self.name.replace("_", " ")

    @property
    def code(self) -> str:
        """The check's source code."""
        return inspect.getsource(self.check)

    @property
    def file(self) -> str:
        """The check's file, relative to the folder that holds the package."""
        path = Path(inspect.getfile(self.check))
        return (
            "/".join(("ktlslab", *path.parts[path.parts.index("promises") :]))
            if "promises" in path.parts
            else path.name
        )

    @property
    def line(self) -> int:
        """The line where the check begins."""
        return inspect.getsourcelines(self.check)[1]


class Group:
    """Promises about one subject; as a decorator, `@promise(source, ...)`, it adds a check."""

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
        """Register a check. `source`: the document or the experience that the promise comes from."""

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
