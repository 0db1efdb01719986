"""What a Stream promises, as two lists of bytes and a few flags. Each method says what a call may have done.

Sending: what the peer opens is what was sent, in order, with each control record in its place. A send that failed may
have sent a part of its data, and then nothing follows it, no close_notify either. If the peer is gone, the error names
the alert that it had sent, and data that came before it is not received any more.

Receiving: what is received is what the peer sent, in order. Data before the end comes first. A time-out takes nothing.
At an end every later receive says the same: a clean end is 0 bytes, anything else the error of the first time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

from ktlslab.errors import (
    AlertError,
    KeyUpdateError,
    PeerError,
    PeerTimeoutError,
    StreamError,
    TruncatedError,
    UsageError,
)
from ktlslab.tls.records import ContentType, HandshakeType

DATA, ALERT, HANDSHAKE = ContentType.APPLICATION_DATA, ContentType.ALERT, ContentType.HANDSHAKE
CLOSE_NOTIFY = (ALERT, b"\x01\x00")
LATE = ("timed out", "it took")  # how faults begin that a busy machine can cause
TICKET = b"a ticket"  # of a handshake, whatever it holds
# How the peer can end, and the error that says so; a clean end is no error.
ENDS = {
    "close_notify": None,
    "fin": TruncatedError,
    "reset": StreamError,
    "bad record": StreamError,
    "bad header": StreamError,
    "unexpected record": StreamError,
    "alert": AlertError,
    "key update": KeyUpdateError,  # where the kernel takes no new keys
}


class Fault(AssertionError):  # noqa: N818 - it is the Stream's
    """The Stream did what it may not do."""

    seen: ClassVar[list[str]] = []  # also in runs that do not fail when they are repeated
    steps: ClassVar[list[str]] = []  # of the present run


def must(right, what):
    """Raise Fault unless this is right."""
    if not right:
        Fault.seen.append("; ".join([what, *Fault.steps]))
        raise Fault(what)


@dataclass
class Trail:
    """Bytes in one direction, and the records among them that are not data: (offset in the data, type, contents)."""

    data: bytearray = field(default_factory=bytearray)
    controls: list = field(default_factory=list)

    def add(self, kind, contents):
        if kind == DATA:
            self.data += contents
        else:
            self.controls.append((len(self.data), kind, contents))


class Contract:
    """`plain`, `kernel_tx`, `kernel_rx` say who makes the records; `rekey` whether the kernel takes new keys."""

    def __init__(self, layer, *, tls13, rekey):
        self.plain = layer == "plain"
        self.userspace = layer == "userspace"
        self.kernel_tx, self.kernel_rx = layer in {"kernel", "kernel-tx"}, layer in {"kernel", "kernel-rx"}
        self.tls13, self.rekey = tls13, rekey
        # The stream
        self.failed = None  # the error that ended it
        self.closed = self.ended = self.sending_over = False
        self.doubt = ""  # why a close may not report success
        self.interrupted = False  # a signal handler raised: the stream may be over, or not
        self.may_end = False  # a send_eof() was interrupted
        self.shut = self.gone = False  # the socket was shut down by somebody; the peer has reset the connection
        # What the peer must get
        self.sent, self.maybe = Trail(), b""
        self.held = False  # MSG_MORE holds something back
        self.limit = 1 << 14
        self.updates = 0  # KeyUpdates of the stream that were asked for by its user
        # What the stream must get
        self.coming, self.end = deque(), None
        self.requests = 0  # KeyUpdates of the peer that ask for one
        self.loose = False  # recv_exactly_into met the end: what it had may be gone
        # What the peer is doing
        self.reading, self.steady = "all", True  # steady: what it sends comes at once

    # The peer

    def peer_sent(self, kind, contents):
        if kind == DATA and self.coming and self.coming[-1][0] == DATA:
            self.coming[-1] = (DATA, self.coming[-1][1] + contents)
        elif contents or kind != DATA:
            self.coming.append((kind, contents))

    @property
    def available(self):
        """How many bytes can be received before the end."""
        return sum(len(contents) for kind, contents in self.coming if kind == DATA)

    @property
    def clean(self):
        return self.end == "close_notify" or (self.plain and self.end == "fin")

    @property
    def broken(self):
        """Whether the peer did something that any call may meet, not only a receive."""
        return self.end is not None and not self.clean

    # Receiving

    def took(self, data):
        """Check data that came: it must be what comes next."""
        must(not self.closed or self.ended, "received on a closed stream")
        must(not self.failed, f"received after {self.failed!r}")
        while data:
            must(self.coming or self.loose, f"received {len(data)} bytes that the peer did not send")
            if not self.coming:
                return
            kind, contents = self.coming.popleft()
            if kind != DATA:
                continue
            part = contents[: len(data)]
            if self.loose and data[: len(part)] != part:
                return  # some of it is gone
            must(data[: len(part)] == part, f"other bytes than the peer sent: {_difference(data, part)}")
            data = data[len(part) :]
            if rest := contents[len(part) :]:
                self.coming.appendleft((DATA, rest))

    def saw(self, kind, contents):
        """`pieces` showed a control record: one that the peer sent, none twice, none out of order."""
        while self.coming and self.coming[0][0] != DATA:
            if self.coming.popleft() in {(kind, contents), (kind, TICKET)}:
                return
        must(None, f"a record of type {kind} that the peer did not send here: {contents[:20]!r}")

    def saw_the_end(self):
        """Check a receive of nothing: the clean end."""
        must(self.ended or not self.failed, f"a clean end after {self.failed!r}")
        must(
            self.ended or (self.clean and (self.loose or not self.available)),
            "a clean end that was none: bytes are lost",
        )
        self.ended = True

    def receive_failed(self, error, size=1, *, exactly=False):
        """Check what a receive of `size` bytes raised."""
        if self.failed or self.closed:
            must(isinstance(error, PeerError), f"{error!r} after {self.failed or 'close()'}")
            return
        # OpenSSL answers a request for new keys as it reads it, also where nothing can be sent any more.
        unanswered = self.userspace and self.shut and self.requests
        # What the kernel could not send after a shutdown, though it had taken it, a receive may tell.
        untold = self.kernel_tx and self.shut and self.doubt
        if (self.interrupted or unanswered or untold) and isinstance(error, StreamError):
            self.failed, self.doubt = error, ""
            return
        enough = self.available >= (size if exactly else 1)
        if isinstance(error, PeerTimeoutError):
            # After close_notify OpenSSL ignores handshake messages of TLS 1.2.
            ignored = self.end == "unexpected record" and self.sending_over and not (self.tls13 or self.kernel_rx)
            waits = not enough and (self.end is None or ignored)
            must(waits or not self.steady, f"timed out although {self.available} bytes and {self.end!r} came")
            return
        must(self.end is not None, f"{error!r}, but the peer did nothing wrong")
        must(
            not enough or self.end == "reset" or self.loose, f"{error!r} before {self.available} bytes that came first"
        )
        if exactly and self.clean:
            must(isinstance(error, TruncatedError), f"{error!r} at a clean end")
            self.loose = self.ended = True
            return
        wanted = ENDS[self.end]
        must(wanted and isinstance(error, wanted), f"{error!r} at {self.end!r}")
        self.failed = error

    # Sending

    @property
    def cannot_send(self):
        return self.closed or self.failed or self.sending_over

    def sent_all(self, kind, data, *, more=False):
        """Check a send that reported success."""
        if not data:
            return
        must(not self.closed, "sent on a closed stream")
        must(not self.failed, f"sent after {self.failed!r}")
        must(not self.sending_over, "sent after the end of sending")
        self.sent.add(kind, data)
        self.held = more
        if self.gone or self.shut:
            self.doubt = "bytes were sent after a reset" if self.gone else "bytes were sent after a shutdown"

    def send_failed(self, error, data):
        """Check what a send raised: a part of its data may arrive, and the stream is over."""
        if self.cannot_send:
            must(isinstance(error, PeerError), f"{error!r} when nothing can be sent any more")
        elif isinstance(error, AlertError):
            must(self.end == "alert", f"{error!r}, but the peer sent none")
            self._broke(error, data)
        elif isinstance(error, StreamError) and (self.interrupted or self.shut):
            self._broke(error, data)
        elif isinstance(error, PeerTimeoutError):
            must(self.reading != "all" or not self.steady, "timed out although the peer reads")
            self._broke(error, data)
        elif isinstance(error, KeyUpdateError):
            must(self.requests and not self.rekey, f"{error!r} without a reason")
            self._broke(error, data)
        else:
            must(isinstance(error, StreamError) and (self.broken or self.doubt), f"{error!r}, but the peer is there")
            self._broke(error, data)

    def _broke(self, error, data):
        self.failed, self.maybe, self.doubt = error, data, ""  # that was told

    def refused(self, error, kind=UsageError):
        """Check the error of a call that this layer does not have: nothing has changed."""
        must(isinstance(error, kind), f"{error!r} in place of {kind}")

    # The ends

    def ended_sending(self):
        """send_eof() returned."""
        if not (self.sending_over or self.closed):
            must(not self.failed, f"send_eof() after {self.failed!r} reported success")
            self._last()
        self.sending_over = True

    def close_returned(self):
        if self.closed:
            return
        self.closed = True
        # A stream that has failed has said so: then its close says nothing more.
        must(not self.doubt or self.failed, f"close() reported success, but {self.doubt}")
        if not self.failed and not self.sending_over:
            self._last()
        self.sending_over = True

    def _last(self):
        self.held = False
        if not self.plain:
            self.sent.add(*CLOSE_NOTIFY)

    def close_failed(self, error):
        must(not self.closed, f"a second close raised {error!r}")
        self.closed = True
        if isinstance(error, PeerTimeoutError) and not self.failed:
            must(self.reading != "all" or not self.steady, "close() timed out although the peer reads")
        else:
            must(isinstance(error, StreamError | PeerTimeoutError), f"close() raised {error!r}")
            must(
                self.failed or self.broken or self.doubt or self.interrupted or self.shut,
                f"close() raised {error!r}, but the peer is there",
            )
        self.failed = self.failed or error

    # What the peer got

    def check(self, got, *, complete):
        """`got` is the peer's Trail. If `complete`, everything that was sent must be in it."""
        must(
            (self.sent.data + self.maybe).startswith(got.data),
            f"the peer got other bytes: {_difference(got.data, self.sent.data + self.maybe)}",
        )
        updates = [place for place in got.controls if _is_update(place)]
        others = [place for place in got.controls if not _is_update(place)]
        if (self.failed or self.broken) and others[-1:] and others[-1][1] == ALERT and others[-1][2][0] == 2:
            others.pop()  # the alert that says what was wrong
        allowed = list(self.sent.controls)
        if self.may_end or (self.failed and self.closed and not self.maybe):
            allowed.append((len(self.sent.data), *CLOSE_NOTIFY))  # it failed in receiving, or in closing
        must(others == allowed[: len(others)], f"the peer got {_shown(others)}, not {_shown(allowed)}")
        must(len(updates) <= self.updates + self.requests, "the peer got more KeyUpdates than there is reason for")
        if complete:
            must(got.data == self.sent.data, f"{len(self.sent.data) - len(got.data)} bytes are lost")
            must(len(others) >= len(self.sent.controls), f"lost: {_shown(self.sent.controls[len(others) :])}")
            must(len(updates) >= self.updates, "a KeyUpdate is lost")


def _is_update(place):
    return place[1] == HANDSHAKE and place[2][:1] == bytes([HandshakeType.KEY_UPDATE])


def _shown(controls):
    return [f"{contents[:8]!r} of type {kind}, after {at} bytes" for at, kind, contents in controls]


def _difference(one, other):
    at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    shown = " and ".join(bytes(data[at : at + 8]).hex() for data in (one, other))
    return f"from byte {at} of {len(one)} and {len(other)}: {shown}"
