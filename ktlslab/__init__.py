"""ktlslab hands a TLS session to the Linux kernel in five visible steps, and measures what that did.

The names below are resolved when they are first used: importing ktlslab imports neither pandas nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ktlslab.doctor import examine
    from ktlslab.errors import KtlsLabError
    from ktlslab.https import get
    from ktlslab.linux.counters import Counters
    from ktlslab.linux.probe import probe
    from ktlslab.linux.ring import Ring
    from ktlslab.measure.plan import Plan
    from ktlslab.measure.sweep import sweep
    from ktlslab.measure.table import read_table
    from ktlslab.session import Session, open_session
    from ktlslab.stages import ClientConfig, Direction, Stream, connect, export, handshake, install
    from ktlslab.tls.suites import Suite, Version

__version__ = "0.1.0"

_HOMES = {
    # the five stages
    "connect": "stages",  # (host, port) -> Connection, through io_uring
    "handshake": "stages",  # Connection -> Handshake, in userspace, not one byte past its end
    "export": "stages",  # Handshake -> TrafficKeys
    "install": "stages",  # Connection, TrafficKeys -> Installed or Refused
    "Stream": "stages",  # bytes to and from the peer, whoever makes the records
    "ClientConfig": "stages",  # what a client offers and insists on
    "Direction": "stages",  # TX, RX
    # all five at once
    "open_session": "session",  # the stages in order, with a fallback that says why
    "Session": "session",
    "get": "https",  # an https URL -> Response
    # the kernel
    "Ring": "linux.ring",  # io_uring for one thread
    "probe": "linux.probe",  # what this kernel accepts
    "Counters": "linux.counters",  # /proc/net/tls_stat
    "Suite": "tls.suites",
    "Version": "tls.suites",
    # measuring
    "sweep": "measure.sweep",  # a plan, on machines -> DataFrame
    "Plan": "measure.plan",
    "read_table": "measure.table",
    "examine": "doctor",  # what this machine can do, and what to install
    "KtlsLabError": "errors",  # the root of every error
}

__all__ = [
    "ClientConfig",
    "Counters",
    "Direction",
    "KtlsLabError",
    "Plan",
    "Ring",
    "Session",
    "Stream",
    "Suite",
    "Version",
    "connect",
    "examine",
    "export",
    "get",
    "handshake",
    "install",
    "open_session",
    "probe",
    "read_table",
    "sweep",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
