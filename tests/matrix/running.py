"""Runs the rows of the matrix."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from ktlslab._closing import Closing
from ktlslab.errors import KtlsLabError
from ktlslab.stages.transfer import ending
from tests.handpeer import HandPeers
from tests.matrix.rows import LINGER_S, SHORT_S, Place, Row, Scene

LIMIT_S = 25.0  # of any row


class Endless(BaseException):
    """A row took longer than LIMIT_S."""


class Runner(Closing):
    """Runs rows, each at one place. It changes how long a close waits, and SIGALRM, until it is closed.

    `brief` seconds replace SHORT_S.
    """

    def __init__(self, brief: float | None = None) -> None:
        self._brief = brief
        self._peers = HandPeers()
        self._linger, ending.LINGER_S = ending.LINGER_S, LINGER_S
        self._kept: tuple[Any, Any] | None = None  # a stream and its peer that the next variant can use
        self._of: tuple[Any, ...] = ()

    def close(self) -> None:
        self._drop()
        self._peers.close()
        ending.LINGER_S = self._linger

    def run(self, row: Row, place: Place) -> str:
        """Run a row and return its outcome. A busy machine may make a call late; one that is late thrice is so."""
        for _ in range(3):
            outcome = self._run(row, place)
            if "late: " not in outcome:
                break
        return outcome

    def _run(self, row: Row, place: Place) -> str:
        of = (row.name, place.layer, place.engine, place.role, place.version)
        if self._of != of:
            self._drop()
        timeout = self._brief if self._brief and row.timeout == SHORT_S else row.timeout
        stream, peer = self._kept or (None, None) if row.opens else self._kept or self._open(row, place, timeout)
        scene = Scene(place=place, peers=self._peers, stream=stream, peer=peer, timeout=timeout)
        try:
            with limited():
                row.act(scene, *(() if row.each == (None,) else (place.variant,)))
        except Endless:
            scene.says("no end")
        outcome = ", then ".join(scene.words)
        self._kept, self._of = (scene.stream, scene.peer), of
        if not (row.goes_on and not row.opens and right(row, place, outcome)):
            self._drop()
        with contextlib.suppress(Endless), limited():
            scene.owned.close()
        return outcome

    def _open(self, row: Row, place: Place, timeout: float) -> tuple[Any, Any]:
        version = place.version
        return self._peers.open(place.layer, place.engine, place.role, version=version, timeout=timeout, **row.options)

    def _drop(self) -> None:
        """Close what is kept, the peer first, so that nothing waits."""
        stream, peer = self._kept or (None, None)
        self._kept = None
        with contextlib.suppress(Endless, KtlsLabError), limited():
            if peer:
                peer.close()
            if stream:
                stream.close()


def right(row: Row, place: Place, outcome: str) -> bool:
    return outcome in row.outcome_at(place).split(" or ")


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise Endless in this thread after LIMIT_S seconds."""

    def stop(*_: Any) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
