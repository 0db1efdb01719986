"""Rings for checks, and their results in the form that checks use."""

from __future__ import annotations

import errno
import functools
from typing import Any

from ktlslab.errors import RingUnavailableError
from ktlslab.linux.operations import Operation
from ktlslab.linux.ring import Ring, transfer
from ktlslab.promises.check import Absent, attempt
from ktlslab.promises.pair import ENOUGH_S, QUIET_S, Pair


def ring_for(pair: Pair, **setup: bool) -> Ring:
    """Return a ring that closes with the pair. Absent where the kernel has no such ring."""
    try:
        ring: Ring = pair.keep(Ring(16, **setup))
    except RingUnavailableError as error:
        raise Absent(error.answered) from error
    return ring


def told(result: int) -> Any:
    """Return a completion's result: a count, or the errno's name."""
    if result == -errno.EOPNOTSUPP:
        return "EOPNOTSUPP"
    return result if result >= 0 else errno.errorcode.get(-result, str(result))


def ran(ring: Ring, *operations: Operation) -> Any:
    """Run operations with one submission; return the result of one, a list of several; ETIMEDOUT if they do not end."""
    results = attempt(functools.partial(transfer, timeout=ENOUGH_S), ring, operations)
    if isinstance(results, str):
        return results
    said = [told(result) for result in results]
    return said[0] if len(said) == 1 else said


def finished(ring: Ring, token: int, within: float = ENOUGH_S) -> Any:
    """Return a started operation's result, or "in flight"."""
    try:
        done = ring.reap(1, timeout=within)
    except TimeoutError:
        return "in flight"
    return next((told(completion.result) for completion in done if completion.token == token), "in flight")


def waits(ring: Ring, token: int) -> bool:
    """Whether a started operation is still running after a short while."""
    return bool(finished(ring, token, QUIET_S) == "in flight")
