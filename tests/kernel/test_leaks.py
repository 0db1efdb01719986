"""Sessions, good and failed, opened and closed in one process leave nothing behind: descriptor, ring, keys, memory.

KTLSLAB_LEAK_SESSIONS says how many; ten thousand take an emulated guest a quarter of an hour and more. Fifty come
first, before any figure is taken: they fill the caches of OpenSSL, Python and malloc that are filled once.
"""

from __future__ import annotations

import gc
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from kinds import USER_MODE

from ktlslab.errors import CertificateError, ConnectError, StreamError, TruncatedError
from ktlslab.linux.counters import Counters
from ktlslab.relay import Fault, Relay
from ktlslab.session import open_session
from ktlslab.tls.suites import Version

# A descriptor, ring or key that is left is seen after ten; memory, where more of them take less time.
SESSIONS = int(os.environ.get("KTLSLAB_LEAK_SESSIONS", "200" if USER_MODE else "60"))
WARM_UP = 50
REQUEST = b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
PAGE = b"a page" * 100
TICKETS = 2  # records that come before the answer, in TLS 1.3
BOUND_KB = 1024 + SESSIONS // 4  # less than this is malloc's and not a leak


@dataclass(frozen=True)
class Held:
    """What this process holds of the kernel's and of memory."""

    descriptors: int
    rings: int
    kernel_tx: int
    kernel_rx: int
    memory_kb: int

    @classmethod
    def read(cls):
        gc.collect()
        links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        stat = Counters.read()
        return cls(
            descriptors=len(links),
            rings=sum("io_uring" in link for link in links),
            kernel_tx=stat["TlsCurrTxSw"],
            kernel_rx=stat["TlsCurrRxSw"],
            memory_kb=int(status["VmRSS"].split()[0]),
        )

    def __str__(self):
        return (
            f"{self.descriptors} descriptors, {self.rings} rings, {self.kernel_tx} TX and {self.kernel_rx} RX keys in "
            f"the kernel, {self.memory_kb} kB resident"
        )


class Sessions:
    """One session after the other, in turn of each kind: six good ones and four that fail."""

    def __init__(self, port, relay, config):
        self.port, self.relay = port, relay
        self.configs = {version: config(versions=(version,)) for version in Version}
        self.elsewhere = config(server_name="elsewhere.example")
        self.faults = {
            StreamError: Fault("flip", part="tag", record=TICKETS),
            TruncatedError: Fault("truncate", keep=20, record=TICKETS),
        }

    def run(self, count):
        for number in range(count):
            match number % 10:
                case 0:
                    self.refused()
                case 1:
                    self.not_trusted()
                case 2:
                    self.harmed(StreamError, "uring" if number % 20 < 10 else "syscall")
                case 3:
                    self.harmed(TruncatedError, "syscall" if number % 20 < 10 else "uring")
                case kind:
                    self.good(Version.TLS12 if kind < 6 else Version.TLS13, "syscall" if kind % 2 else "uring")

    def good(self, version, io_engine):
        with open_session("127.0.0.1", self.port, config=self.configs[version], io_engine=io_engine) as session:
            assert session.record_layer == "kernel"
            session.stream.send(REQUEST)
            assert self.rest_of(session.stream).endswith(PAGE)

    def refused(self):
        with pytest.raises(ConnectError):
            open_session("127.0.0.1", 1)

    def not_trusted(self):
        with pytest.raises(CertificateError):
            open_session("127.0.0.1", self.port, config=self.elsewhere)

    def harmed(self, error, io_engine):
        self.relay.use(self.faults[error])
        config = self.configs[Version.TLS13]
        with open_session(*self.relay.address, config=config, io_engine=io_engine) as session:
            session.stream.send(REQUEST)
            with pytest.raises(error) as caught:
                self.rest_of(session.stream)
        assert type(caught.value) is error
        assert self.relay.report().applied

    @staticmethod
    def rest_of(stream):
        got = bytearray()
        while part := stream.recv():
            got += part
        return got


@pytest.mark.timeout(120 + SESSIONS)
def test_sessions_leave_nothing_behind(nginx, certificates, record_property):
    port = nginx({"page": PAGE})
    life = 120 + SESSIONS
    with Relay(("127.0.0.1", port), seconds=life) as relay:
        sessions = Sessions(port, relay, certificates.config)
        sessions.run(WARM_UP)
        before = Held.read()
        started = time.monotonic()
        sessions.run(SESSIONS)
        after = Held.read()
        if after.memory_kb > before.memory_kb + BOUND_KB:  # a leak grows again; what was taken once does not
            before = after
            sessions.run(SESSIONS)
            after = Held.read()
        seconds = time.monotonic() - started
    record_property("leaks", f"{SESSIONS} sessions after {WARM_UP} to warm up, {seconds:.0f} s")
    record_property("leaks", f"before: {before}")
    record_property("leaks", f"after:  {after}")
    # What the last session of the warm-up had may have been closing still, at the other end.
    for held in ("descriptors", "rings", "kernel_tx", "kernel_rx"):
        assert getattr(after, held) <= getattr(before, held), held
    assert after.memory_kb <= before.memory_kb + BOUND_KB
