"""ktlslab hands a TLS session to the Linux kernel in five visible steps, and measures what that did.

The names below are resolved when they are first used: importing ktlslab imports neither pandas nor matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktlslab._lazy import lazily

if TYPE_CHECKING:
    from ktlslab import course, errors, estimating, guests, linux, measure, profiling, promises, show, stages, tls
    from ktlslab.certificates import Certificates, make_certificates
    from ktlslab.diagnosis import doctor
    from ktlslab.errors import KtlsLabError
    from ktlslab.estimating.estimation import estimate
    from ktlslab.estimating.frames import read_estimate
    from ktlslab.http.client import Client, get, post, request
    from ktlslab.http.response import Response
    from ktlslab.linux.capabilities import probe
    from ktlslab.linux.counters import Counters
    from ktlslab.linux.ring import Ring
    from ktlslab.measure.analysis import effects
    from ktlslab.measure.comparison import compared as compare
    from ktlslab.measure.plan import Plan
    from ktlslab.measure.sweeping import sweep
    from ktlslab.measure.table import read_table
    from ktlslab.profiling.collecting import profile
    from ktlslab.profiling.frames import read_profile
    from ktlslab.relay import Fault, Relay
    from ktlslab.session import Session, accept_session, open_session, session_pair
    from ktlslab.show import plots
    from ktlslab.show.forms import SweepForm
    from ktlslab.stages import (
        ClientConfig,
        Connection,
        Direction,
        DirectionKeys,
        Handshake,
        Installed,
        Psk,
        Refused,
        Resumption,
        ServerConfig,
        Stream,
        TrafficKeys,
        Why,
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
    "connect": "stages",  # host, port -> Connection
    "accept": "stages",  # a listening socket -> Connection
    "Connection": "stages",  # a TCP socket and its I/O engine
    "handshake": "stages",  # Connection -> Handshake, in userspace; reads no byte past its end
    "Handshake": "stages",
    "export": "stages",  # Handshake -> TrafficKeys
    "TrafficKeys": "stages",
    "DirectionKeys": "stages",  # of TX or RX
    "install": "stages",  # Connection, TrafficKeys -> Installed or Refused
    "install_linked": "stages",  # the same by linked io_uring operations, with the first send
    "Installed": "stages",
    "Refused": "stages",
    "Why": "stages",  # the reasons why the kernel or io_uring is not used
    "kernel_suites": "stages",  # the suites that this kernel takes
    "Stream": "stages",  # bytes to and from the peer, in every record layer
    "ClientConfig": "stages",  # what a client offers and requires
    "ServerConfig": "stages",  # what a server presents and accepts
    "Psk": "stages",  # a pre-shared key
    "Resumption": "stages",  # an earlier session to resume
    "make_certificates": "certificates",  # temporary ones, for a server on loopback
    "Certificates": "certificates",
    "Direction": "stages",  # TX, RX
    # all five at once
    "open_session": "session",  # the stages in order, with a fallback that says why
    "accept_session": "session",  # the same for a server
    "session_pair": "session",  # a client and a server in this process
    "Session": "session",
    # HTTPS on a session
    "get": "http.client",  # an https URL -> Response
    "post": "http.client",
    "request": "http.client",
    "Client": "http.client",  # keeps its connections
    "Response": "http.response",
    # faults
    "Relay": "relay",  # a proxy between two ends that damages what passes
    "Fault": "relay",
    # the kernel
    "Ring": "linux.ring",  # io_uring for one thread
    "probe": "linux.capabilities",  # what this kernel accepts
    "Counters": "linux.counters",  # /proc/net/tls_stat
    "Suite": "tls.suites",
    "Version": "tls.suites",
    "doctor": "diagnosis",  # what this machine can do, and what to install
    # measuring
    "sweep": "measure.sweeping",  # a plan, on machines -> DataFrame
    "Plan": "measure.plan",
    "read_table": "measure.table",  # TABLE.parquet -> DataFrame
    "effects": "measure.analysis",  # DataFrame -> the effects of kTLS and of io_uring, with intervals
    "compare": "measure.comparison:compared",  # two DataFrames -> what changed
    "profile": "profiling.collecting",  # a plan, in guests -> Profile: instructions by function and class
    "read_profile": "profiling.frames",  # PROFILE.parquet -> Profile
    "estimate": "estimating.estimation",  # a plan -> Estimate: nanoseconds on this CPU of arms that it cannot run
    "read_estimate": "estimating.frames",  # ESTIMATE.parquet -> Estimate
    "plots": "show.plots:",  # the module: DataFrame -> figures
    # packages
    "stages": "stages:",
    "linux": "linux:",
    "tls": "tls:",
    "measure": "measure:",
    "show": "show:",
    "course": "course:",
    "profiling": "profiling:",
    "estimating": "estimating:",
    "promises": "promises:",
    "guests": "guests:",
    "errors": "errors:",
    "KtlsLabError": "errors",  # the root of every error
    # notebooks
    "SweepForm": "show.forms",  # a plan in a form, its rows in a plot as they arrive
    "load_ipython_extension": "magics",  # %load_ext ktlslab: %ktls_doctor, %%ktls_sweep
}

__all__ = [
    "Certificates",
    "Client",
    "ClientConfig",
    "Connection",
    "Counters",
    "Direction",
    "DirectionKeys",
    "Fault",
    "Handshake",
    "Installed",
    "KtlsLabError",
    "Plan",
    "Psk",
    "Refused",
    "Relay",
    "Response",
    "Resumption",
    "Ring",
    "ServerConfig",
    "Session",
    "Stream",
    "Suite",
    "SweepForm",
    "TrafficKeys",
    "Version",
    "Why",
    "accept",
    "accept_session",
    "compare",
    "connect",
    "course",
    "doctor",
    "effects",
    "errors",
    "estimate",
    "estimating",
    "export",
    "get",
    "guests",
    "handshake",
    "install",
    "install_linked",
    "kernel_suites",
    "linux",
    "make_certificates",
    "measure",
    "open_session",
    "plots",
    "post",
    "probe",
    "profile",
    "profiling",
    "promises",
    "read_estimate",
    "read_profile",
    "read_table",
    "request",
    "session_pair",
    "show",
    "stages",
    "sweep",
    "tls",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
