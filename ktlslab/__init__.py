"""ktlslab hands a TLS session to the Linux kernel in five visible steps, and measures what that did.

The names below are resolved when they are first used: importing ktlslab imports neither pandas nor matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab._lazy import lazily

if TYPE_CHECKING:
    from ktlslab.certificates import make_certificates
    from ktlslab.doctor import examine
    from ktlslab.errors import KtlsLabError
    from ktlslab.https import get
    from ktlslab.linux.counters import Counters
    from ktlslab.linux.probe import probe
    from ktlslab.linux.ring import Ring
    from ktlslab.measure.plan import Plan
    from ktlslab.measure.sweeping import sweep
    from ktlslab.measure.table import read_table
    from ktlslab.relay import Fault, Relay
    from ktlslab.session import Session, accept_session, open_session, session_pair
    from ktlslab.stages import (
        ClientConfig,
        Direction,
        Psk,
        ServerConfig,
        Stream,
        accept,
        connect,
        export,
        handshake,
        install,
        install_linked,
        kernel_suites,
    )
    from ktlslab.tls.suites import Suite, Version

__version__ = "0.1.0"

_HOMES = {
    # the five stages
    "connect": "stages",  # (host, port) -> Connection, through io_uring
    "accept": "stages",  # a listening socket -> Connection
    "handshake": "stages",  # Connection -> Handshake, in userspace, not one byte past its end
    "export": "stages",  # Handshake -> TrafficKeys
    "install": "stages",  # Connection, TrafficKeys -> Installed or Refused
    "install_linked": "stages",  # the same by linked io_uring operations, the first send among them
    "kernel_suites": "stages",  # those whose records this kernel makes
    "Stream": "stages",  # bytes to and from the peer, whoever makes the records
    "ClientConfig": "stages",  # what a client offers and insists on
    "ServerConfig": "stages",  # what a server shows and agrees to
    "Psk": "stages",  # a key agreed on beforehand
    "make_certificates": "certificates",  # throw-away ones, for a server on loopback
    "Direction": "stages",  # TX, RX
    # all five at once
    "open_session": "session",  # the stages in order, with a fallback that says why
    "accept_session": "session",  # the same as a server
    "session_pair": "session",  # a client and a server in this process
    "Session": "session",
    "get": "https",  # an https URL -> Response
    # faults
    "Relay": "relay",  # stands between two ends and damages what passes
    "Fault": "relay",
    # the kernel
    "Ring": "linux.ring",  # io_uring for one thread
    "probe": "linux.probe",  # what this kernel accepts
    "Counters": "linux.counters",  # /proc/net/tls_stat
    "Suite": "tls.suites",
    "Version": "tls.suites",
    # measuring
    "sweep": "measure.sweeping",  # a plan, on machines -> DataFrame
    "Plan": "measure.plan",
    "read_table": "measure.table",
    "examine": "doctor",  # what this machine can do, and what to install
    "KtlsLabError": "errors",  # the root of every error
}

__all__ = [
    "ClientConfig",
    "Counters",
    "Direction",
    "Fault",
    "KtlsLabError",
    "Plan",
    "Psk",
    "Relay",
    "Ring",
    "ServerConfig",
    "Session",
    "Stream",
    "Suite",
    "Version",
    "accept",
    "accept_session",
    "connect",
    "examine",
    "export",
    "get",
    "handshake",
    "install",
    "install_linked",
    "kernel_suites",
    "make_certificates",
    "open_session",
    "probe",
    "read_table",
    "session_pair",
    "sweep",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
