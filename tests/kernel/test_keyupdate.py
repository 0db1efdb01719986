"""KeyUpdate: followed and made where the kernel can, refused before it does harm where it cannot.

What this kernel can is asked of it by `capabilities.rekey`; each test says what is right in either case.
"""

from __future__ import annotations

import pytest

from ktlslab.errors import KeyUpdateError, StreamClosedError, StreamError
from ktlslab.linux import capabilities
from ktlslab.linux.counters import Counters
from ktlslab.linux.ktls import Direction
from ktlslab.session import session_pair
from ktlslab.stages import Stream, export, install
from ktlslab.tls.keyschedule import next_traffic_secret, traffic_key
from ktlslab.tls.protect import open_record, seal
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import CIPHERS, Suite, Version

pytestmark = pytest.mark.usefixtures("no_long_farewell")
TLS13 = Suite.TLS_AES_256_GCM_SHA384
TLS13_SUITES = [suite for suite in Suite if suite.version is Version.TLS13 and suite.cipher in CIPHERS]
MEBIBYTE = bytes(range(256)) * 4096
KEY_UPDATE = b"\x18\x00\x00\x01"
TX, RX = Direction.TX, Direction.RX


@pytest.fixture
def pair(io_engine):
    client, server = session_pair(suite=TLS13, io_engine=io_engine)
    with client, server:
        yield client.stream, server.stream


def carry(one, other, data):
    one.send(data)
    got = bytearray(len(data))
    other.recv_exactly_into(got)
    assert got == data


def refused(stream, words, **options):
    with pytest.raises(KeyUpdateError, match=words):
        stream.update_keys(**options)


@pytest.mark.parametrize("suite", TLS13_SUITES, ids=lambda suite: suite.cipher.name)
def test_three_updates_each_way_and_every_byte_arrives(suite, io_engine):
    client, server = session_pair(suite=suite, io_engine=io_engine)
    with client, server:
        for number in range(3):
            for one, other in ((client.stream, server.stream), (server.stream, client.stream)):
                if capabilities.rekey():
                    one.update_keys()
                else:
                    refused(one, r"EBUSY.*6\.14")
                carry(one, other, b"after update %d" % number)
                carry(one, other, MEBIBYTE[: 1 << 17])
        times = 3 if capabilities.rekey() else 0
        assert client.stream.generations == server.stream.generations == {TX: times, RX: times}


def test_the_kernel_counts_the_update(pair):
    before = Counters.read()
    if not capabilities.rekey():
        refused(pair[0], "EBUSY")
        assert (Counters.read() - before).values == {}
        return
    pair[0].update_keys()
    carry(*pair, b"data")
    changed = Counters.read() - before
    assert {name: changed[name] for name in ("TlsTxRekeyOk", "TlsRxRekeyOk", "TlsRxRekeyReceived")} == {
        "TlsTxRekeyOk": 1,
        "TlsRxRekeyOk": 1,
        "TlsRxRekeyReceived": 1,
    }


def test_a_request_is_answered_before_the_next_byte(pair):
    client, server = pair
    if not capabilities.rekey():
        refused(client, "EBUSY", request_peer=True)
        carry(client, server, b"nothing was lost")
        return
    client.update_keys(request_peer=True)
    client.update_keys(request_peer=True)
    carry(client, server, b"asked twice")
    assert server.generations == {TX: 0, RX: 2}
    carry(server, client, b"answered once")
    assert server.generations == {TX: 1, RX: 2}
    assert client.generations == {TX: 2, RX: 1}


def test_a_peer_that_openssl_reads_from_is_answered_by_the_kernel(io_engine):
    """The kernel sends and OpenSSL receives, at both ends: neither sees the other's message as we do."""
    client, server = session_pair(suite=TLS13, record_layer="kernel-tx", io_engine=io_engine)
    with client, server:
        if not capabilities.rekey():
            refused(client.stream, "EBUSY", request_peer=True)
            return
        client.stream.update_keys(request_peer=True)
        carry(client.stream, server.stream, b"asked")
        carry(server.stream, client.stream, b"answered")
        assert server.stream.generations == {TX: 1}


class Peer:
    """The other end of a kernel stream, by keys in the test's hands: it changes them as a peer would."""

    def __init__(self, ends):
        self.sock, self.suite = ends.pair.sock, ends.suite
        shaken = ends.pair.handshake.secrets
        self.secret = shaken["SERVER_TRAFFIC_SECRET_0"].secret
        self.theirs = shaken["CLIENT_TRAFFIC_SECRET_0"].secret
        self.sequence = ends.sequence["rx"]

    def send(self, kind, data):
        self.sock.sendall(self.sealed(kind, data))

    def sealed(self, kind, data):
        self.sequence += 1
        return seal(self.suite, *traffic_key(self.secret, self.suite), self.sequence - 1, kind, data)

    def update(self, request, after=b""):
        """Change the keys; `after`: data that goes before that, in one segment with it."""
        before = self.sealed(ContentType.APPLICATION_DATA, after) if after else b""
        self.sock.sendall(before + self.sealed(ContentType.HANDSHAKE, KEY_UPDATE + bytes([request])))
        self.secret, self.sequence = next_traffic_secret(self.secret, self.suite), 0


@pytest.mark.parametrize("record_layer", [(TX, RX), (RX,)], ids=["kernel", "kernel-rx"])
def test_a_peers_update_is_followed_or_an_error_that_names_it(kernel_pair, io_engine, record_layer):
    ends = kernel_pair(record_layer, suite=TLS13, io_engine=io_engine)
    peer = Peer(ends)
    peer.send(ContentType.APPLICATION_DATA, b"before")
    assert ends.stream.recv() == b"before"
    peer.update(request=1)
    peer.send(ContentType.APPLICATION_DATA, b"after")
    if not capabilities.rekey():
        for _ in range(2):
            with pytest.raises(KeyUpdateError, match=r"following a KeyUpdate.*EBUSY.*6\.14"):
                ends.stream.recv()
        with pytest.raises(StreamClosedError):
            ends.stream.send(b"x")
        return
    assert ends.stream.recv() == b"after"
    answers_first(ends, peer)


def answers_first(ends, peer):
    ends.stream.send(b"our answer first")
    answer, data = ends.pair.read_record(), ends.pair.read_record()
    key, write_iv = traffic_key(peer.theirs, TLS13)
    assert open_record(TLS13, key, write_iv, 0, answer) == (ContentType.HANDSHAKE, KEY_UPDATE + b"\x00")
    key, write_iv = traffic_key(next_traffic_secret(peer.theirs, TLS13), TLS13)
    assert open_record(TLS13, key, write_iv, 0, data) == (ContentType.APPLICATION_DATA, b"our answer first")


def test_a_request_that_comes_behind_data_is_answered(kernel_pair, io_engine):
    """OpenSSL receives: it holds the request before it has read it."""
    ends = kernel_pair((TX,), suite=TLS13, io_engine=io_engine)
    if not capabilities.rekey():
        return
    peer = Peer(ends)
    peer.update(request=1, after=b"before")
    assert ends.stream.recv() == b"before"
    peer.send(ContentType.APPLICATION_DATA, b"after")
    assert ends.stream.recv() == b"after"
    answers_first(ends, peer)


def test_what_follows_a_key_update_in_its_record_is_an_error(kernel_pair):
    ends = kernel_pair(suite=TLS13)
    Peer(ends).send(ContentType.HANDSHAKE, KEY_UPDATE + b"\x00" + KEY_UPDATE + b"\x00")
    with pytest.raises(StreamError, match="follows it in its record"):
        ends.stream.recv()


def test_openssl_follows_and_answers(tls_pair, io_engine):
    pair = tls_pair(suite=TLS13, io_engine=io_engine)
    install(pair.connection, export(pair.handshake))
    stream = Stream(pair.connection, pair.handshake, (TX, RX))
    if not capabilities.rekey():
        refused(stream, "EBUSY")
        stream.send(b"as before")
        assert pair.tls.recv(100) == b"as before"
        return
    stream.update_keys(request_peer=True)
    stream.send(b"under new keys")
    assert pair.tls.recv(100) == b"under new keys"
    pair.tls.sendall(b"and so do we")
    assert stream.recv() == b"and so do we"
    assert stream.generations == {TX: 1, RX: 1}


def test_tls12_and_userspace_have_none_and_say_so():
    client, server = session_pair(suite=Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
    with client, server:
        refused(client.stream, r"TLS 1\.2 has no KeyUpdate")
        carry(client.stream, server.stream, b"still here")
    client, server = session_pair(record_layer="userspace")
    with client, server:
        refused(client.stream, "the sending side is userspace")
        carry(client.stream, server.stream, b"still here")


def limited(pair, limit):
    keys = export(pair.handshake)
    assert install(pair.connection, keys)
    return Stream(pair.connection, pair.handshake, (TX, RX), record_limit=limit)


def exchange(stream, tls, count, ours=1):
    """Receive a record and, every `ours` times, send one; returns how many were sent when an error came, and it."""
    sent = 0
    for number in range(count):
        tls.sendall(b"theirs")
        assert stream.recv() == b"theirs"
        if number % ours:
            continue
        try:
            stream.send(b"ours")
        except KeyUpdateError as error:
            return sent, error
        sent += 1
        assert tls.recv(4) == b"ours"
    return sent, None


def test_the_limit_of_what_one_key_may_protect_is_kept(tls_pair, io_engine):
    """RFC 8446, 5.5: by the kernel's own sequence number, with a small limit here."""
    pair = tls_pair(suite=TLS13, io_engine=io_engine)
    stream = limited(pair, 400)
    sent, error = exchange(stream, pair.tls, 1000)
    if capabilities.rekey():
        assert (sent, error) == (1000, None)
        # Each direction leaves a key in time, and asking the peer to do so changes our own key as well.
        assert 1000 // 400 <= stream.generations[TX] <= 2 * (1000 // (400 - 3 * 64) + 1)
    else:
        assert 400 - 3 * 64 <= sent <= 400
        assert f"has protected {sent} records and may protect 400" in str(error)
        with pytest.raises(StreamClosedError):
            stream.send(b"x")


def test_a_peer_that_comes_near_the_limit_is_asked_for_new_keys(tls_pair):
    pair = tls_pair(suite=TLS13)
    stream = limited(pair, 300)
    _, error = exchange(stream, pair.tls, 600, ours=4)
    if capabilities.rekey():
        assert error is None
        assert stream.generations[RX] >= 1
    else:
        assert "this RX key has protected" in str(error)


def test_an_end_that_only_receives_stops_at_the_limit_as_well(tls_pair, io_engine):
    pair = tls_pair(suite=TLS13, io_engine=io_engine)
    stream = limited(pair, 200)
    with pytest.raises(KeyUpdateError, match=r"the peer's key has protected 2\d\d records and may protect 200"):  # noqa: PT012
        for _ in range(300):
            pair.tls.sendall(b"theirs")
            stream.recv()
    with pytest.raises(KeyUpdateError):
        stream.recv()


def test_tls12_ends_with_the_reason_when_its_key_is_used_up(tls_pair):
    pair = tls_pair(suite=Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
    stream = limited(pair, 200)
    with pytest.raises(KeyUpdateError, match=r"may protect 200.*TLS 1\.2 has no KeyUpdate"):  # noqa: PT012
        for _ in range(300):
            stream.send(b"record")
            pair.tls.recv(6)


def test_batches_keep_the_limit_too(tls_pair, io_engine):
    """A check-up is due between batches, of which one may be longer than what was left until then."""
    pair = tls_pair(suite=Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, io_engine=io_engine)
    stream, sent = limited(pair, 400), 0
    with pytest.raises(KeyUpdateError, match="may protect 400"):  # noqa: PT012
        while sent <= 400:
            stream.send_many([b"record"] * 30)
            sent += 30
            left = 30 * 6
            while left:
                left -= len(pair.tls.recv(left))
    assert 400 - 3 * 64 - 30 <= sent <= 400
