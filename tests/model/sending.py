"""The calls of a Stream that send."""

from __future__ import annotations

import itertools
import os

from hypothesis import strategies as st
from model.base import SIZES, Base, Interrupted, rule
from model.contract import ALERT, CLOSE_NOTIFY, DATA, HANDSHAKE, must

from ktlslab.errors import KeyUpdateError, KtlsLabError, MachineError, UsageError
from ktlslab.tls.records import MAX_PLAINTEXT


class Sending(Base):
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

    @rule(size=SIZES, more=st.booleans(), kind=st.sampled_from([bytes, bytearray, memoryview]))
    def send(self, size, more, kind):
        data = self.pattern(size)
        outcome = self.call(lambda: self.stream.send(kind(data), more=more), waits=self.sending_waits)
        self._sent(outcome, data, more=more)

    @rule(sizes=st.lists(SIZES, max_size=4))
    def send_many(self, sizes):
        data = self.pattern(sum(sizes))
        ends = itertools.accumulate(sizes)
        buffers = [data[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        self._sent(self.call(lambda: self.stream.send_many(buffers), waits=self.sending_waits), data)

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
            # The system call waits for each part of the file on its own.
            value, error = self.call(lambda: self.stream.sendfile(file, offset, count), waits=4)
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
        _, error = self.call(lambda: self.stream.limit_records(size), calm=True)
        if error:
            expected = not contract.kernel_tx or contract.held or not 64 <= size <= MAX_PLAINTEXT
            over = contract.cannot_send or contract.interrupted
            must(expected or isinstance(error, MachineError) or over, f"{error!r}")
        else:
            must(contract.kernel_tx and not contract.closed, "limited records that the kernel does not make")
            self.limits.append((len(contract.sent.data), size))
