"""The calls of a Stream that receive."""

from __future__ import annotations

import contextlib
import fcntl
import os

from hypothesis import strategies as st
from model.base import FEW, SIZES, Base, Interrupted, rule
from model.contract import ALERT, DATA, must

from ktlslab.errors import KtlsLabError, PeerError, UsageError


class Receiving(Base):
    def _received(self, outcome, size, data, *, exactly=False):
        """Check a receive; `data` is what came if the call did not raise."""
        contract, (_, error) = self.contract, outcome
        if isinstance(error, Interrupted):
            contract.interrupted = True
        elif error and not (size == 0 and (contract.failed or contract.closed or contract.interrupted)):
            must(size, f"{error!r} for nothing")
            contract.receive_failed(error, size, exactly=exactly)
        elif error:
            if isinstance(error, PeerError):
                contract.failed = contract.failed or error  # a receive of nothing has told what an interruption broke
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
        iterator, error = self.call(self.stream.pieces, calm=True)
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
        _, error = self.call(iterator.close, calm=True)
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
