"""Which rows of a table a plot shows: one place, one setting except for what it varies, few enough suites to read.

A table can span kernels, links, depths; a panel cannot. What is not asked for is chosen here, always by the same rule,
and a plot's title names the choice: the newest kernel, and of links, depths, connections and record sizes the value
that most rows have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ktlslab.errors import UsageError
from ktlslab.measure.analysis import PLACE
from ktlslab.show.names import order, size_name
from ktlslab.tls.records import MAX_PLAINTEXT
from ktlslab.tls.suites import Suite

if TYPE_CHECKING:
    import pandas as pd

DEFAULTS: dict[str, Any] = {
    "link": "loopback",
    "depth": 1,
    "connections": 1,
    "record_size": MAX_PLAINTEXT,
    "request_bytes": 0,
}
SETTING = tuple(DEFAULTS)
MAX_SUITES = 3  # panels side by side that a notebook's width can take
_USUAL = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")

Place = tuple[str, ...]  # as `PLACE` names them: machine, kernel, clock, unit, host


def places(frame: pd.DataFrame) -> list[Place]:
    """Return each place of a frame, oldest kernel first."""
    found = frame[PLACE].drop_duplicates().itertuples(index=False, name=None)
    return sorted(found, key=lambda place: (version(str(place[1])), place))


def place_name(place: Place, among: list[Place]) -> str:
    """Name a place by its kernel, and by host and machine where several share that kernel."""
    said = [f"Linux {place[1]}"]
    for name in ("host", "machine"):
        at = PLACE.index(name)
        if len({other[at] for other in among if other[1] == place[1]}) > 1:
            said.append(str(place[at]))
    return ", ".join(said)


def at_place(frame: pd.DataFrame, place: Place) -> pd.DataFrame:
    """Return the rows of a place; its provenance stays with them."""
    return at(frame, dict(zip(PLACE, place, strict=True)))


def one_place(frame: pd.DataFrame, machine: str | None = None) -> pd.DataFrame:
    """Return the rows of one machine's newest kernel, or of the newest of all."""
    if machine is not None:
        have = [str(name) for name in frame["machine"].unique()]
        frame = frame[frame["machine"] == machine]
        if frame.empty:
            answered = f"no rows of machine {machine!r}"
            raise UsageError("plotting", answered=answered, remedy=f"There are {', '.join(have)}.")
    return at_place(frame, places(frame)[-1])


def usual(frame: pd.DataFrame, *varied: str) -> dict[str, Any]:
    """Return the usual link, depth, connections, record and request size, except those that are `varied`.

    The usual value is the one that most rows have; among equals the default, then the smallest.
    """
    found: dict[str, Any] = {}
    for name in SETTING:
        if name not in varied:
            counts = frame[name].value_counts()
            most = sorted(counts.index[counts == counts.max()])
            found[name] = DEFAULTS[name] if DEFAULTS[name] in most else most[0]
            frame = frame[frame[name] == found[name]]
    return found


def at(frame: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    """Return the rows of samples, effects or floors that have these values in these columns."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    return frame


def setting_name(frame: pd.DataFrame, *varied: str, among: pd.DataFrame) -> str:
    """Name what is not as usual in a frame of one setting, or not everywhere so `among` all: ", depth 16"."""
    said = {name: frame[name].iloc[0] for name in SETTING if name not in varied}
    named = {
        "link": f"over {said.get('link')}",
        "depth": f"depth {said.get('depth')}",
        "connections": "1 connection" if said.get("connections") == 1 else f"{said.get('connections')} connections",
        "request_bytes": f"requests of {size_name(int(said.get('request_bytes', 0)))}",
        "record_size": f"records of {size_name(int(said.get('record_size', 0)))} at most",
    }
    telling = (name for name, value in said.items() if value != DEFAULTS[name] or not among[name].eq(value).all())
    return "".join(f", {named[name]}" for name in telling)


def chosen(frame: pd.DataFrame, workload: str | None, suite: str | None) -> pd.DataFrame:
    """Return the rows of a workload and a suite, plain TCP's with any suite. UsageError where there are none."""
    if workload is not None:
        if workload not in set(frame["workload"]):
            have = ", ".join(workloads(frame))
            raise UsageError("plotting", answered=f"no rows of {workload!r}", remedy=f"There are {have}.")
        frame = frame[frame["workload"] == workload]
    if suite is not None:
        name = _suite(suite)
        if name not in set(frame["suite"]):
            have = ", ".join(sorted(set(frame["suite"]) - {""}))
            raise UsageError("plotting", answered=f"no rows of {name}", remedy=f"There are {have}.")
        frame = frame[frame["suite"].isin([name, ""])]
    return frame


def few_suites(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows of no more suites than fit side by side, TLS 1.3's first, and what to say of the others."""
    have = sorted(set(frame["suite"]) - {""})
    if len(have) <= MAX_SUITES:
        return frame, ""
    shown = sorted(have, key=lambda name: (name not in _USUAL, name))[:MAX_SUITES]
    return frame[frame["suite"].isin([*shown, ""])], f", {MAX_SUITES} of {len(have)} suites"


def one_suite(frame: pd.DataFrame, suite: str | None) -> str:
    """Return the suite asked for, or AES-256-GCM in TLS 1.3, or the one with most rows; empty for plain TCP."""
    have = frame.loc[frame["suite"] != "", "suite"]
    if suite is not None:
        return str(next(iter(set(chosen(frame, None, suite)["suite"]) - {""})))
    if have.empty:
        return ""
    return _USUAL[1] if _USUAL[1] in set(have) else str(have.mode().iloc[0])


def workloads(frame: pd.DataFrame) -> list[str]:
    return sorted(map(str, frame["workload"].unique()), key=order)


def payloads(frame: pd.DataFrame) -> list[int]:
    return sorted(map(int, frame["payload_bytes"].unique()))


def nearest(frame: pd.DataFrame, payload: int | None, default: int = MAX_PLAINTEXT) -> int:
    """Return the payload asked for, else the one nearest to a full record. UsageError where it is not there."""
    have = payloads(frame)
    if payload is None:
        return min(have, key=lambda size: (max(size, default) / min(size, default), size))
    if payload not in have:
        remedy = f"There are {', '.join(map(size_name, have))}."
        raise UsageError("plotting", answered=f"no rows of {size_name(payload)}", remedy=remedy)
    return payload


def _suite(name: str) -> str:
    return Suite.of(name).name


def version(kernel: str) -> tuple[int, ...]:
    """Return the numbers that a release begins with: 6.12.107+deb13-amd64 is after 6.2."""
    start = re.match(r"[\d.]*", kernel)
    return tuple(int(part) for part in (start.group() if start else "").split(".") if part)
