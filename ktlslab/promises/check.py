"""Promises, the functions that check them, and their verdicts.

A check is a function that takes a `Pair` (the kernel's end and ours) and tests what its docstring says. The docstring
is the promise; the decorator adds its source. The function returns (kept), raises `Broken`, or raises `Absent` where
this kernel lacks the feature. No check asks for the kernel's version.

A check that can take a kernel down names the CVE, and the versions that mended it:

    @promise("selftest data_steal", cve="CVE-2025-38616", mended=("6.1.185", "6.12.43", "6.17"))

Guests run it like any other. On this machine's own kernel it runs only where that is mended: see `scoreboard`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ktlslab.linux.ktls import Direction
from ktlslab.promises.verdicts import ABSENT, BROKEN, KEPT, UNTRIED, VERDICTS, Absent, Broken, attempt, errno_of
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
    "UNTRIED",
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
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A behaviour that users of kTLS rely on, and the function that checks it.

    `suites`: the cipher suites to check it with, one after the other. `installed`: the state of the kernel's end when
    the check begins: directions with keys, () for the tls module without keys, None for plain TCP. `within`: what the
    check then runs within, a context manager of the pair, such as another cipher. `cve`: the fault by which the check
    can take a kernel down, "" if there is none. `mended`: the first version of each series without that fault, the last
    of them for every later series as well.
    """

    name: str
    group: str
    says: str
    source: str
    suites: tuple[Suite, ...]
    installed: tuple[Direction, ...] | None
    check: Callable[[Pair], None]
    within: Callable[[Pair], AbstractContextManager[object]] | None = None
    cve: str = ""
    mended: tuple[str, ...] = ()

    def endangers(self, version: str) -> bool:
        """Whether the check may take down a kernel of this upstream version, such as 6.1.176."""
        own, mended = _numbers(version), sorted(map(_numbers, self.mended))
        first = [numbers for numbers in mended if numbers[:2] == own[:2]] or mended[-1:]
        return bool(self.cve) and not (first and own >= first[0])

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
        return path.relative_to(_ROOT).as_posix() if path.is_relative_to(_ROOT) else path.name

    @property
    def line(self) -> int:
        """The line where the check begins."""
        return inspect.getsourcelines(self.check)[1]


class Group:
    """Promises about one subject; as a decorator, `@promise(source, ...)`, it adds a check.

    `within` is for all of them, see Promise.
    """

    def __init__(self, title: str, within: Callable[[Pair], AbstractContextManager[object]] | None = None) -> None:
        self.title, self.within = title, within
        self.promises: list[Promise] = []

    def __call__(
        self,
        source: str,
        *,
        suites: tuple[Suite, ...] = EITHER,
        installed: tuple[Direction, ...] | None = BOTH_WAYS,
        cve: str = "",
        mended: tuple[str, ...] = (),
    ) -> Callable[[Callable[[Pair], None]], Callable[[Pair], None]]:
        """Register a check. `source`: where the promise comes from, a document or experience; else as in `Promise`."""

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
                    within=self.within,
                    cve=cve,
                    mended=mended,
                )
            )
            return check

        return register


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: (6, 12, 118) for `6.12.118+deb13-amd64`."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
