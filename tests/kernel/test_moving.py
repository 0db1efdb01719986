"""Ways of moving data through a socket whose records the kernel makes: files, pipes, batches, records one by one."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import threading
import time

import pytest
from kinds import USER_MODE

from ktlslab.errors import (
    AlertError,
    MachineError,
    PeerTimeoutError,
    StreamClosedError,
    StreamError,
    TruncatedError,
    UsageError,
)
from ktlslab.linux import capabilities, ktls
from ktlslab.linux.ktls import Direction
from ktlslab.linux.ring import Operation, Ring, transfer
from ktlslab.session import open_session, session_pair
from ktlslab.stages import Refused, Stream, Why, export, install, install_linked
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite

pytestmark = pytest.mark.usefixtures("no_long_farewell")
TLS13 = Suite.TLS_AES_128_GCM_SHA256
TLS12 = Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
BOTH_VERSIONS = pytest.mark.parametrize("suite", [TLS12, TLS13], ids=["1.2", "1.3"])
LAYERS = pytest.mark.parametrize("layer", ["kernel", "kernel-tx", "kernel-rx", "userspace", "plain"])
TX, RX = Direction.TX, Direction.RX
BRIEF = 1.0 if USER_MODE else 2.0  # of a call that waits for a peer that is late, then for nothing


@pytest.fixture
def ends(suite, io_engine):
    """(client, server): the streams of a session that is the kernel's at both ends."""
    client, server = session_pair(suite=suite, io_engine=io_engine)
    with client, server:
        yield client.stream, server.stream


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def on_the_wire(ends, count):
    """Read what the next records hold, as the peer finds them: [(type, bytes)]."""
    return [ends.open(ends.pair.read_record()) for _ in range(count)]


@BOTH_VERSIONS
@pytest.mark.parametrize("layer", ["kernel", "kernel-tx", "kernel-rx", "userspace"])
def test_pipes_carry_bytes_in_and_out_whoever_makes_the_records(suite, layer, io_engine, pipe, pattern):
    client, server = session_pair(suite=suite, io_engine=io_engine, record_layer=layer)
    with client, server:
        server.stream.send(b"so that the tickets come first")
        reading, writing = pipe
        os.write(writing, pattern(40_000))
        assert client.stream.splice_from(reading, 40_000) == 40_000
        got = bytearray()
        while len(got) < 40_000:
            moved = server.stream.splice_into(writing, 1 << 14)
            got += os.read(reading, moved)
        assert got == pattern(40_000)
        # The client has tickets in its way, which splice(2) will not touch.
        moved = client.stream.splice_into(writing, 100)
        assert os.read(reading, moved) == b"so that the tickets come first"
        server.stream.close()
        assert client.stream.splice_into(writing, 100) == 0


@BOTH_VERSIONS
@pytest.mark.parametrize("layer", ["kernel", "kernel-rx", "userspace"])
@pytest.mark.parametrize("blocking", [True, False], ids=["a pipe that blocks", "a pipe that does not block"])
def test_a_splice_waits_for_the_peer_whatever_the_pipe_does(layer, suite, io_engine, pipe, blocking):
    """splice(2) takes O_NONBLOCK of either end for both. In TLS 1.3 the first finds tickets in its way."""
    client, server = session_pair(suite=suite, io_engine=io_engine, record_layer=layer, timeout=BRIEF)
    reading, writing = pipe
    os.set_blocking(writing, blocking)
    with client, server:
        late = threading.Timer(0.3, server.stream.send, [b"late"])
        late.start()
        assert os.read(reading, client.stream.splice_into(writing, 100)) == b"late"
        late.join()
        started = time.monotonic()
        with pytest.raises(PeerTimeoutError):
            client.stream.splice_into(writing, 100)
        assert time.monotonic() - started > 0.9 * BRIEF


@pytest.mark.parametrize("layer", ["kernel", "kernel-rx", "userspace"])
def test_what_a_pipe_does_not_take_is_received_next(layer, io_engine):
    client, server = session_pair(io_engine=io_engine, record_layer=layer)
    reading, writing = os.pipe()
    with client, server, os.fdopen(writing, "wb"):
        os.set_blocking(writing, False)
        while True:
            try:
                os.write(writing, bytes(1 << 16))
            except BlockingIOError:
                break
        client.stream.send(b"all that came")
        with pytest.raises(UsageError, match=r"the pipe took nothing: EAGAIN.*kept for the next receive"):
            server.stream.splice_into(writing, 100)
        os.close(reading)
        with pytest.raises(UsageError, match=r"the pipe took nothing: EPIPE"):
            server.stream.splice_into(writing, 3)
        got = server.stream.recv(4)
        while len(got) < 13:
            got += server.stream.recv(100)
        assert got == b"all that came"


def test_an_empty_pipe_that_no_one_reads_takes_nothing(io_engine):
    client, server = session_pair(io_engine=io_engine, record_layer="kernel")
    reading, writing = os.pipe()
    with client, server, os.fdopen(writing, "wb"):
        os.close(reading)
        client.stream.send(b"all that came")
        with pytest.raises(UsageError, match=r"the pipe took nothing: EPIPE"):
            server.stream.splice_into(writing, 100)
        assert server.stream.recv(100) == b"all that came"
        with pytest.raises(UsageError, match="`pipe` is of type str"):
            server.stream.splice_into("pipe", 100)


@BOTH_VERSIONS
def test_a_pipe_with_little_room_loses_nothing(suite, pipe, pattern):
    """Older kernels lose bytes of a record that they splice into a single page."""
    client, server = session_pair(suite=suite, io_engine="syscall")
    with client, server:
        client.stream.send(pattern(16384))
        reading, writing = pipe
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, mmap.PAGESIZE)
        got = bytearray()
        while len(got) < 16384:
            got += os.read(reading, server.stream.splice_into(writing, mmap.PAGESIZE))
        assert got == pattern(16384)


@BOTH_VERSIONS
def test_only_close_notify_ends_what_is_spliced(kernel_pair, suite, io_engine, pipe):
    reading, writing = pipe
    ends = kernel_pair(suite=suite, io_engine=io_engine)
    # splice(2) says 0 of an empty record, as of every end.
    ends.send(ContentType.APPLICATION_DATA, b"")
    ends.send(ContentType.APPLICATION_DATA, b"behind an empty record")
    moved = ends.stream.splice_into(writing, 100)
    assert os.read(reading, 100)[:moved] == b"behind an empty record"
    ends.send(ContentType.ALERT, b"\x01\x00")
    assert [ends.stream.splice_into(writing, 100), ends.stream.recv()] == [0, b""]


@BOTH_VERSIONS
@pytest.mark.parametrize("part", [b"", b"half a record"], ids=["between records", "in a record"])
def test_an_end_without_close_notify_is_a_truncation_for_a_splice_too(kernel_pair, suite, io_engine, pipe, part):
    ends = kernel_pair(suite=suite, io_engine=io_engine)
    if part:
        ends.pair.sock.sendall(ends.seal(ContentType.APPLICATION_DATA, part)[:-3])
    ends.pair.close_peer()
    for _ in range(2):
        with pytest.raises(TruncatedError):
            ends.stream.splice_into(pipe[1], 100)


@BOTH_VERSIONS
def test_what_a_splice_found_no_room_for_comes_next(kernel_pair, suite, io_engine, pipe):
    reading, writing = pipe
    ends = kernel_pair(suite=suite, io_engine=io_engine)
    os.write(writing, b"in the way")  # so that it goes through here
    ends.send(ContentType.APPLICATION_DATA, b"the first part, and the rest")
    ends.send(ContentType.APPLICATION_DATA, b"what follows")
    assert ends.stream.splice_into(writing, 14) == 14
    assert os.read(reading, 100) == b"in the waythe first part"
    assert ends.stream.recv(14) == b", and the rest"
    assert ends.stream.recv(12) == b"what follows"


def test_after_a_fatal_alert_no_piece_comes_any_more(kernel_pair, io_engine):
    ends = kernel_pair(suite=TLS13, io_engine=io_engine)
    kinds = [(ContentType.APPLICATION_DATA, b"good"), (ContentType.ALERT, b"\x02\x28")]
    kinds += [(ContentType.APPLICATION_DATA, b"after the alert")] * 2
    ends.pair.sock.sendall(b"".join(ends.seal(kind, data) for kind, data in kinds))
    got = []
    for call in (lambda: got.extend(ends.stream.pieces()), ends.stream.recv, ends.stream.recv):
        with pytest.raises(AlertError, match="handshake_failure"):
            call()


@BOTH_VERSIONS
def test_more_holds_a_record_back_until_it_is_full_or_done(kernel_pair, suite, io_engine):
    ends = kernel_pair(suite=suite, io_engine=io_engine)
    ends.stream.send(b"one ", more=True)
    ends.stream.send(b"record", more=True)
    ends.stream.send(b" only")
    ends.stream.send(b"another")
    assert [data for _, data in on_the_wire(ends, 2)] == [b"one record only", b"another"]


@BOTH_VERSIONS
def test_what_is_held_back_is_not_lost_at_a_close(ends):
    client, server = ends
    client.send(b"held back", more=True)
    client.close()
    assert [server.recv(), server.recv()] == [b"held back", b""]


@LAYERS
def test_more_and_many_mean_the_same_bytes_in_every_layer(layer, io_engine, tcp_peer):
    if layer == "plain":
        peer = tcp_peer(lambda sock: (sock.settimeout(None), sock.recv(22, socket.MSG_WAITALL))[1])
        with open_session("localhost", peer.port, record_layer="plain", io_engine=io_engine) as session:
            send_oddly(session.stream)
        assert peer.join() == b"held, then sent, 1 2 3"
        return
    client, server = session_pair(record_layer=layer, io_engine=io_engine)
    with client, server:
        send_oddly(client.stream)
        got = bytearray(22)
        server.stream.recv_exactly_into(got)
        assert got == b"held, then sent, 1 2 3"


def send_oddly(stream):
    stream.send(b"held, ", more=True)
    stream.send(b"then sent, ")
    stream.send_many([b"1 ", bytearray(b"2 "), memoryview(b"3")])


@BOTH_VERSIONS
def test_a_batch_is_a_record_a_buffer_in_order(kernel_pair, suite, io_engine):
    ends = kernel_pair(suite=suite, io_engine=io_engine)
    messages = [b"message %03d" % number for number in range(100)]
    ends.stream.send_many(messages)
    assert on_the_wire(ends, 100) == [(23, message) for message in messages]


@BOTH_VERSIONS
def test_a_batch_larger_than_every_buffer_arrives_in_order(ends, pattern):
    import threading

    client, server = ends
    parts = [pattern(16384)[number:] for number in range(300)]
    sending = threading.Thread(target=client.send_many, args=(parts,))
    sending.start()
    got = bytearray(sum(map(len, parts)))
    server.recv_exactly_into(got)
    sending.join(60)
    assert got == b"".join(parts)


def test_pieces_come_in_order_with_their_types(kernel_pair, io_engine):
    ends = kernel_pair(suite=TLS13, io_engine=io_engine)  # two tickets wait
    ends.send(ContentType.APPLICATION_DATA, b"a")
    ends.send(ContentType.APPLICATION_DATA, b"b")
    ends.send(ContentType.ALERT, b"\x01\x5a")  # user_canceled
    ends.send(ContentType.APPLICATION_DATA, b"c")
    pieces = ends.stream.pieces()
    assert [next(pieces)[0] for _ in range(2)] == [22, 22]
    assert next(pieces) == (23, b"ab")  # the kernel joins what is there, within one type
    assert next(pieces) == (21, b"\x01\x5a")
    pieces.close()  # what came for it in the meantime is not lost
    assert ends.stream.recv() == b"c"
    ends.send(ContentType.APPLICATION_DATA, b"d")
    ends.send(ContentType.ALERT, b"\x01\x00")
    assert list(ends.stream.pieces()) == [(23, b"d"), (21, b"\x01\x00")]
    assert ends.stream.recv() == b""
    assert list(ends.stream.pieces()) == []
    assert len(ends.stream.tickets) == 2


def test_a_thousand_empty_records_are_no_end_and_no_harm(kernel_pair):
    """Some kernels say 0 for each of them, as they do at the end of the connection."""
    ends = kernel_pair(suite=TLS12)
    ends.pair.sock.sendall(b"".join(ends.seal(ContentType.APPLICATION_DATA, b"") for _ in range(1200)))
    ends.send(ContentType.APPLICATION_DATA, b"at last")
    assert ends.stream.recv() == b"at last"


@BOTH_VERSIONS
def test_a_large_send_fills_its_records(kernel_pair, suite, io_engine, pattern):
    ends = kernel_pair(suite=suite, io_engine=io_engine)
    ends.stream.send(pattern(40_000))
    assert [len(data) for _, data in on_the_wire(ends, 3)] == [16384, 16384, 7232]


def test_key_updates_do_not_disturb_an_iteration(io_engine):
    client, server = session_pair(suite=TLS13, io_engine=io_engine)
    with client, server:
        if not capabilities.rekey():  # test_keyupdate has what is right there
            return
        pieces = server.stream.pieces()
        for number in range(3):
            client.stream.send(b"data %d" % number)
            assert next(pieces) == (23, b"data %d" % number)
            client.stream.update_keys()
            assert next(pieces)[0] == ContentType.HANDSHAKE
        client.stream.send(b"last")
        assert next(pieces) == (23, b"last")
        assert server.stream.generations[RX] == 3


def test_a_truncation_ends_an_iteration_with_an_error(kernel_pair, io_engine):
    ends = kernel_pair(suite=TLS12, io_engine=io_engine)
    ends.send(ContentType.APPLICATION_DATA, b"a")
    ends.pair.close_peer()
    pieces = ends.stream.pieces()
    assert next(pieces) == (23, b"a")
    with pytest.raises(TruncatedError):
        next(pieces)
    with pytest.raises(TruncatedError):
        ends.stream.recv()


def test_records_and_control_records_are_the_kernels_alone():
    client, server = session_pair(record_layer="userspace")
    with client, server:
        with pytest.raises(UsageError, match="receiving side is userspace"):
            next(client.stream.pieces())
        with pytest.raises(UsageError, match="sending side is userspace"):
            client.stream.send_record(b"\x01\x5a", ContentType.ALERT)


@BOTH_VERSIONS
def test_a_control_record_is_sent_with_its_type(ends):
    client, server = ends
    client.send_record(b"\x01\x5a", ContentType.ALERT)  # user_canceled, harmless
    client.send(b"data")
    pieces = server.pieces()
    assert [next(pieces), next(pieces)] == [(21, b"\x01\x5a"), (23, b"data")]


@BOTH_VERSIONS
def test_the_size_of_records_is_limited_where_the_kernel_can(kernel_pair, suite, pattern):
    ends = kernel_pair(suite=suite)
    if not capabilities.max_payload():
        with pytest.raises(MachineError, match=r"ENOPROTOOPT.*each send ends its record"):
            ends.stream.limit_records(1000)
        ends.stream.send(pattern(5000))
        assert len(on_the_wire(ends, 1)[0][1]) == 5000
        return
    ends.stream.limit_records(1000)
    ends.stream.send(pattern(5000))
    sizes = [len(ends.pair.read_record()) for _ in range(5)]
    assert max(sizes) <= 1000 + 5 + 8 + 17
    assert sum(sizes) >= 5000
    with pytest.raises(UsageError, match="64 to 16384"):
        ends.stream.limit_records(1)


@pytest.mark.parametrize("suite", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_keys_and_first_record_go_in_with_one_submission(tls_pair, suite):
    pair = tls_pair(suite=suite, io_engine="uring")
    keys = export(pair.handshake)
    answer = install_linked(pair.connection, keys, first=b"first of all")
    if not capabilities.uring_setsockopt():
        assert isinstance(answer, Refused)
        assert answer.reason is Why.NO_RING_SETSOCKOPT
        assert not keys.tx.key.wiped
        return
    assert answer
    assert keys.tx.key.wiped
    assert answer.sequence[TX] == (1 if suite is TLS13 else 2)  # the first record counts
    assert pair.tls.recv(100) == b"first of all"
    stream = Stream(pair.connection, pair.handshake, answer.directions)
    pair.tls.sendall(b"and back")
    assert stream.recv() == b"and back"


def test_linked_installing_refuses_what_cannot_be(tls_pair):
    pair = tls_pair(suite=TLS13, io_engine="syscall")
    with pytest.raises(UsageError, match="I/O engine is syscall"):
        install_linked(pair.connection, export(pair.handshake))
    pair = tls_pair(suite=TLS13, io_engine="uring")
    with pytest.raises(UsageError, match="needs TX"):
        install_linked(pair.connection, export(pair.handshake), (RX,), first=b"x")


def test_a_chain_that_breaks_says_where(tls_pair):
    if not capabilities.uring_setsockopt():
        return  # test_keys_and_first_record_go_in_with_one_submission has what is right there
    pair = tls_pair(suite=TLS13, io_engine="uring")
    ktls.attach(pair.connection.socket)
    broken = install_linked(pair.connection, export(pair.handshake), first=b"never sent")
    assert isinstance(broken, Refused)
    assert broken.step == "setsockopt(TCP_ULP)"
    assert "EEXIST" in repr(broken)


def test_keys_are_installed_once(tls_pair):
    """A kernel that takes new keys would take the same again, and use each nonce twice."""
    pair = tls_pair(suite=TLS13)
    keys = export(pair.handshake)
    assert install(pair.connection, keys, [RX], wipe=False)
    with pytest.raises(UsageError, match="install of RX was already called on this connection"):
        install(pair.connection, keys, wipe=False)
    assert install(pair.connection, keys, Direction.TX)
    with pytest.raises(UsageError, match="install of TX was already called"):
        install(pair.connection, keys, (Direction.TX,))


def test_sending_without_copies_is_refused_and_the_stream_goes_on(kernel_pair):
    """A failed zero-copy send still gives two completions: the result, and the notification that its buffer is free."""
    ends = kernel_pair(suite=TLS12, io_engine="uring")
    with Ring() as ring:
        ring.start(Operation.send_zc(ends.pair.connection.socket.fileno(), b"no copies, please"))
        done = []
        while ring.in_flight:
            done += ring.reap(1, timeout=10)
        assert [os.strerror(-done[0].result), done[-1].notification] == ["Operation not supported", True]
        assert ring.in_flight == 0
    ends.stream.send(b"with copies")
    assert ends.pair.tls.recv(100) == b"with copies"


@pytest.mark.parametrize("setup", [{"sqpoll": True}, {"defer_taskrun": True}], ids=lambda setup: next(iter(setup)))
def test_a_session_runs_on_a_ring_of_ones_own(tls_echo, certificates, setup, pattern):
    port = tls_echo(suite=TLS13)
    with Ring(**setup) as ring, open_session("localhost", port, config=certificates.config(), ring=ring) as session:
        assert (session.record_layer, session.io_engine) == ("kernel", "uring")
        session.stream.send_many([pattern(1000)] * 3)
        got = bytearray(3000)
        session.stream.recv_exactly_into(got)
        assert got == pattern(1000) * 3


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@BOTH_VERSIONS
def test_sending_into_nothing_is_noticed(suite, io_engine, kernel_pair):
    """The kernel says "sent" on a connection that was reset; only TCP knows better."""
    ends = kernel_pair(suite=suite, io_engine=io_engine)
    reset(ends.pair.sock)
    time.sleep(0.1)
    with pytest.raises(StreamError, match=r"reset|EPIPE|ECONNRESET"):  # noqa: PT012
        for _ in range(200):
            ends.stream.send(b"into nothing")
    with pytest.raises(StreamClosedError):
        ends.stream.send(b"x")
    ends.stream.close()


@BOTH_VERSIONS
def test_a_close_tells_of_what_went_into_nothing(kernel_pair, suite, io_engine):
    ends = kernel_pair(suite=suite, io_engine=io_engine)
    ends.stream.send(b"on its way")
    reset(ends.pair.sock)
    time.sleep(0.1)
    with pytest.raises(StreamError, match="the last data sent may not have arrived"):
        ends.stream.close()
    ends.stream.close()
    assert ends.pair.connection.socket.fileno() == -1


def test_a_file_goes_out_by_splice_through_the_ring(kernel_pair, tmp_path, pipe):
    """io_uring has no sendfile; two linked splices through a pipe are the same."""
    (tmp_path / "file").write_bytes(b"from the page cache")
    ends = kernel_pair(suite=TLS13, io_engine="uring")
    reading, writing = pipe
    with (tmp_path / "file").open("rb") as file, Ring() as ring:
        into = Operation.splice(file.fileno(), writing, 19, offset_in=0, linked=True)
        out = Operation.splice(reading, ends.pair.connection.socket.fileno(), 19)
        assert transfer(ring, [into, out], timeout=10) == [19, 19]
    assert ends.pair.tls.recv(100) == b"from the page cache"
