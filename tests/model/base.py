"""What all rules need: opening a Stream and its peer, making a call that may fail, and looking at what the peer got."""

from __future__ import annotations

import contextlib
import functools
import random
import signal
import threading
import time
from pathlib import Path

from hypothesis import stateful
from hypothesis import strategies as st
from model.contract import DATA, HANDSHAKE, TICKET, Contract, Fault, Trail, must
from model.remote import Remote

from ktlslab.errors import KtlsLabError, PeerTimeoutError
from ktlslab.linux import capabilities
from ktlslab.promises.pair import unsent
from ktlslab.tls.records import MAX_PLAINTEXT, RecordSplitter
from ktlslab.tls.suites import Suite, Version

SUITES = (
    Suite.TLS_AES_128_GCM_SHA256,
    Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    Suite.TLS_CHACHA20_POLY1305_SHA256,
    Suite.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
)
# Shrinking prefers what comes first.
SIZES = st.sampled_from([1, 0, 100, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 50_000, 250_000])
FEW = st.integers(1, 4)
BUFFER_BYTES = 1 << 15  # of the sockets; the kernel doubles it
_ROUND = (1 << 20) + 7  # no multiple of any size of a record
_BYTES = random.Random(1).randbytes(_ROUND) * 2  # noqa: S311 - no secret


def pattern(start, size):
    """Return bytes that show their place in the stream."""
    start %= _ROUND
    return _BYTES[start : start + size]


def rule(**given):
    """Make a method a rule that writes down how it was called, for a fault that is not seen again."""

    def decorate(method):
        @functools.wraps(method)
        def written(self, **values):
            Fault.steps.append(f"{method.__name__}({', '.join(f'{name}={value}' for name, value in values.items())})")
            method(self, **values)

        return stateful.rule(**given)(written)

    return decorate


class Interrupted(BaseException):
    """What a signal handler raises, like KeyboardInterrupt."""


class Base(stateful.RuleBasedStateMachine):
    """`layers` and `timeout` (of the Stream, in seconds; longer on a slow machine) can be set in a subclass."""

    layers = ("plain", "userspace")
    timeout = 0.15
    before_call = after_call = staticmethod(lambda: None)
    peers = None  # HandPeers, shared by all runs
    runs = calls = 0

    @stateful.initialize(
        layer=st.runner().flatmap(lambda machine: st.sampled_from(machine.layers)),
        engine=st.sampled_from(("syscall", "uring")),
        role=st.sampled_from(("client", "server")),
        suite=st.sampled_from(SUITES),
    )
    def open(self, layer, engine, role, suite):
        type(self).runs += 1
        self.before = resources()
        # Where OpenSSL uses the socket itself, the time-out limits each of its waits, which progress interrupts.
        self.waits = 5 if (layer, engine) == ("userspace", "syscall") else 1
        # So it does in the kernel: each record of a long send waits on its own (tls_push_sg, net/tls/tls_main.c).
        self.sending_waits = 5 if engine == "syscall" and layer in {"userspace", "kernel", "kernel-tx"} else 1
        self.inside, self.raising = False, None
        signal.signal(signal.SIGUSR1, self._signalled)
        self.stream, peer = self.peers.open(
            layer, engine, role, suite=suite, timeout=self.timeout, buffers=BUFFER_BYTES
        )
        self.remote, self.peer, self.role = Remote(peer), peer, role
        tls13 = layer != "plain" and suite.version is Version.TLS13
        self.contract = Contract(layer, tls13=tls13, rekey=bool(capabilities.rekey()) if "kernel" in layer else True)
        for _ in range(2 if tls13 and role == "client" else 0):
            self.contract.peer_sent(HANDSHAKE, TICKET)
        self.faults = len(Fault.seen)
        Fault.steps[:] = [f"open({layer}, {engine}, {role}, {suite.name})"]
        self.got, self.splitter = Trail(), RecordSplitter()
        self.limits = [(0, MAX_PLAINTEXT)]
        self.rest = b""  # of a record that the peer has cut
        self.rest_data = b""
        self.peer_offset = self.offset = 0
        self.disturbance = None

    # Making a call

    def _signalled(self, *_):
        """Raise what was asked for, if a call is being made: a signal can come too late."""
        raised, self.raising = self.raising, None
        if raised and self.inside:
            raise raised

    def call(self, function, *, calm=False, waits=1):
        """Return (what it returned, None) or (None, its error): a KtlsLabError, in time: so many times the time-out.

        A signal that was asked for comes during the call, unless it is `calm`.
        """
        type(self).calls += 1
        contract, remote = self.contract, self.remote
        contract.steady, contract.gone = remote.steady, contract.end == "reset" and remote.idle
        main = threading.main_thread().ident
        alarms = []

        def shoot(error):
            self.raising = error
            signal.pthread_kill(main, signal.SIGUSR1)

        hang = Fault("the call hangs")
        alarms.append(remote.alarm(5 * self.timeout + 3, lambda: shoot(hang)))
        if self.disturbance and not calm:
            delay, error = self.disturbance
            alarms.append(remote.alarm(delay, lambda: shoot(error)))
        waited = remote.waited_s()
        self.before_call()
        value = failure = None
        started = time.monotonic()
        try:
            try:
                self.inside = True
                value = function()
            finally:
                self.inside = False
                took = time.monotonic() - started
                for alarm in alarms:
                    remote.calm(alarm)
                self.after_call()
        except Interrupted as error:
            failure = error
        except Fault as error:
            must(None, str(error))
        except Exception as error:  # noqa: BLE001 - any other is the fault that is looked for
            must(isinstance(error, KtlsLabError), f"a bare {error!r}")
            failure = error
        self.disturbance = None
        busy = remote.waited_s() - waited
        contract.steady &= busy < 0.3 * self.timeout  # else this machine is to blame for a time-out
        late = f"it took {took:.2f} s, with a time-out of {self.timeout} s: {failure!r}"
        must(took < max(self.waits, waits) * 1.2 * self.timeout + max(0.2, self.timeout) + busy, late)
        if isinstance(failure, PeerTimeoutError) and not contract.failed:  # an earlier failure is told at once
            must(took > 0.8 * self.timeout, late)
        return value, failure

    @property
    def _failed_already(self):
        return len(Fault.seen) > self.faults

    def pattern(self, size):
        return pattern(self.offset, size)

    def _quiet(self):
        """Wait until nothing is on its way to the peer."""
        deadline = time.monotonic() + 5
        with contextlib.suppress(OSError, ValueError):
            while unsent(self.stream.connection.socket) and not self.remote.ended and time.monotonic() < deadline:
                time.sleep(0.01)
        time.sleep(0.1 * self.timeout + 0.02)
        self.look()

    # What the peer got

    def look(self):
        """Open what arrived at the peer, and compare."""
        came = self.remote.take()
        if self.contract.plain:
            self.got.add(DATA, came)
        else:
            self.splitter.feed(came)
            for record in self.splitter:
                try:
                    kind, data = self.peer.open(record.raw)
                except ValueError as error:
                    must(None, f"a record that is not the next: {error}")
                if kind == HANDSHAKE and data[:1] == b"\x04" and data[1:] != b"x" * (len(data) - 1):
                    continue  # a ticket that the Stream's OpenSSL sent
                limit = max(size for at, size in self.limits if at <= len(self.got.data))
                must(kind != DATA or len(data) <= limit, f"a record of {len(data)} bytes, limited to {limit}")
                self.got.add(kind, data)
        self.contract.check(self.got, complete=False)


def resources():
    """Return how many descriptors and threads this process has."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
