"""Runs the rows of the matrix: a `Runner` one after another, a `Crew` many at once."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import multiprocessing.util
import signal
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from ktlslab._closing import Closing
from ktlslab.errors import KtlsLabError
from ktlslab.stages.transfer import ending
from tests.handpeer import HandPeers
from tests.matrix.rows import ENDLESS_S, LIMIT_S, LINGER_S, ROWS, SHORT_S, Place, Row, Scene

AT_ONCE = 8  # processes: a row waits for nearly all of its time
HANGS_S = 8 * LIMIT_S  # a row that takes so long is past every limit: its process says where it is, and ends
COLLECT_EVERY = 8  # runs


class Endless(BaseException):
    """A row took longer than LIMIT_S."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The outcome of a row at a place; `wrong` is "", or says what was expected there."""

    engine: str
    role: str
    outcome: str
    wrong: str


class Crew(Closing):
    """Processes that run rows: `start` a row on a layer, and its future gives the list of what was Seen.

    `times` is how often each place is run, `collect` whether garbage is collected again and again. For `brief` see
    Runner.
    """

    def __init__(self, at_once: int = AT_ONCE, *, brief: float | None = None) -> None:
        # Forked, because an emulated machine takes seconds to import all this once more.
        context = multiprocessing.get_context("fork")
        self._pool = ProcessPoolExecutor(at_once, context, initializer=_enlist, initargs=(brief,))

    def start(
        self, row: Row, layer: str, *, thin: bool = False, times: int = 1, collect: bool = False
    ) -> Future[list[Seen]]:
        with warnings.catch_warnings():  # of later Pythons: this process may have threads, which the others do not need
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._pool.submit(_meet, ROWS.index(row), layer, thin, times, collect)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _enlist(brief: float | None) -> None:
    global _runner  # noqa: PLW0603 - this process's own
    faulthandler.enable(sys.__stderr__)
    _runner = Runner(brief)
    multiprocessing.util.Finalize(None, _retire, exitpriority=1)


def _retire() -> None:
    _runner.close()
    gc.collect()


_runner: Runner


def _meet(number: int, layer: str, thin: bool, times: int, collect: bool) -> list[Seen]:  # noqa: FBT001 - of `start`
    row, seen = ROWS[number], []
    for place in row.places(layer, thin=thin):
        for _ in range(times):
            faulthandler.dump_traceback_later(HANGS_S, exit=True, file=sys.__stderr__)
            outcome = _runner.run(row, place)
            faulthandler.cancel_dump_traceback_later()
            wrong = "" if right(row, place, outcome) else f"{place}: {outcome}, not: {row.outcome_at(place)}"
            seen.append(Seen(engine=place.engine, role=place.role, outcome=outcome, wrong=wrong))
            if collect and len(seen) % COLLECT_EVERY == 0:
                gc.collect()
    return seen


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
            with limited(ENDLESS_S if "no end" in row.outcome_at(place) else LIMIT_S):
                row.act(scene, *(() if row.each == (None,) else (place.variant,)))
        except Endless:
            scene.says("no end")
        outcome = ", then ".join(scene.words)
        self._kept, self._of = (scene.stream, scene.peer), of
        if not (row.goes_on and not row.opens and right(row, place, outcome) and "no end" not in outcome):
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
def limited(seconds: float = LIMIT_S) -> Iterator[None]:
    """Raise Endless in this thread after so many seconds."""

    def stop(*_: Any) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
