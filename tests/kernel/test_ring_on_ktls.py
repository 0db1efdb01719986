"""Each thing that a ring can do, on a socket whose records the kernel makes: what it does, or how it is refused."""

from __future__ import annotations

import errno
import hashlib
import os
import select
import socket
import threading
import time

import pytest
from OpenSSL import SSL

from ktlslab.linux import capabilities, ktls
from ktlslab.linux.features import ring_features
from ktlslab.linux.ktls import Direction
from ktlslab.linux.operations import Operation
from ktlslab.linux.ring import Ring, transfer
from ktlslab.stages import export
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite

LONG = 60.0
DATA, ALERT = ContentType.APPLICATION_DATA, ContentType.ALERT
WARNING = bytes([1, 90])  # user_canceled, which ends nothing
TLS13 = Suite.TLS_AES_128_GCM_SHA256
TLS12 = Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256


pytestmark = pytest.mark.usefixtures("no_long_farewell")


@pytest.fixture(params=[TLS12, TLS13], ids=["1.2", "1.3"])
def ends(request, kernel_pair):
    """Give a kernel pair whose session tickets, if there are any, have been read away."""
    made = kernel_pair(suite=request.param, first=b"ready")
    assert made.stream.recv() == b"ready"
    made.sequence["rx"] += 1
    return made


@pytest.fixture
def fd(ends):
    return ends.pair.connection.socket.fileno()


def run(ring, *operations):
    return transfer(ring, operations, timeout=LONG)


def is_free(buffer):
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True


def wire(ends, count):
    """Open the next records that the kernel put on the wire."""
    return [ends.open(ends.pair.read_record()) for _ in range(count)]


# One call


def test_bound_calls_make_and_take_records(ring, ends, fd, pattern):
    send, send_record = ring.sender(fd, timeout=LONG), ring.record_sender(fd, timeout=LONG)
    receive, receive_record = ring.receiver(fd, timeout=LONG), ring.record_receiver(fd, timeout=LONG)
    assert (send(b"data"), send_record(WARNING, ALERT), send(pattern(16384))) == (4, 2, 16384)
    assert wire(ends, 3) == [(DATA, b"data"), (ALERT, WARNING), (DATA, pattern(16384))]
    buffer = bytearray(16384)
    ends.send(DATA, pattern(16384))
    assert (receive(buffer), buffer) == (16384, pattern(16384))
    ends.send(ALERT, WARNING)
    assert (receive_record(buffer), buffer[:2]) == ((2, ALERT), WARNING)
    ends.send(DATA, b"more")
    assert (receive_record(buffer), buffer[:4]) == ((4, DATA), b"more")


def test_a_plain_receive_fails_at_a_control_record_until_recvmsg_takes_it(ring, ends, fd):
    receive, receive_record, buffer = (
        ring.receiver(fd, timeout=LONG),
        ring.record_receiver(fd, timeout=LONG),
        bytearray(99),
    )
    ends.send(ALERT, WARNING)
    ends.send(DATA, b"after")
    for _ in range(2):
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EIO):
            receive(buffer)
    assert receive_record(buffer) == (2, ALERT)
    assert (receive(buffer), buffer[:5]) == (5, b"after")


def test_what_kernel_tls_refuses_is_its_errno_and_sends_nothing(ring, ends, fd):
    for flags in (socket.MSG_WAITALL, socket.MSG_OOB):
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EOPNOTSUPP):
            ring.send(fd, b"x", int(flags), timeout=LONG)
    ring.send(fd, b"next", 0, timeout=LONG)
    assert wire(ends, 1) == [(DATA, b"next")]


def test_a_wait_on_kernel_tls_is_bounded_and_loses_nothing(ring, ends, fd):
    buffer = bytearray(9)
    for receive in (ring.receiver(fd, timeout=0.1), ring.record_receiver(fd, timeout=0.1)):
        with pytest.raises(TimeoutError):
            receive(buffer)
    assert is_free(buffer)
    record = ends.seal(DATA, b"late")
    ends.pair.sock.sendall(record[:7])  # half a record is none
    with pytest.raises(TimeoutError):
        ring.receiver(fd, timeout=0.1)(buffer)
    ends.pair.sock.sendall(record[7:])
    assert ring.record_receiver(fd, timeout=LONG)(buffer) == (4, DATA)


# Batches


@pytest.mark.parametrize("count", [1, 16, 100])
def test_a_batch_is_as_many_records_in_order(ring, ends, fd, count):
    parts = [bytes([i]) * (i + 1) for i in range(count)]
    assert ring.send_many(fd, parts, timeout=LONG) == sum(map(len, parts))
    assert wire(ends, count) == [(DATA, part) for part in parts]


def test_a_large_batch_to_a_slow_reader_arrives_whole_and_in_order(ring, ends, fd):
    ends.pair.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    parts = [hashlib.sha256(bytes([i])).digest() * 300 for i in range(100)]
    whole, got = b"".join(parts), bytearray()

    def read():
        while len(got) < len(whole):
            try:
                got.extend(ends.pair.tls.recv(1 << 16))
            except SSL.Error:
                return
            time.sleep(0.002)

    reader = threading.Thread(target=read)
    reader.start()
    assert ring.send_many(fd, parts, timeout=LONG) == len(whole)
    reader.join(LONG)
    assert got == whole


def test_a_batch_whose_time_is_up_says_how_much_the_kernel_took(ring, ends, fd):
    ends.pair.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    parts = [bytes([i]) * 40_000 for i in range(200)]
    whole, taken = b"".join(parts), []
    with pytest.raises(TimeoutError):  # noqa: PT012 - the kernels may find room for more in between
        while True:
            taken.append(ring.send_many(fd, parts, timeout=0.3))
    assert 0 < taken[0] < len(whole)
    expected, got = b"".join(whole[:count] for count in taken), bytearray()
    while len(got) < len(expected):
        got += ends.pair.tls.recv(1 << 16)
    assert got == expected


def test_a_batch_with_msg_more_fills_its_records(ring, ends, fd):
    assert ring.send_many(fd, [b"a" * 100] * 5, timeout=LONG, flags=int(socket.MSG_MORE)) == 500
    assert ring.send(fd, b"end", 0, timeout=LONG) == 3
    assert wire(ends, 1) == [(DATA, b"a" * 500 + b"end")]


# Operations


def test_messages_with_a_type(ring, ends, fd):
    buffer = bytearray(99)
    receive = Operation.recvmsg(fd, buffer)
    ends.send(ALERT, WARNING)
    assert run(ring, Operation.sendmsg(fd, WARNING, ALERT), receive) == [2, 2]
    assert (receive.record_type, buffer[:2]) == (ALERT, WARNING)
    assert wire(ends, 1) == [(ALERT, WARNING)]


def test_reads_writes_and_what_is_registered(ring, ends, fd):
    out, back = bytearray(b"from a fixed buffer"), bytearray(99)
    ring.register_files([fd])
    ring.register_buffers([out, back])
    ends.send(DATA, b"one")
    ends.send(DATA, b"two")
    operations = (
        Operation.write(0, b"plain", fixed_file=True, linked=True),
        Operation.write_fixed(0, out, 0, fixed_file=True, linked=True),
        Operation.send(0, b"sent", fixed_file=True, linked=True),
        Operation.read_fixed(0, back, 1, fixed_file=True),
    )
    results = run(ring, *operations)
    assert results[:3] == [5, 19, 4]
    assert back[: results[3]] == b"onetwo"[: results[3]]
    assert results[3] in {3, 6}  # kernels differ in whether a read goes past a record's end
    assert wire(ends, 3) == [(DATA, b"plain"), (DATA, bytes(out)), (DATA, b"sent")]


def test_a_file_is_spliced_into_records_and_records_into_a_pipe(ring, ends, fd, tmp_path, pattern):
    (tmp_path / "file").write_bytes(pattern(20_000))
    reader, writer = os.pipe()
    with (tmp_path / "file").open("rb") as file:
        into = Operation.splice(file.fileno(), writer, 20_000, offset_in=0, linked=True)
        assert run(ring, into, Operation.splice(reader, fd, 20_000)) == [20_000, 20_000]
    got = bytearray()
    while len(got) < 20_000:
        got += ends.pair.tls.recv(1 << 16)
    assert got == pattern(20_000)
    ends.send(DATA, b"to a pipe")
    assert run(ring, Operation.splice(fd, writer, 100)) == [9]
    assert os.read(reader, 100) == b"to a pipe"
    ends.send(ALERT, WARNING)
    assert run(ring, Operation.splice(fd, writer, 100)) == [-errno.EINVAL]
    assert ring.record_receiver(fd, timeout=LONG)(bytearray(9)) == (2, ALERT)
    os.close(reader)
    os.close(writer)


def test_a_zero_copy_send_is_refused_and_its_buffer_given_back(ring, ends, fd):
    buffer = bytearray(b"zero copy")
    send = Operation.send_zc(fd, buffer)
    tokens = ring.start(send, Operation.nop())
    seen = []
    while ring.in_flight:
        seen += ring.reap(1, timeout=LONG)
    mine = [c for c in seen if c.token == tokens[0]]
    assert mine[0].result == -errno.EOPNOTSUPP
    assert [c.notification for c in mine[1:]] == [True] * mine[0].more
    assert len(seen) == len(mine) + 1
    assert run(ring, send, Operation.send(fd, b"copied")) == [-errno.EOPNOTSUPP, 6]
    del send
    assert is_free(buffer)
    assert wire(ends, 1) == [(DATA, b"copied")]


def test_polls_time_outs_and_endings(ring, ends, fd):
    (token,) = ring.start(Operation.poll_add(fd, select.POLLIN))
    assert ring.reap(0) == []
    ends.send(DATA, b"x")
    (done,) = ring.reap(1, timeout=LONG)
    assert (done.token, done.result & select.POLLIN) == (token, select.POLLIN)
    buffer = bytearray(9)
    bounded = Operation.recv(fd, buffer, linked=True), Operation.link_timeout(0.2)
    assert run(ring, *bounded) == [1, -errno.ECANCELED]
    assert run(ring, *bounded) == [-errno.ECANCELED, -errno.ETIME]
    farewell = Operation.sendmsg(fd, bytes([1, 0]), ALERT, linked=True)
    assert run(ring, farewell, Operation.shutdown(fd, socket.SHUT_WR)) == [2, 0]
    assert wire(ends, 1) == [(ALERT, bytes([1, 0]))]
    assert ends.pair.sock.recv(1) == b""


@pytest.mark.parametrize("suite_of", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_the_keys_and_the_first_bytes_go_with_one_submission(ring, tls_pair, suite_of):
    pair = tls_pair(suite=suite_of)
    keys, sock = export(pair.handshake), pair.connection.socket
    sides = ((Direction.TX, keys.tx), (Direction.RX, keys.rx))
    attach = Operation.setsockopt(sock.fileno(), socket.IPPROTO_TCP, ktls.TCP_ULP, b"tls", linked=True)
    set_keys = [
        Operation.setsockopt(sock.fileno(), ktls.SOL_TLS, direction.value, side.crypto_info().pack(), linked=True)
        for direction, side in sides
    ]
    done = run(ring, attach, *set_keys, Operation.send(sock.fileno(), b"first"))
    if ring_features()["setsockopt"]:
        assert done == [0, 0, 0, 5]
        assert pair.tls.recv(9) == b"first"
        assert ktls.sequence_number(sock, Direction.TX, suite_of.cipher.kernel_type) == keys.tx.sequence + 1
    else:  # before 6.7
        assert done == [-errno.EOPNOTSUPP] + [-errno.ECANCELED] * 3
        assert not ktls.attached(sock)
        assert capabilities.uring_setsockopt().errno == errno.EOPNOTSUPP


# Set-ups and options


def test_every_kernel_here_has_every_feature_but_one():
    assert {name for name, works in ring_features().items() if not works} <= {"setsockopt"}


@pytest.mark.parametrize("setup", ["sqpoll", "defer_taskrun"])
def test_other_setups_move_records_as_well(ends, fd, setup):
    with Ring(8, **{setup: True}) as ring:
        assert ring.send_many(fd, [b"a", b"b"], timeout=LONG) == 2
        assert ring.send_record(fd, WARNING, ALERT, timeout=LONG) == 2
        assert wire(ends, 3) == [(DATA, b"a"), (DATA, b"b"), (ALERT, WARNING)]
        ends.send(DATA, b"back")
        assert ring.recv_record(fd, bytearray(9), 0, timeout=LONG) == (4, DATA)
        with ring.buffer_ring(4, 1000) as buffers, ring.recvmsg_multishot(fd, buffers, timeout=LONG) as incoming:
            ends.send(ALERT, WARNING)
            assert next(incoming) == (ALERT, WARNING)


def test_records_are_no_longer_than_was_set_or_the_kernel_does_not_know_how(ring, ends, fd, pattern):
    sock = ends.pair.connection.socket
    if capabilities.max_payload():
        assert ktls.get_max_payload(sock) == 16384
        ktls.set_max_payload(sock, 100)
        assert ktls.get_max_payload(sock) == 100
        assert ring.send_many(fd, [pattern(250)], timeout=LONG) == 250
        assert [len(data) for _, data in wire(ends, 3)] == [100, 100, 50]
        refused = errno.EINVAL
    else:
        refused = errno.ENOPROTOOPT
    with pytest.raises(OSError, check=lambda e: e.errno == refused):
        ktls.set_max_payload(sock, 1)


def test_no_padding_may_be_expected_in_tls_1_3(ends):
    sock = ends.pair.connection.socket
    ktls.set_zerocopy_sendfile(sock, on=True)
    if ends.suite is TLS12:
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EINVAL):
            ktls.set_no_pad(sock, expect=True)
        return
    for expect in (True, False):
        ktls.set_no_pad(sock, expect=expect)
        assert ktls.get_no_pad(sock) is expect
    ktls.set_no_pad(sock, expect=True)
    ends.send(DATA, b"as before")
    assert ends.stream.recv() == b"as before"


def test_the_probe_for_new_keys_says_what_a_live_session_is_told(ends):
    sock, kind = ends.pair.connection.socket, ends.suite.cipher.kernel_type
    live = ktls.get_keys(sock, Direction.TX, kind).pack()
    answer = capabilities.rekey()
    assert answer or answer.errno == errno.EBUSY
    if answer and ends.suite is TLS13:
        ktls.set_keys(sock, Direction.TX, live)
    else:
        with pytest.raises(OSError, check=lambda e: e.errno in {errno.EBUSY, errno.EINVAL}):
            ktls.set_keys(sock, Direction.TX, live)
