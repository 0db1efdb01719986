"""A receive that stays armed on a kernel TLS socket: every record once, in order, with its type."""

from __future__ import annotations

import errno
import time

import pytest

from ktlslab.linux.ring import Operation
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite

LONG = 60.0
DATA, ALERT, HANDSHAKE = ContentType.APPLICATION_DATA, ContentType.ALERT, ContentType.HANDSHAKE
WARNING, CLOSE_NOTIFY = bytes([1, 90]), bytes([1, 0])
TLS13 = Suite.TLS_AES_128_GCM_SHA256
TLS12 = Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256


pytestmark = pytest.mark.usefixtures("no_long_farewell")


@pytest.fixture(params=[TLS12, TLS13], ids=["1.2", "1.3"])
def ends(request, kernel_pair):
    return kernel_pair(suite=request.param)


@pytest.fixture
def fd(ends):
    return ends.pair.connection.socket.fileno()


def tickets(ends):
    """How many session tickets come before everything else."""
    return 2 if ends.suite is TLS13 else 0


def collect(incoming, count):
    got = []
    while len(got) < count:
        got += incoming.take()
    return got


def test_each_record_comes_with_its_type_to_the_clean_end(ring, ends, fd):
    said = [(DATA, b"one"), (ALERT, WARNING), (DATA, b"two"), (DATA, b"three"), (ALERT, CLOSE_NOTIFY)]
    with ring.buffer_ring(8, 1024) as buffers, ring.recvmsg_multishot(fd, buffers, timeout=LONG) as incoming:
        first = collect(incoming, tickets(ends))
        assert [kind for kind, _ in first] == [HANDSHAKE] * tickets(ends)
        for record in said:
            ends.send(*record)
            assert next(incoming) == record
        ends.pair.close_peer()
        assert list(incoming) == []
        assert incoming.ended


@pytest.mark.parametrize("count", [1, 2, 16])
def test_records_that_came_together_keep_their_order_whatever_the_buffers(ring, ends, fd, count, pattern):
    said = [(ALERT, WARNING) if i % 7 == 3 else (DATA, pattern(i % 50 + 1)) for i in range(100)]
    ends.pair.sock.sendall(b"".join(ends.seal(*record) for record in said))
    want = [(kind, byte) for kind, data in said for byte in data]
    got = []
    with ring.buffer_ring(count, 128) as buffers, ring.recvmsg_multishot(fd, buffers, timeout=LONG) as incoming:
        while len(got) < len(want):
            got += [(kind, byte) for kind, data in incoming.take() for byte in data if kind != HANDSHAKE]
    assert got == want


def test_a_record_larger_than_a_buffer_comes_in_parts_of_its_type(ring, ends, fd, pattern):
    with ring.buffer_ring(4, 1040) as buffers, ring.recvmsg_multishot(fd, buffers, timeout=LONG) as incoming:
        ends.send(DATA, pattern(16384))
        got = b""
        while len(got) < 16384:
            for kind, part in incoming.take():
                assert kind in ({DATA, HANDSHAKE} if not got else {DATA})
                assert len(part) <= 1000
                got += part if kind == DATA else b""
        assert got == pattern(16384)


def test_a_plain_multishot_delivers_data_and_fails_at_a_control_record(ring, ends, fd):
    for _ in range(tickets(ends)):
        assert ring.recv_record(fd, bytearray(4096), 0, timeout=LONG)[1] == HANDSHAKE
    with ring.buffer_ring(8, 1024) as buffers, ring.recv_multishot(fd, buffers, timeout=LONG) as incoming:
        ends.send(DATA, b"data")
        assert next(incoming) == (-1, b"data")
        ends.send(ALERT, WARNING)
        ends.send(DATA, b"after")
        for _ in range(2):
            with pytest.raises(OSError, check=lambda e: e.errno == errno.EIO):
                next(incoming)
        assert ring.recv_record(fd, bytearray(9), 0, timeout=LONG) == (2, ALERT)
        assert next(incoming) == (-1, b"after")


def test_what_had_come_when_it_is_left_is_handed_out_and_the_rest_stays(ring, ends, fd):
    for _ in range(tickets(ends)):
        assert ring.recv_record(fd, bytearray(4096), 0, timeout=LONG)[1] == HANDSHAKE
    with ring.buffer_ring(8, 1024) as buffers, ring.recvmsg_multishot(fd, buffers, timeout=LONG) as incoming:
        assert incoming.take(wait=False) == []
        ends.send(DATA, b"before")
        ends.send(ALERT, WARNING)
        time.sleep(0.3)
    ends.send(DATA, b"behind")
    came = list(incoming)
    assert came == [(DATA, b"before"), (ALERT, WARNING)]
    buffer = bytearray(99)
    assert (ring.recv_record(fd, buffer, 0, timeout=LONG), buffer[:6]) == ((6, DATA), b"behind")


def test_sending_meanwhile_and_a_time_out_lose_nothing(ring, ends, fd):
    with ring.buffer_ring(8, 1024) as buffers, ring.recvmsg_multishot(fd, buffers, timeout=0.3) as incoming:
        collect(incoming, tickets(ends))
        with pytest.raises(TimeoutError):
            incoming.take()
        assert ring.send_many(fd, [b"a", b"b"], timeout=LONG) == 2
        assert [ends.open(ends.pair.read_record()) for _ in range(2)] == [(DATA, b"a"), (DATA, b"b")]
        ends.send(DATA, b"back")
        (token,) = ring.start(Operation.nop())
        assert [c.token for c in ring.reap(1, timeout=LONG)] == [token]
        assert next(incoming) == (DATA, b"back")


def test_a_damaged_record_is_an_error_after_the_good_ones(ring, ends, fd):
    with ring.buffer_ring(8, 1024) as buffers, ring.recvmsg_multishot(fd, buffers, timeout=LONG) as incoming:
        collect(incoming, tickets(ends))
        good, bad = ends.seal(DATA, b"good"), bytearray(ends.seal(DATA, b"evil"))
        bad[-1] ^= 1
        ends.pair.sock.sendall(good + bad)
        assert next(incoming) == (DATA, b"good")
        for _ in range(2):
            with pytest.raises(OSError, check=lambda e: e.errno == errno.EBADMSG):
                next(incoming)


def test_what_came_in_two_batches_for_an_abandoned_iteration_is_received_next(kernel_pair):
    ends = kernel_pair(suite=TLS12, io_engine="uring")
    for record in [(DATA, b"a"), (ALERT, WARNING), (DATA, b"b")]:
        ends.send(*record)
    pieces = ends.stream.pieces()
    assert next(pieces) == (DATA, b"a")  # the rest of the first batch waits for the iteration
    ends.send(DATA, b"c")
    time.sleep(0.1)
    pieces.close()
    got = bytearray(2)
    ends.stream.recv_exactly_into(got)
    assert got == b"bc"
