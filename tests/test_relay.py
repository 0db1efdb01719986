"""The relay applies the requested fault to the requested record and nothing else, and says so."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import signal
import socket
import subprocess
import sys
import time

import pytest
from OpenSSL import SSL

from ktlslab.errors import (
    AlertError,
    MachineError,
    NotTlsError,
    PeerError,
    PeerTimeoutError,
    StreamError,
    TruncatedError,
    UsageError,
)
from ktlslab.relay import HTTP, Fault, Relay, Report
from ktlslab.relay.fault import FIN, RESET, Way
from ktlslab.session import open_session
from ktlslab.stages import Stream, connect, export, handshake
from ktlslab.tls.records import RecordHeader
from ktlslab.tls.suites import Suite

TLS13 = Suite.TLS_AES_128_GCM_SHA256
TLS12 = Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
VERSIONS = pytest.mark.parametrize("negotiated", [TLS12, TLS13], ids=["1.2", "1.3"])
PARTS = [bytes([n]) * 1000 for n in range(6)]
BEFORE = {TLS12: 0, TLS13: 2}  # records towards the client before data: TLS 1.3's session tickets


# Without I/O


def raw(kind, payload, version=0x0303):
    return RecordHeader(content_type=kind, legacy_version=version, length=len(payload)).encode() + payload


HELLO = raw(22, b"\x02 hello")
CHANGE = raw(20, b"\x01")
FINISHED = raw(22, b"finished, sealed")
DATA = [raw(23, bytes([n]) * 40) for n in range(4)]


def passed(fault, pieces=DATA, *, last=True):
    """Pass a TLS 1.2 handshake and then `pieces`; return the relay's actions towards the client after it."""
    direction = Way("client", fault)
    direction.other = Way("server", fault)
    opening = HELLO + CHANGE + FINISHED
    assert b"".join(direction.feed(opening)) == opening
    done = [action for piece in pieces for action in direction.feed(piece)]
    return done + (list(direction.feed(b"")) if last else []), direction


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (None, [*DATA, FIN]),
        (Fault("drop", record=1), [DATA[0], *DATA[2:], FIN]),
        (Fault("replay", record=1), [DATA[0], DATA[1], *DATA[1:], FIN]),
        (Fault("swap", record=1), [DATA[0], DATA[2] + DATA[1], DATA[3], FIN]),
        (Fault("swap", record=3), [*DATA, FIN]),
        (Fault("delay", record=1, seconds=2), [DATA[0], 2.0, *DATA[1:], FIN]),
        (Fault("stall", record=1), [DATA[0]]),
        (Fault("truncate", record=1, keep=7), [DATA[0], DATA[1][:7], FIN]),
        (Fault("truncate", byte=47), [DATA[0], DATA[1][:2], FIN]),
        (Fault("reset", record=1), [DATA[0], b"", RESET]),
        (Fault("length", record=1, length=258), [DATA[0], b"\x17\x03\x03\x01\x02" + DATA[1][5:], *DATA[2:], FIN]),
        (Fault("insert", record=1, data=b"x"), [DATA[0], b"x", *DATA[1:], FIN]),
        (Fault("replace", record=1, data=HTTP), [DATA[0], HTTP, *DATA[2:], FIN]),
        (Fault("drop", towards="server"), [*DATA, FIN]),
        (Fault("drop", record=9), [*DATA, FIN]),
    ],
    ids=str,
)
@pytest.mark.parametrize("cut", [1, 7, 1000], ids="in pieces of {} bytes".format)
def test_each_fault_strikes_one_record_however_the_bytes_arrive(fault, expected, cut):
    wire = b"".join(DATA)
    done, direction = passed(fault, [wire[at : at + cut] for at in range(0, len(wire), cut)])
    assert done == expected
    assert direction.applied == (done != [*DATA, FIN] or (fault is not None and fault.kind == "swap"))


@pytest.mark.parametrize(
    ("part", "bit", "at", "mask"),
    [("type", 0, 0, 1), ("version", 8, 2, 1), ("length", 15, 4, 128), ("ciphertext", 0, 5, 1), ("tag", 1, 29, 2)],
)
def test_a_flip_changes_one_bit_of_the_part_that_was_named(part, bit, at, mask):
    (_, changed, *_), _ = passed(Fault("flip", record=1, part=part, bit=bit))
    differs = {n: old ^ new for n, (old, new) in enumerate(zip(DATA[1], changed, strict=True)) if old != new}
    assert differs == {at: mask}


def test_a_flip_may_be_put_at_a_byte_of_the_stream():
    (_, changed, *_), _ = passed(Fault("flip", byte=50, bit=3))
    assert changed == DATA[1][:5] + bytes([DATA[1][5] ^ 8]) + DATA[1][6:]


def test_the_handshakes_own_records_can_be_counted_instead():
    direction = Way("client", Fault("drop", record=1, handshake=True))
    direction.other = Way("server", None)
    assert list(direction.feed(HELLO + CHANGE + FINISHED)) == [HELLO, FINISHED]


def test_a_fault_is_a_value_and_a_word_that_is_not_known_is_an_error():
    assert Fault("drop") == Fault("drop", "client", 0)
    with pytest.raises(AttributeError):
        Fault("drop").record = 1
    for wrong in ({"kind": "explode"}, {"kind": "flip", "part": "middle"}, {"kind": "flip", "towards": "moon"}):
        with pytest.raises(UsageError, match="It is one of"):
            Fault(**wrong)


# The process


@pytest.fixture(scope="module")
def relay():
    with Relay(("127.0.0.1", 1)) as relay:
        yield relay


def speak(tls, sock):
    """Send the parts on request, send close_notify, and wait until the client closes, which it may do early."""
    tls.recv(100)
    with contextlib.suppress(SSL.Error, ConnectionError):
        for part in PARTS:
            tls.sendall(part)
        tls.shutdown()
        while sock.recv(1 << 16):
            pass


@pytest.fixture
def through(relay, tls_peer, certificates):
    """through(fault, suite, engine, ...) -> (bytes received, error or None); the fault must have struck."""

    def run(fault, suite=TLS13, io_engine="syscall"):
        relay.use(fault, ("127.0.0.1", tls_peer(speak, suite=suite).port))
        got = bytearray()
        with open_session(
            *relay.address,
            config=certificates.config(),
            record_layer="userspace",
            io_engine=io_engine,
            timeout=1.0,
        ) as session:
            session.stream.send(b"go")
            try:
                while part := session.stream.recv():
                    got += part
            except PeerError as error:
                return bytes(got), error
            finally:
                assert relay.report().applied == (fault is not None)
        return bytes(got), None

    return run


@VERSIONS
def test_without_a_fault_all_passes(through, relay, negotiated, io_engine):
    assert through(None, negotiated, io_engine) == (b"".join(PARTS), None)
    report = relay.report()
    assert (report.connections, report.to_client) == (1, BEFORE[negotiated] + len(PARTS) + 1)  # and close_notify
    assert report.to_server >= 1
    assert not report.applied


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("flip", part="tag"), StreamError),
        (Fault("flip", part="ciphertext", bit=99), StreamError),
        (Fault("drop"), StreamError),
        (Fault("swap"), StreamError),
        (Fault("length", length=20000), StreamError),
        (Fault("truncate", keep=9), TruncatedError),
        (Fault("truncate"), TruncatedError),
        (Fault("stall"), PeerTimeoutError),
        (Fault("replace", data=HTTP), StreamError),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
@VERSIONS
def test_a_record_that_is_harmed_is_the_first_not_to_arrive(through, fault, expected, negotiated, io_engine):
    fault = dataclasses.replace(fault, record=BEFORE[negotiated] + 2)
    got, error = through(fault, negotiated, io_engine)
    assert type(error) is expected
    assert got == b"".join(PARTS[:2])


@VERSIONS
def test_a_delay_is_only_a_delay(through, negotiated):
    started = time.monotonic()
    assert through(Fault("delay", record=3, seconds=0.4), negotiated) == (b"".join(PARTS), None)
    assert time.monotonic() - started > 0.4


def test_a_reset_reaches_both_ends(relay, tls_peer, certificates):
    def noticing(tls, _sock):
        tls.recv(100)
        tls.sendall(b"never comes")
        with pytest.raises(SSL.SysCallError) as caught:
            tls.recv(100)
        return caught.value.args[0]

    peer = tls_peer(noticing, suite=TLS12)
    relay.use(Fault("reset"), ("127.0.0.1", peer.port))
    with open_session(*relay.address, config=certificates.config(), record_layer="userspace") as session:
        session.stream.send(b"go")
        with pytest.raises(StreamError, match="ECONNRESET"):
            session.stream.recv()
        assert peer.join() == errno.ECONNRESET


@VERSIONS
def test_what_the_client_sends_can_be_harmed_and_the_server_says_so(relay, tls_peer, certificates, negotiated):
    def listening(tls, sock):
        got = bytearray()
        with pytest.raises(SSL.Error):  # noqa: PT012 - whichever read it is
            while True:
                got += tls.recv(1 << 16)
        while sock.recv(1 << 16):
            pass
        return bytes(got)

    peer = tls_peer(listening, suite=negotiated)
    relay.use(Fault("flip", towards="server", record=2, part="tag"), ("127.0.0.1", peer.port))
    with open_session(*relay.address, config=certificates.config(), record_layer="userspace") as session:
        for part in PARTS[:3]:
            session.stream.send(part)
        with pytest.raises((AlertError, StreamError), match=r"bad.record.mac"):
            session.stream.recv()
        assert relay.report().applied
    assert peer.join() == b"".join(PARTS[:2])


def test_http_in_place_of_the_handshake_is_no_tls(relay, tcp_peer, certificates):
    def answering(sock):
        sock.sendall(HELLO)
        with contextlib.suppress(ConnectionError):  # the client gave up
            while sock.recv(1 << 16):
                pass

    peer = tcp_peer(answering)
    relay.use(Fault("replace", handshake=True, data=HTTP), ("127.0.0.1", peer.port))
    with pytest.raises(NotTlsError, match="HTTP"):
        open_session(*relay.address, config=certificates.config(), record_layer="userspace")
    assert relay.report().applied


def test_padding_is_delivered_right(relay, tls_peer, certificates):
    relay.use(Fault("pad", record=3, padding=500), ("127.0.0.1", tls_peer(speak, suite=TLS13).port))
    with connect(*relay.address, io_engine="syscall") as connection:
        finished = handshake(connection, certificates.config())
        keys = export(finished)
        relay.give_keys(keys.rx)
        got = bytearray()
        with Stream(connection, finished) as stream:
            stream.send(b"go")
            while part := stream.recv():
                got += part
    assert got == b"".join(PARTS)
    assert relay.report().applied


def test_bytes_that_are_no_tls_pass_and_can_be_harmed_at_a_byte(relay, tcp_peer):
    for fault, expected in (
        (None, b"in clear"),
        (Fault("flip", byte=3), b"in blear"),
        (Fault("truncate", byte=2), b"in"),
    ):
        peer = tcp_peer(lambda sock: (sock.sendall(b"in clear"), sock.recv(1)))
        relay.use(fault, ("127.0.0.1", peer.port))
        with socket.create_connection(relay.address, timeout=10) as client:
            got = bytearray()
            while len(got) < 8 and (part := client.recv(100)):
                got += part
        assert got == expected


def test_much_passes_both_ways_at_once(relay, tcp_peer):
    much = bytes(range(256)) * (1 << 14)

    def swallow(sock):
        sock.sendall(much)
        got = bytearray()
        while part := sock.recv(1 << 16):
            got += part
        return bytes(got)

    peer = tcp_peer(swallow)
    relay.use(None, ("127.0.0.1", peer.port))
    with socket.create_connection(relay.address, timeout=30) as client:
        client.sendall(much)
        client.shutdown(socket.SHUT_WR)
        got = bytearray()
        while part := client.recv(1 << 16):
            got += part
    assert got == much
    assert peer.join() == much


def test_the_relay_ends_with_its_parent_with_its_time_and_when_it_is_closed():
    code = """if True:
        import os
        from ktlslab.relay import Relay
        relay = Relay(('127.0.0.1', 1))
        print(relay._process.pid, flush=True)  # the end that follows flushes nothing
        os._exit(0)
    """
    orphan = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    relay = Relay(("127.0.0.1", 1))
    assert repr(relay) == f"Relay(127.0.0.1:{relay.port} to 127.0.0.1:1, None)"
    assert relay.report() == Report(connections=0, to_client=0, to_server=0, applied=False)
    relay.close()
    relay.close()
    assert relay._process.returncode == 0
    assert "closed" in repr(relay)
    with pytest.raises(MachineError, match="asking the relay"):
        relay.report()
    with Relay(("127.0.0.1", 1), seconds=1) as brief:
        assert brief._process.wait(10) == -signal.SIGALRM
        with pytest.raises(MachineError):
            brief.use(None)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and alive(orphan):
        time.sleep(0.01)
    assert not alive(orphan)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
