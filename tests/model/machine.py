"""Random sequences of every public call of Stream, with a peer that does what it likes, against `contract.Contract`.

Each rule is a call of the Stream or an act of the peer. No rule has a precondition: every call can be made in every
state, and the contract says what may come of it. So a failing sequence can be shrunk whatever the timing was.

`acts` is the peer, `sending` and `receiving` are the Stream's calls, `base` is what they need; the rest is here.
"""

from __future__ import annotations

import contextlib
import time

from handpeer import HandPeers
from hypothesis import strategies as st
from model.acts import PeerActs
from model.base import Interrupted, resources, rule
from model.contract import must
from model.receiving import Receiving
from model.sending import Sending

from ktlslab.errors import PeerError, PeerTimeoutError, StreamClosedError, StreamError, UsageError
from ktlslab.linux.ktls import Direction


class Machine(PeerActs, Sending, Receiving):
    """Everything together."""

    @rule()
    def somebody_shuts_the_socket_down(self):
        """Behind the stream's back."""
        contract = self.contract
        with contextlib.suppress(OSError):
            self.stream.connection.socket.shutdown(1)
            if not contract.sending_over:
                contract.shut = True

    @rule()
    def questions(self):
        """They change nothing."""
        _, error = self.call(self.stream.resumption, calm=True)
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
        _, error = self.call(lambda: mistake(self.stream), calm=True)
        if contract.held and isinstance(error, PeerTimeoutError):  # `send_many` sends what was held back first
            contract.send_failed(error, b"")
            return
        over = contract.cannot_send or contract.ended or contract.end or contract.shut or contract.interrupted
        must(error or over, "a mistake was accepted")
        must(isinstance(error, UsageError) or over, f"{error!r} in place of UsageError")
        if contract.sending_over and isinstance(error, StreamClosedError):
            return  # that was known, and says nothing of receiving
        if contract.interrupted and isinstance(error, PeerError):
            contract.failed = contract.failed or error
        if isinstance(error, StreamError):  # the call met the end before its mistake, and has told it
            contract.interrupted, contract.doubt = True, ""

    @rule(delay=st.sampled_from([0.0, 0.1, 0.5]), harmless=st.booleans())
    def signal_in_the_next_call(self, delay, harmless):
        self.disturbance = (delay * self.timeout, None if harmless else Interrupted())

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

        deadline = time.monotonic() + 30  # a busy machine is slow to open records
        while not arrived() and time.monotonic() < deadline:
            self.remote.wait(lambda: self.remote.arrived or self.remote.ended, 0.5)
        must(len(self.got.data) >= len(contract.sent.data), "what was sent does not arrive")

    @rule()
    def close(self):
        contract = self.contract
        _, error = self.call(self.stream.close, calm=True)
        if error:
            contract.close_failed(error)
            return
        first = not contract.closed
        contract.close_returned()
        if not first or contract.failed or contract.broken or contract.shut:
            return
        self.peer_reads(how="all")
        must(self.remote.wait(lambda: self.remote.ended, 30), "the peer sees no end after close()")
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


def start():
    """Return HandPeers whose threads run already."""
    peers = HandPeers()
    stream, _ = peers.open("userspace", "syscall", "client")
    stream.connection.close()
    peers.close_connections()
    return peers
