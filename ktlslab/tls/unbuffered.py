"""A TLS connection without I/O: a state machine whose state says what to do next.

A library does the cryptography (`libraries`: OpenSSL, or rustls). This class maps its progress to the states of rustls'
unbuffered API, so a driver only moves bytes:

    ENCODE_TLS_DATA      call `encode` for the bytes to send
    TRANSMIT_TLS_DATA    send them, then call `transmitted`
    BLOCKED_HANDSHAKE    read exactly one record and `feed` it
    WRITE_TRAFFIC        the handshake is done: `encrypt` data to send, `feed` received records
    READ_TRAFFIC         decrypted bytes are available: `traffic.open_into`

Records are fed one at a time and counted. This makes a handoff possible: the library never holds bytes from after the
handshake, and the sequence numbers are known.
"""

from __future__ import annotations

import functools
from collections import deque
from enum import Enum

from .libraries import Buffer, Library, Traffic
from .records import HEADER_BYTES, Record, RecordSplitter
from .suites import Version


class State(Enum):
    """What to do next, by rustls' names."""

    ENCODE_TLS_DATA = "EncodeTlsData"
    TRANSMIT_TLS_DATA = "TransmitTlsData"
    BLOCKED_HANDSHAKE = "BlockedHandshake"
    WRITE_TRAFFIC = "WriteTraffic"
    READ_TRAFFIC = "ReadTraffic"


class UnbufferedConnection:
    """One TLS connection. The library's LibraryError passes through; the stages turn it into a message."""

    def __init__(self, library: Library, *, server: bool = False) -> None:
        self.library = library
        self._server = server
        self.finished = False
        self.transcript: list[tuple[str, Record]] = []  # ("sent" or "received", record), up to the handshake's end
        self.tx_records = 0  # records made under the application keys
        self.rx_records = 0  # records fed under the application keys
        self._outgoing: deque[bytes] = deque()
        self._unsent = False
        self._sent = RecordSplitter()
        self._step()

    @property
    def state(self) -> State:
        if self._unsent:
            return State.TRANSMIT_TLS_DATA
        if self._outgoing:
            return State.ENCODE_TLS_DATA
        if not self.finished:
            return State.BLOCKED_HANDSHAKE
        return State.READ_TRAFFIC if self.library.pending() else State.WRITE_TRAFFIC

    @property
    def version(self) -> Version:
        """The version that was negotiated."""
        return self.library.version

    @property
    def sequence_numbers(self) -> tuple[int, int]:
        """(TX, RX) of the next record. TLS 1.2's keys have protected one Finished each way, TLS 1.3's none."""
        finished = 1 if self.version is Version.TLS12 else 0
        return finished + self.tx_records, finished + self.rx_records

    def encode(self) -> bytes:
        """Return the handshake's next bytes for the peer."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        self._unsent = bool(data)
        return data

    def transmitted(self) -> None:
        """Confirm that the bytes of `encode` were sent."""
        self._unsent = False

    def feed(self, record: Buffer) -> None:
        """Feed exactly one record: a handshake record until the handshake is done, then any record."""
        if self.finished:
            self.rx_records += 1
            self.library.feed(record)
            return
        raw = bytes(record)
        splitter = RecordSplitter()
        splitter.feed(raw)
        self.transcript += [("received", r) for r in splitter]
        self.library.feed(raw)
        self._step()

    def _step(self) -> None:
        """Let the library go as far as it can. Before a failure is raised, its alert is available from `encode`."""
        try:
            self.finished = self.library.advance()
        finally:
            data = self.library.take()
            if data:
                self._outgoing.append(data)
                self._sent.feed(data)
                sent = [("sent", record) for record in self._sent]
                self.transcript += sent
                if self.finished and self._server and self.version is Version.TLS13:
                    self.tx_records += len(sent)  # after its Finished: these are session tickets

    @functools.cached_property
    def traffic(self) -> Traffic:
        """The sealing and opening of application data."""
        return self.library.traffic

    @property
    def uncounted(self) -> bool:
        """Whether some records were not counted: too late for a handoff. Asking makes no buffers for the traffic."""
        return "traffic" in vars(self) and self.traffic.uncounted

    def encrypt(self, data: Buffer) -> memoryview:
        """Return the records that carry `data`, valid until the next call."""
        return self._counted(self.traffic.seal(data))

    def shut_down(self) -> None:
        """Let the library make close_notify. OSError EBUSY while another thread is in OpenSSL."""
        self.traffic.check_free()
        self.library.shutdown()

    def _counted(self, records: memoryview) -> memoryview:
        at = 0
        while at < len(records):
            at += HEADER_BYTES + int.from_bytes(records[at + 3 : at + 5], "big")
            self.tx_records += 1
        return records
