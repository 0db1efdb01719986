"""These tests need a kernel that has kTLS: without one they fail, they are not skipped."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from ktlslab.linux import capabilities
from ktlslab.linux.ring import Ring
from ktlslab.stages import BOTH, Installed, Stream, export, install
from ktlslab.stages.transfer import ending
from ktlslab.tls.protect import open_record, seal
from ktlslab.tls.suites import Suite, Version

TICKETS = {Version.TLS12: 0, Version.TLS13: 2}  # records that OpenSSL sends after the handshake by itself


@pytest.fixture(scope="session", autouse=True)
def kernel_tls():
    """Fails every test here where the kernel cannot attach its tls module to a socket."""
    if not capabilities.ulp():
        pytest.fail(
            f"{os.uname().release} has no kernel TLS ({capabilities.ulp()}): run these in a guest, by tests/run",
            pytrace=False,
        )


@pytest.fixture
def no_long_farewell(monkeypatch):
    """For tests with both ends in one thread, where no one answers a close."""
    monkeypatch.setattr(ending, "LINGER_S", 0.05)


@pytest.fixture
def ring():
    with Ring() as ring:
        yield ring


@pytest.fixture
def pattern():
    """pattern(size) -> bytes that differ from place to place."""
    return lambda size: (bytes(range(251)) * (size // 251 + 1))[:size]


@dataclass(kw_only=True)
class KernelPair:
    """A stream whose records the kernel makes, and the other end with the same keys in the test's hands."""

    pair: object
    stream: Stream
    installed: Installed
    suite: Suite
    keys: dict
    sequence: dict

    @classmethod
    def make(cls, pair, directions):
        keys = export(pair.handshake)
        sides = {"tx": keys.tx, "rx": keys.rx}
        kept = {name: (side.key.reveal(), side.write_iv.reveal()) for name, side in sides.items()}
        sequence = {name: side.sequence for name, side in sides.items()}
        sequence["rx"] += TICKETS[keys.suite.version]
        installed = install(pair.connection, keys, directions)
        assert installed, repr(installed)
        stream = Stream(pair.connection, pair.handshake, directions)
        return cls(pair=pair, stream=stream, installed=installed, suite=keys.suite, keys=kept, sequence=sequence)

    def open(self, record):
        """Return what a record that the kernel put on the wire holds: (type, bytes)."""
        opened = open_record(self.suite, *self.keys["tx"], self.sequence["tx"], record)
        self.sequence["tx"] += 1
        return opened

    def seal(self, kind, data):
        """Return the record that the peer would send next."""
        record = seal(self.suite, *self.keys["rx"], self.sequence["rx"], kind, data)
        self.sequence["rx"] += 1
        return record

    def send(self, kind, data):
        self.pair.sock.sendall(self.seal(kind, data))


@pytest.fixture
def kernel_pair(tls_pair):
    """kernel_pair(directions=..., **as tls_pair) -> KernelPair."""

    def make(directions=BOTH, **options):
        return KernelPair.make(tls_pair(**options), directions)

    return make
