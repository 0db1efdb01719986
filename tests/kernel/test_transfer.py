"""With the keys in the kernel, an OpenSSL server at the other end notices nothing, and every byte arrives."""

from __future__ import annotations

import hashlib

import pytest
from OpenSSL import SSL

from ktlslab.errors import PeerTimeoutError
from ktlslab.linux import ktls
from ktlslab.linux.counters import Counters
from ktlslab.linux.ktls import Direction
from ktlslab.session import DIRECTIONS, open_session, session_pair
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite, Version

SIZES = (1, 16384, 50_000)
MEBIBYTE = 1 << 20
TLS13 = Suite.TLS_AES_128_GCM_SHA256
TLS12 = Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256


@pytest.mark.parametrize("record_layer", ["kernel", "kernel-tx", "kernel-rx"])
def test_bytes_come_back_and_the_kernel_says_that_it_did_the_work(  # noqa: PLR0917 - fixtures
    tls_echo,
    certificates,
    pattern,
    suite,
    record_layer,
    io_engine,
):
    port = tls_echo(suite=suite)
    config = certificates.config(suites=(suite,))
    directions = DIRECTIONS[record_layer]
    with open_session("localhost", port, config=config, record_layer=record_layer, io_engine=io_engine) as session:
        assert (session.record_layer, session.io_engine, session.why) == (record_layer, io_engine, ())
        assert session.suite is suite
        assert session.counters["TlsTxSw"] == (Direction.TX in directions)
        assert session.counters["TlsRxSw"] == (Direction.RX in directions)

        def numbers():
            sock, kind = session.stream.connection.socket, suite.cipher.kernel_type
            return {direction: ktls.sequence_number(sock, direction, kind) for direction in directions}

        before = numbers()
        for size in SIZES:
            sent, back = pattern(size), bytearray(size)
            session.stream.send(sent)
            session.stream.recv_exactly_into(back)
            assert back == sent
        moved = {direction: number - before[direction] for direction, number in numbers().items()}
        records = sum(-(-size // 16384) for size in SIZES)
        assert moved.get(Direction.TX, records) == records  # the kernel fills its records
        assert moved.get(Direction.RX, records) >= records


def digest(tls, _sock):
    seen = hashlib.sha256()
    while True:
        try:
            seen.update(tls.recv(1 << 16))
        except SSL.ZeroReturnError:
            return seen.digest()


@pytest.mark.parametrize("suite_of", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_an_upload_of_a_mebibyte_arrives_whole_by_send_and_by_sendfile(  # noqa: PLR0917 - fixtures
    tls_peer, certificates, pattern, tmp_path, io_engine, suite_of
):
    content = pattern(MEBIBYTE)
    (tmp_path / "file").write_bytes(content)
    peer = tls_peer(digest, suite=suite_of, connections=2)
    for by_file in (False, True):
        with open_session("localhost", peer.port, config=certificates.config(), io_engine=io_engine) as session:
            assert session.record_layer == "kernel"
            if by_file:
                with (tmp_path / "file").open("rb") as file:
                    assert session.stream.sendfile(file) == MEBIBYTE
            else:
                session.stream.send(content)
    peer.join()
    assert peer.results == [hashlib.sha256(content).digest()] * 2


def test_a_download_of_a_mebibyte_arrives_whole_and_ends_cleanly(tls_peer, certificates, pattern, io_engine):
    content = pattern(MEBIBYTE)
    peer = tls_peer(lambda tls, _sock: (tls.sendall(content), tls.shutdown()), suite=TLS13)
    got = bytearray()
    with open_session("localhost", peer.port, config=certificates.config(), io_engine=io_engine) as session:
        assert session.record_layer == "kernel"
        while part := session.stream.recv():
            got += part
    assert got == content


def test_part_of_a_file_is_sent_from_its_offset(kernel_pair, tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    ends = kernel_pair(suite=TLS13)
    with (tmp_path / "file").open("rb") as file:
        assert ends.stream.sendfile(file, offset=3, count=4) == 4
        assert ends.pair.tls.recv(100) == b"3456"
        assert ends.stream.sendfile(file, offset=8) == 2
    assert ends.pair.tls.recv(100) == b"89"


def test_the_kernels_records_open_with_the_exported_keys_and_ours_open_in_the_kernel(kernel_pair, suite, pattern):
    ends = kernel_pair(suite=suite)
    for size in (5, 16384):
        ends.stream.send(pattern(size))
        record = ends.pair.read_record()
        assert ends.open(record) == (ContentType.APPLICATION_DATA, pattern(size))
        ends.send(ContentType.APPLICATION_DATA, pattern(size))
        back = bytearray(size)
        ends.stream.recv_exactly_into(back)
        assert back == pattern(size)


def test_what_was_queued_before_the_keys_came_is_delivered(kernel_pair, suite, io_engine):
    ends = kernel_pair(suite=suite, io_engine=io_engine, first=b"already here")
    got = bytearray(12)
    ends.stream.recv_exactly_into(got)
    assert got == b"already here"


def test_session_tickets_are_collected_and_no_one_sees_them_as_data(kernel_pair, io_engine):
    ends = kernel_pair(suite=TLS13, io_engine=io_engine, first=b"data")
    assert ends.stream.recv() == b"data"
    assert [ticket[0] for ticket in ends.stream.tickets] == [4, 4]


def test_a_small_buffer_takes_a_record_in_parts(kernel_pair, io_engine):
    ends = kernel_pair(suite=TLS12, io_engine=io_engine, first=b"abcdef")
    assert [ends.stream.recv(4), ends.stream.recv(4)] == [b"abcd", b"ef"]


def test_a_time_out_is_an_error_after_which_one_may_go_on(kernel_pair, io_engine):
    ends = kernel_pair(suite=TLS12, io_engine=io_engine, timeout=0.5)
    with pytest.raises(PeerTimeoutError, match=r"nothing moved within 0\.5 s"):
        ends.stream.recv()
    ends.pair.tls.sendall(b"late")
    assert ends.stream.recv() == b"late"


def test_each_side_may_be_the_kernels_alone(kernel_pair):
    for directions in ((Direction.TX,), (Direction.RX,)):
        ends = kernel_pair(directions, suite=TLS13)
        ends.stream.send(b"to you")
        assert ends.pair.tls.recv(100) == b"to you"
        ends.pair.tls.sendall(b"to me")
        assert ends.stream.recv() == b"to me"


@pytest.mark.parametrize("record_layer", ["userspace", "kernel", "kernel-tx", "kernel-rx"])
@pytest.mark.parametrize("suite_of", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_many_calls_of_a_kind_outlast_every_look_at_the_keys(record_layer, suite_of, io_engine):
    client, server = session_pair(record_layer=record_layer, io_engine=io_engine, suite=suite_of)
    with client, server:
        for sender, receiver in ((client.stream, server.stream), (server.stream, client.stream)):
            for number in range(700):
                message = number.to_bytes(2, "big")
                sender.send(message)
                assert receiver.recv(100) == message


def test_closing_gives_the_kernels_keys_back(kernel_pair):
    before = Counters.read()
    ends = kernel_pair(suite=TLS12)
    assert (Counters.read() - before)["TlsCurrTxSw"] == 1
    ends.stream.close()
    ends.pair.close_peer()
    assert (Counters.read() - before)["TlsCurrTxSw"] == 0


@pytest.mark.parametrize("version", Version)
def test_openssls_own_server_answers(s_server, certificates, tmp_path, version, pattern):
    (tmp_path / "file.txt").write_bytes(pattern(50_000))
    port = s_server("-HTTP")
    config = certificates.config(versions=(version,))
    with open_session("localhost", port, config=config) as session:
        assert session.record_layer == "kernel"
        session.stream.send(b"GET /file.txt HTTP/1.0\r\n\r\n")
        got = bytearray()
        while not got.endswith(pattern(50_000)):
            got += session.stream.recv()
