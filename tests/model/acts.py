"""What the peer does: it sends, delays, cuts, floods, changes keys, stops reading, and ends in good and bad ways."""

from __future__ import annotations

from handpeer import key_update
from hypothesis import strategies as st
from model.base import FEW, SIZES, Base, pattern, rule
from model.contract import ALERT, DATA, ENDS, HANDSHAKE
from model.remote import READING

from ktlslab.tls.alerts import AlertDescription
from ktlslab.tls.records import MAX_PLAINTEXT


class PeerActs(Base):
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
