"""Random sequences of every public call of Stream, with a peer that does what it likes, against `contract.Contract`.

Each rule is a call of the Stream or an act of the peer. No rule has a precondition: every call can be made in every
state, and the contract says what may come of it. So a failing sequence can be shrunk whatever the timing was.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import random
import signal
import threading
import time
from pathlib import Path

from handpeer import HandPeers, key_update
from hypothesis import stateful
from hypothesis import strategies as st
from model.contract import ALERT, CLOSE_NOTIFY, DATA, ENDS, HANDSHAKE, TICKET, Contract, Fault, Trail, must
from model.remote import READING, Remote

from ktlslab.errors import KeyUpdateError, KtlsLabError, MachineError, StreamError, UsageError
from ktlslab.linux import capabilities
from ktlslab.linux.ktls import Direction
from ktlslab.promises.pair import unsent
from ktlslab.stages.transfer import ending
from ktlslab.tls.alerts import AlertDescription
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


class Machine(stateful.RuleBasedStateMachine):
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
        ending.LINGER_S = 0.02
        self.before = resources()
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

    def call(self, function, *, bounded=True):
        """Return (what it returned, None) or (None, its error): a KtlsLabError, in time."""
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
        if self.disturbance:
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
        must(not bounded or took < 1.2 * self.timeout + max(0.2, self.timeout) + busy, late)
        if isinstance(failure, TimeoutError):
            must(took > 0.8 * self.timeout, late)
        return value, failure

    @property
    def _failed_already(self):
        return len(Fault.seen) > self.faults

    def pattern(self, size):
        return pattern(self.offset, size)

    # The peer

    def _seal(self, kind, data):
        """Queue one record."""
        self._mend()
        self.remote.queue(self.peer.seal(kind, data))
        self.contract.peer_sent(kind, data)

    def _mend(self):
        if self.rest:
            self.remote.queue(self.rest)
            self.contract.peer_sent(DATA, self.rest_data)
            self.rest = b""

    def _data(self, size):
        data = pattern(self.peer_offset, size)
        self.peer_offset += size
        return data

    @property
    def _peer_is_over(self):
        return self.contract.end is not None

    @rule(size=SIZES, count=FEW)
    def peer_sends(self, size, count):
        """Send records of this size: whole ones, or empty ones."""
        if self._peer_is_over or (size == 0 and self.contract.plain):
            return
        for _ in range(count if size <= MAX_PLAINTEXT else 1):
            for at in range(0, max(1, size), MAX_PLAINTEXT):
                self._seal(DATA, self._data(min(MAX_PLAINTEXT, size - at)))

    @rule(count=st.sampled_from([50, 300]))
    def peer_floods(self, count):
        """Many small records at once."""
        if not self._peer_is_over:
            for _ in range(count):
                self._seal(DATA, self._data(100))

    @rule(count=st.integers(2, 12), gap=st.sampled_from([0.3, 0.6]))
    def peer_dribbles(self, count, gap):
        """Send a byte at a time, each too soon for a time-out, all of them too late for one."""
        if not self._peer_is_over:
            for _ in range(count):
                self.remote.queue(gap * self.timeout)
                self._seal(DATA, self._data(1))

    @rule()
    def peer_delays(self):
        if not self._peer_is_over:
            self._mend()
            self.remote.queue(0.5 * self.timeout)

    @rule(size=st.sampled_from([1, 100, MAX_PLAINTEXT]), part=st.floats(0.01, 0.99))
    def peer_cuts_a_record(self, size, part):
        """Only the beginning, until the peer sends something else."""
        if self._peer_is_over:
            return
        self._mend()
        data = self._data(size)
        record = self.peer.seal(DATA, data)
        at = max(1, int(len(record) * part))
        self.remote.queue(record[:at])
        self.rest, self.rest_data = record[at:], data
        if self.contract.plain:
            self.contract.peer_sent(DATA, data[:at])
            self.rest_data = data[at:]

    @rule()
    def peer_sends_a_ticket(self):
        if not (self._peer_is_over or self.contract.plain) and self.contract.tls13 and self.role == "client":
            ticket = bytes(range(32))
            body = (7200).to_bytes(4, "big") + bytes(4) + b"\x01n" + len(ticket).to_bytes(2, "big") + ticket + bytes(2)
            self._seal(HANDSHAKE, b"\x04" + len(body).to_bytes(3, "big") + body)

    @rule(request=st.booleans())
    def peer_updates_its_keys(self, request):
        contract = self.contract
        if self._peer_is_over or not contract.tls13:
            return
        self._seal(HANDSHAKE, key_update(request=request))
        self.peer.sealing.change()
        contract.requests += request
        if contract.kernel_rx and not contract.rekey:
            contract.coming.pop()
            contract.end = "key update"

    @rule(how=st.sampled_from(READING))
    def peer_reads(self, how):
        self.remote.read(how)
        self.contract.reading = how

    @rule(how=st.sampled_from([end for end in ENDS if end != "key update"]), fin=st.booleans())
    def peer_ends(self, how, fin):
        peer, remote, contract = self.peer, self.remote, self.contract
        if self._peer_is_over or (contract.plain and how not in {"fin", "reset"}):
            return
        if how != "fin":
            self._mend()
        contract.end = how
        if how == "bad record":
            record = bytearray(peer.seal(DATA, b"damaged"))
            record[-1] ^= 1
            remote.queue(bytes(record))
        elif how == "bad header":
            remote.queue(b"GET / HTTP/1.1\r\n\r\n")
        elif how == "unexpected record":
            remote.queue(peer.seal(HANDSHAKE, b"\x02\x00\x00\x00"))
        elif how == "alert":
            remote.queue(peer.seal(ALERT, bytes([2, AlertDescription.INTERNAL_ERROR])))
        elif how == "close_notify":
            remote.queue(peer.seal(ALERT, b"\x01\x00"))
        if how == "reset":
            remote.queue(peer.reset)
        elif fin or how == "fin":
            remote.queue(peer.fin)

    # Sending

    def _sent(self, outcome, data, kind=DATA, **options):
        _, error = outcome
        if isinstance(error, Interrupted):
            self._interrupted(error, data)
        elif error:
            self.contract.send_failed(error, data)
        else:
            self.contract.sent_all(kind, data, **options)
            self.offset += len(data)

    def _interrupted(self, error, data):
        """Look what arrived of a send that raised: this decides whether the stream may go on."""
        contract = self.contract
        if contract.cannot_send:
            return
        self.peer_reads(how="all")
        contract.maybe = data
        self._quiet()
        contract.maybe = b""
        got, sent = len(self.got.data), len(contract.sent.data)
        pending = self.splitter.pending or contract.held
        contract.interrupted = True
        if not pending and got == sent + len(data):
            contract.sent.add(DATA, data)
            self.offset += len(data)
        elif pending or got != sent:
            contract.failed, contract.maybe, contract.doubt = error, data, "a send was interrupted"

    def _quiet(self):
        """Wait until nothing is on its way to the peer."""
        deadline = time.monotonic() + 5
        with contextlib.suppress(OSError, ValueError):
            while unsent(self.stream.connection.socket) and not self.remote.ended and time.monotonic() < deadline:
                time.sleep(0.01)
        time.sleep(0.1 * self.timeout + 0.02)
        self.look()

    @rule(size=SIZES, more=st.booleans(), kind=st.sampled_from([bytes, bytearray, memoryview]))
    def send(self, size, more, kind):
        data = self.pattern(size)
        self._sent(self.call(lambda: self.stream.send(kind(data), more=more)), data, more=more)

    @rule(sizes=st.lists(SIZES, max_size=4))
    def send_many(self, sizes):
        data = self.pattern(sum(sizes))
        ends = itertools.accumulate(sizes)
        buffers = [data[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        self._sent(self.call(lambda: self.stream.send_many(buffers)), data)

    @rule(size=SIZES, kind=st.sampled_from([DATA, ALERT, HANDSHAKE, 256, -1]))
    def send_record(self, size, kind):
        contract = self.contract
        data = self.pattern(size) if kind == DATA else b"\x04" + b"x" * (size - 1) if size else b""
        value, error = self.call(lambda: self.stream.send_record(data, kind))
        if isinstance(error, Interrupted):
            contract.failed = contract.failed or error
            contract.maybe, contract.doubt = data, "a send was interrupted"
        elif not contract.kernel_tx or not 1 <= size <= self.limits[-1][1] or not 0 <= kind < 256:
            contract.refused(error, (UsageError, KtlsLabError) if contract.cannot_send else UsageError)
        elif kind == DATA:
            self._sent((value, error), data)
        elif error:
            contract.send_failed(error, b"")
        else:
            contract.sent_all(kind, data)

    @rule(size=SIZES, offset=st.sampled_from([0, 1, 5000]), count=st.none() | SIZES)
    def sendfile(self, size, offset, count):
        moves = max(0, size - offset) if count is None else max(0, min(count, size - offset))
        with os.fdopen(os.memfd_create("model"), "w+b", buffering=0) as file:
            file.write(bytes(min(size, offset)) + self.pattern(max(0, size - offset)))
            value, error = self.call(lambda: self.stream.sendfile(file, offset, count))
        must(error or value == moves, f"sendfile says {value} of {moves} bytes")
        self._sent((value, error), self.pattern(moves))

    @rule(size=st.sampled_from([1, 0, 100, MAX_PLAINTEXT + 1, 50_000]), count=SIZES)
    def splice_from(self, size, count):
        """From a pipe with `size` bytes, whose writing end is closed."""
        data = self.pattern(size)
        reading, writing = os.pipe()
        try:
            os.write(writing, data)
            os.close(writing)
            value, error = self.call(lambda: self.stream.splice_from(reading, count))
        finally:
            os.close(reading)
        moves = min(size, count)
        must(error or value == moves, f"splice_from says {value} of {moves} bytes")
        self._sent((value, error), data[:moves])

    @rule()
    def send_eof(self):
        if not hasattr(self.stream, "send_eof"):  # it came later
            return
        _, error = self.call(self.stream.send_eof)
        contract = self.contract
        if isinstance(error, Interrupted):
            self.peer_reads(how="all")
            contract.interrupted = contract.may_end = True
            self._quiet()
            if self.remote.ended or self.got.controls[-1:] == [(len(self.got.data), *CLOSE_NOTIFY)]:
                contract.ended_sending()
            contract.may_end = False
        elif error:
            contract.send_failed(error, b"")
        else:
            contract.ended_sending()

    @rule()
    def somebody_shuts_the_socket_down(self):
        """Behind the stream's back."""
        contract = self.contract
        with contextlib.suppress(OSError):
            self.stream.connection.socket.shutdown(1)
            if not contract.sending_over:
                contract.shut = True

    # Receiving

    def _received(self, outcome, size, data, *, exactly=False):
        """Check a receive; `data` is what came if the call did not raise."""
        contract, (_, error) = self.contract, outcome
        if isinstance(error, Interrupted):
            contract.interrupted = True
        elif error and not (size == 0 and (contract.failed or contract.closed)):
            must(size, f"{error!r} for nothing")
            contract.receive_failed(error, size, exactly=exactly)
        elif error:
            return
        elif data:
            must(len(data) <= size, f"received {len(data)} bytes into {size}")
            contract.took(data)
        elif size:
            contract.saw_the_end()

    @rule(size=SIZES)
    def recv(self, size):
        value, error = self.call(lambda: self.stream.recv(size))
        self._received((value, error), size, value)

    @rule(size=SIZES, kind=st.sampled_from([bytearray, memoryview]))
    def recv_into(self, size, kind):
        room = bytearray(size)
        value, error = self.call(
            lambda: self.stream.recv_into(kind(room)) if kind is memoryview else self.stream.recv_into(room)
        )
        self._received((value, error), size, bytes(room[: value or 0]))

    @rule(size=SIZES)
    def recv_exactly_into(self, size):
        room = bytearray(size)
        value, error = self.call(lambda: self.stream.recv_exactly_into(room))
        self._received((value, error), size, bytes(room), exactly=True)

    @rule(count=FEW)
    def pieces(self, count):
        """Take the first few, then forget the iterator."""
        contract = self.contract
        iterator, error = self.call(self.stream.pieces)
        if not contract.kernel_rx:
            contract.refused(error, (UsageError, KtlsLabError) if contract.closed else UsageError)
            return
        for _ in range(count):
            piece, error = self.call(lambda: next(iterator, None))
            if error:
                self._received((piece, error), 1, b"")
                break
            if piece is None:
                contract.saw_the_end()
                break
            kind, data = piece
            if kind == DATA:
                contract.took(data)
            elif (kind, data) == (ALERT, b"\x01\x00"):
                must(contract.clean and not contract.available, "a close_notify that the peer did not send")
            else:
                contract.saw(kind, data)
        _, error = self.call(iterator.close)
        must(not error, f"{error!r} when an iterator was forgotten")

    @rule(count=SIZES, room=st.sampled_from([1 << 16, 0, 1, 4096, 5000]))
    def splice_into(self, count, room):
        """Into a pipe with so much room, which does not block."""
        reading, writing = os.pipe2(os.O_NONBLOCK)
        try:
            size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, max(4096, room - room % 4096))
            filled = os.write(writing, bytes(size - min(size, room))) if room < size else 0
            value, error = self.call(lambda: self.stream.splice_into(writing, count))
            os.read(reading, filled) if filled else None
            moved = b""
            with contextlib.suppress(BlockingIOError):
                moved = os.read(reading, 1 << 17)
        finally:
            os.close(reading)
            os.close(writing)
        if isinstance(error, UsageError):
            must(room < size, f"{error!r} though the pipe has room")
            must(not moved, f"{error!r}, but {len(moved)} bytes went into the pipe")
            return
        must(error or value == len(moved), f"splice_into says {value}, {len(moved)} bytes are in the pipe")
        if error and moved:
            self.contract.took(moved)
        self._received((value, error), count, moved)

    # Keys and questions

    @rule(request=st.booleans())
    def update_keys(self, request):
        contract = self.contract
        _, error = self.call(lambda: self.stream.update_keys(request_peer=request))
        if isinstance(error, Interrupted):
            contract.failed, contract.doubt = contract.failed or error, "an interrupted KeyUpdate"
            contract.updates += 1
        elif not (contract.kernel_tx and contract.tls13 and contract.rekey):
            contract.refused(error, (KeyUpdateError, KtlsLabError) if contract.cannot_send else KeyUpdateError)
        elif error:
            contract.send_failed(error, b"")
        else:
            must(not contract.cannot_send, "changed the keys of a stream that is over")
            contract.updates += 1

    @rule(size=st.sampled_from([MAX_PLAINTEXT, 100, 64, 63, 1, 0, MAX_PLAINTEXT + 1]))
    def limit_records(self, size):
        contract = self.contract
        _, error = self.call(lambda: self.stream.limit_records(size))
        if error:
            expected = not contract.kernel_tx or contract.held or not 64 <= size <= MAX_PLAINTEXT
            must(expected or isinstance(error, MachineError) or contract.cannot_send, f"{error!r}")
        else:
            must(contract.kernel_tx and not contract.closed, "limited records that the kernel does not make")
            self.limits.append((len(contract.sent.data), size))

    @rule()
    def questions(self):
        """They change nothing."""
        _, error = self.call(self.stream.resumption)
        must(not error or self.contract.closed, f"{error!r}")
        must(f"{self.stream.record_layer}+" in repr(self.stream), repr(self.stream))
        must(set(self.stream.generations) <= set(Direction), "generations")

    @rule(
        mistake=st.sampled_from(
            [
                lambda stream: stream.send("text"),
                lambda stream: stream.send_many([b"", None]),
                lambda stream: stream.recv(-1),
                lambda stream: stream.recv_into(b"not writable"),
                lambda stream: stream.recv_exactly_into(None),
                lambda stream: stream.sendfile(None),
                lambda stream: stream.splice_from(-1, 1),
                lambda stream: stream.splice_into("pipe", 1),
            ]
        )
    )
    def misuse(self, mistake):
        contract = self.contract
        _, error = self.call(lambda: mistake(self.stream))
        over = contract.cannot_send or contract.ended or contract.end or contract.shut or contract.interrupted
        must(error or over, "a mistake was accepted")
        must(isinstance(error, UsageError) or over, f"{error!r} in place of UsageError")
        contract.interrupted |= isinstance(error, StreamError)  # the call met the end before its mistake

    @rule(delay=st.sampled_from([0.0, 0.1, 0.5]), harmless=st.booleans())
    def signal_in_the_next_call(self, delay, harmless):
        self.disturbance = (delay * self.timeout, None if harmless else Interrupted())

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

    @rule()
    def everything_arrives(self):
        """Wait for what was sent: it arrives if the peer reads, without another call."""
        contract = self.contract
        if contract.reading != "all" or contract.failed or contract.broken or contract.held or contract.doubt:
            return

        def arrived():
            ended = self.remote.ended
            self.look()
            return ended or len(self.got.data) >= len(contract.sent.data)

        deadline = time.monotonic() + 5
        while not arrived() and time.monotonic() < deadline:
            self.remote.wait(lambda: self.remote.arrived or self.remote.ended, 0.5)
        must(len(self.got.data) >= len(contract.sent.data), "what was sent does not arrive")

    @rule()
    def close(self):
        contract = self.contract
        if self.disturbance and not contract.closed:
            self.disturbance = None
        _, error = self.call(self.stream.close)
        if error:
            contract.close_failed(error)
            return
        first = not contract.closed
        contract.close_returned()
        if not first or contract.failed or contract.broken or contract.shut:
            return
        self.peer_reads(how="all")
        must(self.remote.wait(lambda: self.remote.ended, 5), "the peer sees no end after close()")
        self.look()
        contract.check(self.got, complete=True)

    def teardown(self):
        if not hasattr(self, "remote"):
            return
        try:
            self.disturbance = None
            if not (self.contract.closed or self._failed_already):
                self.peer_reads(how="all")
                self.close()
        finally:
            self.stream.connection.close()
            self.remote.stop()
            type(self).peers.close_connections()
        must(self._failed_already or resources() == self.before, f"left behind: {resources()}, before {self.before}")


def resources():
    """Return how many descriptors and threads this process has."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def start():
    """Return HandPeers whose threads run already."""
    peers = HandPeers()
    stream, _ = peers.open("userspace", "syscall", "client")
    stream.connection.close()
    peers.close_connections()
    return peers
