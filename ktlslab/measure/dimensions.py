"""The dimensions of a plan: which values each may have, and how input becomes them."""

from __future__ import annotations

import json
import operator
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ktlslab import _checks
from ktlslab.errors import UsageError
from ktlslab.measure.link import Link
from ktlslab.tls.records import MAX_PLAINTEXT
from ktlslab.tls.suites import Suite

RECORD_LAYERS = (
    *("plain", "userspace", "kernel", "kernel-tx", "kernel-rx"),
    *("stdlib-ssl", "openssl-ktls", "userspace-rustls"),
)
IO_ENGINES = ("syscall", "uring")
WORKLOADS = ("echo", "upload", "download", "sendfile", "serve")
KIB = 1024
MAX_PAYLOAD_BYTES = 16 * KIB * KIB
MAX_IN_FLIGHT = 256  # operations on all connections at once
MAX_CONNECTIONS = 10_000  # in `serve`; in other workloads each connection has an operation in flight
MIN_RECORD_BYTES = 64  # the least that TLS_TX_MAX_PAYLOAD_LEN accepts

KNOWN: dict[str, tuple[str, ...]] = {
    "record_layers": RECORD_LAYERS,
    "io_engines": IO_ENGINES,
    "workloads": WORKLOADS,
    "suites": tuple(suite.name for suite in Suite),
}
RANGES = {
    "payloads": (1, MAX_PAYLOAD_BYTES),
    "depths": (1, MAX_IN_FLIGHT),
    "connections": (1, MAX_CONNECTIONS),
    "requests": (1, MAX_PAYLOAD_BYTES),
    "record_sizes": (MIN_RECORD_BYTES, MAX_PLAINTEXT),
}
DIMENSIONS = (*KNOWN, *RANGES, "links")


def dimension(name: str, given: Any, tried: str) -> tuple[Any, ...]:
    """Return a dimension's values, given as a list, a tuple or a single value. UsageError: invalid values."""
    many = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    values = tuple(given) if many else (given,)
    if not values:
        raise UsageError(tried, answered=f"{name} is empty", remedy="Leave it out for its default.")
    return tuple(_value(name, value, given, tried) for value in values)


def dimensions_of(given: Mapping[str, Any], tried: str) -> dict[str, tuple[Any, ...]]:
    """Return a further product of a plan, each of its dimensions as `dimension` gives it."""
    for name in given:
        if name not in DIMENSIONS:
            remedy = f"{_checks.nearest(name, DIMENSIONS)}It takes {', '.join(DIMENSIONS)}."
            raise UsageError(tried, answered=f"`also` has {name!r}", remedy=remedy)
    return {name: dimension(name, values, tried) for name, values in given.items()}


def one_of(word: Any, known: Collection[str], what: str, tried: str) -> str:
    """Return a word if it is known. UsageError names the nearest known word, and all of them."""
    if isinstance(word, str) and word in known:
        return word
    raise UsageError(
        tried, answered=f"{what} {word!r}", remedy=f"{_checks.nearest(word, known)}Known: {', '.join(known)}."
    )


def shown(value: Any) -> str:
    """Show a value as a plan's file has it."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, default=repr)


def whole(value: Any) -> int | None:
    """Return a whole number of any type but bool, None for all else."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _value(name: str, value: Any, given: Any, tried: str) -> Any:
    words = "whole numbers" if name in RANGES else "names"
    wrong = UsageError(tried, answered=f"{name} is {shown(given)}", remedy=f"It is a list of {words}, or one of them.")
    if name in RANGES:
        low, high = RANGES[name]
        if (number := whole(value)) is None:
            raise wrong
        if not low <= number <= high:
            remedy = f"They are {low} to {high}."
            raise UsageError(tried, answered=f"{number} in {name} is out of range", remedy=remedy)
        return number
    if name == "suites" and isinstance(value, str | Suite):
        return Suite.of(value).name
    if not isinstance(value, str):
        raise wrong
    if name == "links":
        Link.parse(value)
        return value
    return one_of(value, KNOWN[name], f"{name} has", tried)
