"""What a kTLS client makes of a bad network: each fault has one typed error, in time, and no unproven byte arrives.

A relay (ktlslab.relay) between the client and a userspace OpenSSL server does one harm to one record. What is expected
stands beside each fault; what was seen goes into the report, from which tests/in_guests.py prints a table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import select
import socket
import ssl
import time
from dataclasses import dataclass

import pytest
from kinds import USER_MODE
from OpenSSL import SSL

from ktlslab.errors import KtlsLabError, PeerTimeoutError, StreamClosedError
from ktlslab.linux.counters import Counters
from ktlslab.relay import HTTP, Fault, Relay
from ktlslab.session import open_session
from ktlslab.stages import Stream, connect, export, handshake, install
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite, Version

SUITES = {
    Version.TLS12: Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    Version.TLS13: Suite.TLS_AES_128_GCM_SHA256,
}
WIRE = {Version.TLS12: ssl.TLSVersion.TLSv1_2, Version.TLS13: ssl.TLSVersion.TLSv1_3}
TICKETS = {Version.TLS12: 0, Version.TLS13: 2}  # records towards the client that come before the first part
PARTS = tuple(bytes([n]) * 1000 for n in range(1, 7))  # a record each, then close_notify
ALL = len(PARTS)
STRUCK = 2  # the part that a fault strikes, where it does not say otherwise
TIMEOUT = 15.0  # of a session, in seconds
BRIEF = 0.5 if USER_MODE else 1.5  # of a session that meets nothing but silence
PAUSE = 1.0 if USER_MODE else 1.5  # of one that meets a delay
SLACK = 5.0  # an emulated machine is slow

DELIVERED = "delivered"
DAMAGED = "StreamError EBADMSG"
HEADER = "StreamError EINVAL"
TOO_LARGE = "StreamError EMSGSIZE"
TRUNCATED = "TruncatedError"
RESET = "StreamError ECONNRESET"
SILENCE = "PeerTimeoutError"


@dataclass(frozen=True)
class Case:
    """A fault and what comes of it. `decrypts`: a decryption is tried and fails, which the kernel counts."""

    name: str
    fault: Fault
    seen: str
    parts: int = STRUCK  # how many parts are delivered before
    decrypts: bool = False
    tls13: str = ""  # what is seen with TLS 1.3, where that differs
    ends: bool = True  # the server says close_notify and FIN after its parts


def damaged(name, fault, parts=STRUCK):
    return Case(name, fault, DAMAGED, parts, decrypts=True)


def raw(kind, payload):
    return bytes([kind, 3, 3, 0, len(payload)]) + payload


TOWARDS_CLIENT = [
    # TLS 1.3 does not authenticate the outer type, which says nothing there, and the kernel does not look at it.
    Case("type changed", Fault("flip", part="type"), DAMAGED, decrypts=True, tls13=DELIVERED),
    Case("type unknown", Fault("flip", part="type", bit=6), DAMAGED, decrypts=True, tls13=DELIVERED),
    Case("version's major byte changed", Fault("flip", part="version"), HEADER),
    Case("version's minor byte changed", Fault("flip", part="version", bit=8), HEADER),
    damaged("length one off", Fault("flip", part="length", bit=8)),
    damaged("first byte of the payload changed", Fault("flip")),
    damaged("ciphertext changed", Fault("flip", bit=800)),
    damaged("tag changed", Fault("flip", part="tag", bit=127)),
    damaged("record left out", Fault("drop")),
    damaged("last data record left out", Fault("drop", record=ALL - 1), ALL - 1),
    Case("close_notify left out", Fault("drop", record=ALL), TRUNCATED, ALL),
    damaged("record replayed", Fault("replay"), STRUCK + 1),
    damaged("records in another order", Fault("swap")),
    Case("delay within the time-out", Fault("delay", seconds=0.2), DELIVERED),
    Case("no more records, no end", Fault("stall"), SILENCE),
    Case("FIN between records", Fault("truncate"), TRUNCATED),
    Case("FIN in a header", Fault("truncate", keep=3), TRUNCATED),
    Case("FIN after a header", Fault("truncate", keep=5), TRUNCATED),
    Case("FIN in a record", Fault("truncate", keep=500), TRUNCATED),
    Case("FIN at a byte of the stream", Fault("truncate", byte=3200), TRUNCATED, parts=-1),
    Case("RST between records", Fault("reset"), RESET, parts=-1),
    Case("RST in a record", Fault("reset", keep=500), RESET, parts=-1),
    Case("length zero", Fault("length", length=0), DAMAGED),
    Case("length less than a tag", Fault("length", length=15), DAMAGED),
    Case("length over the limit", Fault("length", length=18433), TOO_LARGE),
    damaged("length into the next record", Fault("length", length=1500)),
    Case("length beyond what follows, FIN", Fault("length", record=ALL - 1, length=5000), TRUNCATED, ALL - 1),
    Case(
        "length beyond what follows, silence",
        Fault("length", record=ALL - 1, length=5000),
        SILENCE,
        ALL - 1,
        ends=False,
    ),
    Case("HTTP in place of a record", Fault("replace", data=HTTP), TOO_LARGE),
    Case("garbage in place of a record", Fault("replace", data=bytes(range(200, 250))), TOO_LARGE),
    Case("zeros before a record", Fault("insert", data=bytes(50)), DAMAGED),
    damaged("forged record of unknown type", Fault("insert", data=raw(99, bytes(40)))),
    damaged("forged data", Fault("insert", data=raw(23, bytes(40)))),
    Case("forged close_notify in clear", Fault("insert", data=raw(21, b"\x01\x00")), DAMAGED),
    Case("forged fatal alert in clear", Fault("insert", data=raw(21, b"\x02\x28")), DAMAGED),
    Case("forged ChangeCipherSpec", Fault("insert", data=raw(20, b"\x01")), DAMAGED),
    Case("empty record without a tag", Fault("insert", data=raw(23, b"")), DAMAGED),
]

BAD_MAC = "AlertError bad_record_mac"
CUT_OFF = "AlertError decode_error"  # so OpenSSL calls an end without close_notify
TOWARDS_SERVER = [
    Case("type changed", Fault("flip", part="type"), BAD_MAC, tls13="AlertError unexpected_message"),
    Case("ciphertext changed", Fault("flip", bit=800), BAD_MAC),
    Case("tag changed", Fault("flip", part="tag"), BAD_MAC),
    Case("record left out", Fault("drop"), BAD_MAC),
    Case("record replayed", Fault("replay"), BAD_MAC, STRUCK + 1),
    Case("records in another order", Fault("swap"), BAD_MAC),
    Case("length zero", Fault("length", length=0), BAD_MAC),
    Case("length over the limit", Fault("length", length=18433), "AlertError record_overflow"),
    Case(
        "HTTP in place of a record",
        Fault("replace", data=HTTP),
        "AlertError protocol_version",
        tls13="AlertError unexpected_message",
    ),
    Case("FIN between records", Fault("truncate"), CUT_OFF),
    Case("FIN in a record", Fault("truncate", keep=500), CUT_OFF),
    Case("RST in a record", Fault("reset", keep=500), RESET, parts=-1),
    Case("no more records, no end", Fault("stall"), SILENCE),
]

IN_HANDSHAKE = [
    Case("HTTP in place of ServerHello", Fault("replace", data=HTTP), "NotTlsError"),
    Case("ServerHello changed", Fault("flip", bit=400), "HandshakeError"),
    Case("ServerHello too long", Fault("length", length=18433), "NotTlsError"),
    Case("FIN after ServerHello", Fault("truncate", record=1), "HandshakeError"),
    Case("FIN in ServerHello", Fault("truncate", keep=20), "HandshakeError"),
    Case("RST after ServerHello", Fault("reset", record=1), "HandshakeError ECONNRESET"),
    Case("silence after ServerHello", Fault("stall", record=1), SILENCE),
    Case("flight of the server changed", Fault("flip", record=2, bit=800), "HandshakeError"),
]


def each(cases):
    """Run a test with each case in each version."""
    return pytest.mark.parametrize(
        ("case", "version"),
        [(case, version) for case in cases for version in Version],
        ids=[f"{case.name}-{version.label}" for case in cases for version in Version],
    )


@pytest.fixture(scope="module")
def relay():
    with Relay(("127.0.0.1", 1)) as relay:
        yield relay


@pytest.fixture
def opened(relay, tls_peer, certificates):
    """opened(fault, version, script, ...) -> (session, peer), the relay between them."""

    def start(fault, version, script, **options):
        peer = tls_peer(script, suite=SUITES[version])
        relay.use(fault, ("127.0.0.1", peer.port))
        session = open_session(*relay.address, config=certificates.config(), **{"timeout": TIMEOUT} | options)
        assert session.record_layer == "kernel"
        return session, peer

    return start


def speaker(*, ends):
    """Make a server that sends the parts once asked, and stays until the client is gone, which it may be early."""

    def speak(tls, sock):
        with contextlib.suppress(SSL.Error, OSError):
            tls.recv(100)
            for part in PARTS:
                tls.sendall(part)
            if ends:
                tls.shutdown()
                sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass

    return speak


def listen(tls, sock):
    """Take data until something is wrong, which it says by OpenSSL's alert; returns (data, what was wrong)."""
    got, wrong = bytearray(), None
    try:
        while True:
            got += tls.recv(1 << 16)
    except SSL.Error as error:
        wrong = error
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass
    return bytes(got), wrong


def drain(stream, got):
    """Receive to the end or an error, which is returned; fails where a wait outlasts its bound."""
    bound = stream.connection.engine.timeout + SLACK
    while True:
        started = time.monotonic()
        try:
            part = stream.recv()
        except KtlsLabError as error:
            return error
        finally:
            assert time.monotonic() - started < bound
        if not part:
            return None
        got += part


def name_of(error):
    """Say what was seen in the table's words: the error's type, and its alert or errno."""
    if error is None:
        return DELIVERED
    words = [type(error).__name__, getattr(error, "alert", "")]
    if not isinstance(error, PeerTimeoutError):
        words += re.findall(r"\bE[A-Z]{4,}\b", error.answered)
    return " ".join(filter(None, words))


def patience(case):
    """Seconds that a session waits: less where all that is to come is silence."""
    return BRIEF if case.seen == SILENCE else TIMEOUT


def expected_of(case, version):
    return (case.tls13 if version is Version.TLS13 else "") or case.seen


@each(TOWARDS_CLIENT)
def test_towards_the_client(opened, relay, record_property, case, version, io_engine):  # noqa: PLR0917 - fixtures
    fault = case.fault
    if fault.byte is None:
        place = fault.record or STRUCK
        fault = dataclasses.replace(fault, record=place + TICKETS[version])
    before = Counters.read()
    got = bytearray()
    session, _ = opened(fault, version, speaker(ends=case.ends), io_engine=io_engine, timeout=patience(case))
    with session:
        session.stream.send(b"go")
        error = drain(session.stream, got)
        seen = name_of(error)
        record_property("fault", case.name)
        record_property("seen", f"{version.label}|{seen}")
        assert relay.report().applied
        assert seen == expected_of(case, version)
        assert b"".join(PARTS).startswith(got)
        if case.parts >= 0:
            assert len(got) == 1000 * (ALL if seen == DELIVERED else case.parts)
        if seen in {DELIVERED, SILENCE}:
            session.stream.send(b"the way to the server is whole")
        else:
            again = drain(session.stream, got)
            assert (type(again), str(again)) == (type(error), str(error))
            with pytest.raises(StreamClosedError):
                session.stream.send(b"x")
    changed = Counters.read() - before
    assert (changed["TlsDecryptError"] > 0) == (case.decrypts and seen == DAMAGED)


@pytest.mark.parametrize("io_engine", ["uring"])  # what the server finds does not depend on it
@each(TOWARDS_SERVER)
def test_towards_the_server(opened, relay, record_property, case, version, io_engine):  # noqa: PLR0917 - fixtures
    fault = dataclasses.replace(case.fault, towards="server", record=STRUCK)
    session, peer = opened(fault, version, listen, io_engine=io_engine, timeout=patience(case))
    got = bytearray()
    with session:
        try:
            for part in PARTS:
                session.stream.send(part)
            error = drain(session.stream, got)
        except KtlsLabError as early:
            error = early
        seen = name_of(error)
        record_property("fault", f"{case.name}, towards the server")
        record_property("seen", f"{version.label}|{seen}")
        assert relay.report().applied
        assert (seen, got) == (expected_of(case, version), b"")
        if seen != SILENCE:
            again = drain(session.stream, got)
            assert (type(again), str(again)) == (type(error), str(error))
            with pytest.raises(StreamClosedError):
                session.stream.send(b"x")
    relay.use(None)  # lets go of what it stalls
    received, wrong = peer.join()
    assert b"".join(PARTS).startswith(received)
    assert wrong is not None
    if case.parts >= 0:
        assert len(received) == 1000 * case.parts


@pytest.fixture
def answering(tcp_peer, certificates):
    """answering(version) -> address of a server whose handshake may fail."""

    def start(version):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.server("good"))
        context.maximum_version = WIRE[version]

        def answer(sock):
            with context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as tls:
                with contextlib.suppress(OSError):
                    tls.do_handshake()
                select.select([tls], [], [], TIMEOUT)  # for the client's end, so that ours does not come first

        return "127.0.0.1", tcp_peer(answer).port

    return start


@each(IN_HANDSHAKE)
def test_in_the_handshake(relay, answering, certificates, record_property, case, version):  # noqa: PLR0917 - fixtures
    relay.use(dataclasses.replace(case.fault, handshake=True), answering(version))
    started = time.monotonic()
    with pytest.raises(KtlsLabError) as caught:
        open_session(*relay.address, config=certificates.config(), timeout=patience(case))
    assert time.monotonic() - started < patience(case) + SLACK
    seen = name_of(caught.value)
    record_property("fault", f"{case.name}, in the handshake")
    record_property("seen", f"{version.label}|{seen}")
    assert relay.report().applied
    assert seen == expected_of(case, version)


@pytest.mark.parametrize(
    ("version", "finished", "expected"),
    [(Version.TLS12, 3, "HandshakeError"), (Version.TLS13, 2, BAD_MAC)],  # 1.3: the client is done by then
    ids=["1.2", "1.3"],
)
def test_the_clients_last_word_changed(  # noqa: PLR0917 - fixtures
    relay, answering, certificates, record_property, version, finished, expected
):
    fault = Fault("flip", towards="server", record=finished, handshake=True, part="tag")
    relay.use(fault, answering(version))
    got = bytearray()
    try:
        with open_session(*relay.address, config=certificates.config(), timeout=TIMEOUT) as session:
            assert session.record_layer == "kernel"
            error = drain(session.stream, got)
    except KtlsLabError as caught:
        error = caught
    record_property("fault", "Finished of the client changed")
    record_property("seen", f"{version.label}|{name_of(error)}")
    assert relay.report().applied
    assert (name_of(error), got) == (expected, b"")


def test_padding_is_taken_off_and_every_byte_delivered(relay, tls_peer, certificates, record_property, io_engine):
    peer = tls_peer(speaker(ends=True), suite=SUITES[Version.TLS13])
    relay.use(Fault("pad", record=TICKETS[Version.TLS13], padding=3000), ("127.0.0.1", peer.port))
    with connect(*relay.address, io_engine=io_engine, timeout=TIMEOUT) as connection:
        finished = handshake(connection, certificates.config())
        keys = export(finished)
        relay.give_keys(keys.rx)
        answer = install(connection, keys)
        got = bytearray()
        with Stream(connection, finished, answer.directions) as stream:
            assert stream.record_layer == "kernel"
            stream.send(b"go")
            seen = name_of(drain(stream, got))
    record_property("fault", "records padded")
    record_property("seen", f"{Version.TLS13.label}|{seen}")
    assert relay.report().applied
    assert (seen, bytes(got)) == (DELIVERED, b"".join(PARTS))


@pytest.mark.parametrize("version", Version, ids=[version.label for version in Version])
def test_what_comes_after_a_time_out_is_delivered(opened, relay, record_property, version, io_engine):
    fault = Fault("delay", record=STRUCK + TICKETS[version], seconds=1.4 * PAUSE)
    session, _ = opened(fault, version, speaker(ends=True), io_engine=io_engine, timeout=PAUSE)
    got = bytearray()
    with session:
        session.stream.send(b"go")
        first, second = drain(session.stream, got), drain(session.stream, got)
        record_property("fault", "delay beyond the time-out, then received again")
        record_property("seen", f"{version.label}|{name_of(first)}, then {name_of(second)}")
        assert (name_of(first), name_of(second), bytes(got)) == (SILENCE, DELIVERED, b"".join(PARTS))
        assert relay.report().applied


@pytest.mark.parametrize("version", Version, ids=[version.label for version in Version])
def test_an_empty_record_is_neither_data_nor_an_end(kernel_pair, record_property, version, io_engine):
    ends = kernel_pair(suite=SUITES[version], io_engine=io_engine, timeout=TIMEOUT)
    for _ in range(3):
        ends.send(ContentType.APPLICATION_DATA, b"")
    ends.send(ContentType.APPLICATION_DATA, b"data")
    error = None
    try:
        assert ends.stream.recv() == b"data"
    except KtlsLabError as caught:
        error = caught
    record_property("fault", "empty records")
    record_property("seen", f"{version.label}|{name_of(error)}")
    assert error is None
