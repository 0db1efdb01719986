"""No two records under one key and nonce, whichever way someone takes to get there.

The nonce of a record is the write IV XOR its number (RFC 8446, 5.3). If two records share it, the XOR of what they
look like on the wire is the XOR of what they hold, and GCM's authentication is lost as well. Kernels that take new keys
during a session (6.14) take the same keys again: the numbers start anew. So each test reads the wire.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading

import pytest

from ktlslab.errors import KeyUpdateError, StreamClosedError, UsageError
from ktlslab.linux import capabilities, ktls
from ktlslab.linux.ktls import Direction
from ktlslab.session import open_session
from ktlslab.stages import (
    BOTH,
    ClientConfig,
    DirectionKeys,
    Refused,
    Secret,
    Stream,
    TrafficKeys,
    export,
    handshake,
    install,
    install_linked,
)
from ktlslab.stages.keys import traffic_secrets
from ktlslab.stages.transfer import keyupdate
from ktlslab.tls.keyschedule import next_traffic_secret, traffic_key
from ktlslab.tls.protect import open_record
from ktlslab.tls.records import HEADER_BYTES
from ktlslab.tls.suites import CIPHERS, Suite, Version

pytestmark = pytest.mark.usefixtures("no_long_farewell")
TX, RX = Direction.TX, Direction.RX
TLS12, TLS13 = Suite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, Suite.TLS_AES_256_GCM_SHA384
VERSIONS = pytest.mark.parametrize("suite", [TLS12, TLS13], ids=["1.2", "1.3"])
EVERY_TLS13 = [suite for suite in Suite if suite.version is Version.TLS13 and suite.cipher in CIPHERS]
ONE, TWO = b"attack at dawn, by the bridge...", b"stay where you are until morning"
GENERATIONS, NUMBERS = 4, 40  # as far as `Wire` looks


class Wire:
    """What a connection has put on the wire, read at the peer, and under which key and number each record opens."""

    def __init__(self, pair):
        self._pair, self._suite = pair, pair.handshake.suite
        keys = export(pair.handshake)
        self._keys = [(keys.tx.key.reveal(), keys.tx.write_iv.reveal())]
        if self._suite.version is Version.TLS13:
            secret = traffic_secrets(pair.handshake)[0]
            for _ in range(GENERATIONS):
                secret = next_traffic_secret(secret, self._suite)
                self._keys.append(traffic_key(secret, self._suite))
        self.used = []  # (generation, number) of each record read so far

    def read(self, count=1):
        """Read so many records, and return what they hold. No two may have been sealed alike."""
        held = [self._open(self._pair.read_record()) for _ in range(count)]
        assert len(set(self.used)) == len(self.used), f"a nonce was used twice: {self.used}"
        return held

    def _open(self, record):
        for generation, keys in enumerate(self._keys):
            for number in range(NUMBERS):
                with contextlib.suppress(ValueError):
                    _, held = open_record(self._suite, *keys, number, record)
                    self.used.append((generation, number))
                    return held
        pytest.fail("a record opens under no key and number of this session")


def xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


# What the tests can see: by hand, past ktlslab.


@pytest.mark.parametrize("suite", EVERY_TLS13, ids=lambda suite: suite.cipher.name)
def test_the_same_keys_set_twice_by_hand_give_two_records_one_nonce(tls_pair, suite):
    pair = tls_pair(suite=suite)
    wire, sock = Wire(pair), pair.connection.socket
    packed = export(pair.handshake).tx.crypto_info().pack()
    ktls.attach(sock)
    sock.setsockopt(ktls.SOL_TLS, TX.value, packed)
    sock.send(ONE)
    if not capabilities.rekey():
        with pytest.raises(OSError, match="resource busy"):
            sock.setsockopt(ktls.SOL_TLS, TX.value, packed)
        return
    sock.setsockopt(ktls.SOL_TLS, TX.value, packed)
    sock.send(TWO)
    records = [pair.read_record() for _ in range(2)]
    one, two = (record[HEADER_BYTES:][: len(ONE)] for record in records)
    assert xor(one, two) == xor(ONE, TWO)
    assert [wire._open(record) for record in records] == [ONE, TWO]
    assert wire.used == [(0, 0), (0, 0)]
    sock.send(ONE)
    with pytest.raises(AssertionError, match="a nonce was used twice"):
        wire.read()


# Every way through ktlslab is refused, and what was begun goes on.


@dataclasses.dataclass(kw_only=True)
class Keys:
    """The keys of one session, kept in every way that there is."""

    used: TrafficKeys  # as given to the first install, which did not wipe them
    wiped: TrafficKeys
    before: TrafficKeys  # exported before the first install
    by_hand: TrafficKeys  # made of revealed bytes, so that they do not know their session

    @classmethod
    def of(cls, shaken):
        used, before, wiped = (export(shaken) for _ in range(3))
        wiped.wipe()
        sides = {
            name: DirectionKeys(
                suite=side.suite,
                key=Secret(side.key.reveal()),
                write_iv=Secret(side.write_iv.reveal()),
                sequence=side.sequence,
            )
            for name, side in (("tx", before.tx), ("rx", before.rx))
        }
        return cls(used=used, wiped=wiped, before=before, by_hand=TrafficKeys(**sides))


WAYS = {
    "all again": (lambda c, hs, _: install(c, export(hs)), "the kernel has the TX keys"),
    "export again": (lambda _c, hs, _: export(hs), "the kernel has the TX keys, and has counted on"),
    "export one again": (lambda _c, hs, _: export(hs, [RX]), "the kernel has the RX keys"),
    "keys that were not wiped": (lambda c, _, keys: install(c, keys.used), "install of TX was already called"),
    "keys that were wiped": (lambda c, _, keys: install(c, keys.wiped), "install of TX was already called"),
    "keys exported before": (lambda c, _, keys: install(c, keys.before), "install of TX was already called"),
    "keys made by hand": (lambda c, _, keys: install(c, keys.by_hand), "install of TX was already called"),
    "one direction": (lambda c, _, keys: install(c, keys.before, TX), "install of TX was already called"),
    "the other direction": (lambda c, _, keys: install(c, keys.by_hand, [RX]), "install of RX was already called"),
    "linked": (lambda c, _, keys: install_linked(c, keys.before), "install of TX was already called"),
    "linked, with a first record": (
        lambda c, _, keys: install_linked(c, keys.by_hand, first=TWO),
        "install of TX was already called",
    ),
    "a second stream": (lambda c, hs, _: Stream(c, hs, BOTH), "Stream was already called on this connection"),
    "a second stream without its handshake": (lambda c, _hs, _: Stream(c, None, BOTH), "Stream was already called"),
    "a stream in userspace": (lambda c, hs, _: Stream(c, hs), "the kernel has the TX keys of this socket"),
    "a stream in clear text": (lambda c, _hs, _: Stream(c), "the kernel has the TX keys of this socket"),
    "a stream of the other layer": (lambda c, hs, _: Stream(c, hs, (RX,)), "the kernel has the TX keys of this socket"),
    "a second handshake": (lambda c, _hs, _: handshake(c, ClientConfig(verify=False)), "handshake was already called"),
}


@VERSIONS
@pytest.mark.parametrize("linked", [False, True], ids=["install", "install_linked"])
def test_every_second_install_is_refused_and_the_stream_goes_on(tls_pair, suite, linked):
    if linked and not capabilities.uring_setsockopt():
        return  # such a kernel cannot install by a ring at all: see test_moving.py
    pair = tls_pair(suite=suite, io_engine="uring")
    wire, kept = Wire(pair), Keys.of(pair.handshake)
    assert (install_linked if linked else install)(pair.connection, kept.used, wipe=False)
    stream = Stream(pair.connection, pair.handshake, BOTH)
    stream.send(ONE)
    assert wire.read() == [ONE]
    for again, words in WAYS.values():
        with pytest.raises(UsageError, match=words):
            again(pair.connection, pair.handshake, kept)
        stream.send(TWO)
        assert wire.read() == [TWO]
    assert not kept.used.tx.current
    pair.tls.sendall(b"received as before")
    assert stream.recv() == b"received as before"


@VERSIONS
@pytest.mark.parametrize("way", ["install", "install_linked"])
def test_keys_that_another_hand_has_set_are_seen(tls_pair, suite, way):
    """The kernel is asked, not the connection's memory."""
    pair = tls_pair(suite=suite, io_engine="uring")
    wire, keys, sock = Wire(pair), export(pair.handshake), pair.connection.socket
    ktls.attach(sock)
    ktls.set_keys(sock, TX, keys.tx.crypto_info().pack())
    sock.send(ONE)
    assert ktls.installed(sock, TX) == (suite.version.wire, suite.cipher.kernel_type)
    assert ktls.installed(sock, RX) is None
    again = install if way == "install" else install_linked
    for directions in (BOTH, (TX,), (RX, TX)):
        with pytest.raises(UsageError, match="the kernel already has TX keys for this socket"):
            again(pair.connection, keys, directions)
    assert ktls.installed(sock, RX) is None  # refused before anything happened
    assert (keys.tx.current, keys.rx.current) == (False, True)
    with pytest.raises(UsageError, match="the kernel has the TX keys, and has counted on"):
        export(pair.handshake)
    assert install(pair.connection, keys, (RX,))
    stream = Stream(pair.connection, pair.handshake, BOTH)
    stream.send(TWO)
    assert wire.read(2) == [ONE, TWO]


@VERSIONS
def test_keys_are_not_installed_once_the_session_has_gone_on_in_userspace(tls_pair, suite):
    """OpenSSL has made a record under the number that these keys name: the kernel would make another."""
    pair = tls_pair(suite=suite)
    wire, stale = Wire(pair), export(pair.handshake)
    pair.connection.socket.sendall(pair.handshake.machine.encrypt(ONE))
    assert (stale.tx.current, stale.rx.current) == (False, True)
    with pytest.raises(UsageError, match=r"the TX keys are for record \d, and the session has gone on since"):
        install(pair.connection, stale)
    keys = export(pair.handshake)
    assert install(pair.connection, keys)
    Stream(pair.connection, pair.handshake, BOTH).send(TWO)
    assert wire.read(2) == [ONE, TWO]


def test_a_stream_in_userspace_ends_the_time_for_installing(tls_pair, io_engine):
    pair = tls_pair(suite=TLS13, io_engine=io_engine)
    wire, keys = Wire(pair), export(pair.handshake)
    stream = Stream(pair.connection, pair.handshake)
    with pytest.raises(UsageError, match="Stream was already called on this connection"):
        install(pair.connection, keys)
    stream.send(ONE)
    with pytest.raises(UsageError, match="Stream was already called on this connection"):
        install(pair.connection, keys, (TX,))
    stream.send(TWO)
    assert wire.read(2) == [ONE, TWO]


def test_keys_of_another_connection_or_direction_are_refused(tls_pair):
    """The peer's keys would be used by both ends, from the same number on."""
    pair, other = tls_pair(suite=TLS13), tls_pair(suite=TLS13)
    keys = export(pair.handshake)
    swapped = TrafficKeys(tx=keys.rx, rx=keys.tx)
    with pytest.raises(UsageError, match="the TX keys are those of RX"):
        install(pair.connection, swapped)
    mixed = TrafficKeys(tx=export(other.handshake).tx, rx=keys.rx)
    for given in (export(other.handshake), mixed):
        with pytest.raises(UsageError, match=r"the TX keys are of another connection, Connection\(localhost"):
            install(pair.connection, given)
    changed = TrafficKeys(tx=dataclasses.replace(keys.tx, sequence=5), rx=keys.rx)
    with pytest.raises(UsageError, match="the TX keys are for record 5"):
        install(pair.connection, changed)
    assert install(pair.connection, keys)


def test_of_two_threads_that_install_one_gets_through(tls_pair):
    pair = tls_pair(suite=TLS13)
    wire, given = Wire(pair), [export(pair.handshake) for _ in range(8)]
    said = at_once(*(lambda keys=keys: install(pair.connection, keys) for keys in given))
    assert sum(answer.startswith("Installed") for answer in said) == 1, said
    assert all(answer.startswith(("Installed", "UsageError", "Refused")) for answer in said), said
    Stream(pair.connection, pair.handshake, BOTH).send(ONE)
    assert wire.read() == [ONE]


def at_once(*calls):
    """Run calls in threads that begin together; return what each returned or raised."""
    said, start = [], threading.Barrier(len(calls))

    def run(call):
        start.wait()
        try:
            said.append(repr(call()))
        except Exception as error:  # noqa: BLE001 - shown
            said.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


# KeyUpdate


@pytest.fixture
def updated(tls_pair, io_engine):
    """(stream, wire, pair) of a session whose keys can change."""
    pair = tls_pair(suite=TLS13, io_engine=io_engine)
    wire = Wire(pair)
    assert install(pair.connection, export(pair.handshake))
    return Stream(pair.connection, pair.handshake, BOTH), wire, pair


def test_of_threads_that_change_keys_at_once_none_installs_what_another_has(updated):
    stream, wire, _ = updated
    stream.send(ONE)
    said = at_once(stream.update_keys, stream.update_keys, stream.update_keys)
    if not capabilities.rekey():
        assert all(answer.startswith("KeyUpdateError") for answer in said)
    done = said.count("None")
    stream.send(TWO)
    assert wire.read(2 + done) == [ONE, *[b"\x18\0\0\1\0"] * done, TWO]
    assert wire.used[-1][0] == done == stream.generations[TX]


def test_a_change_of_keys_within_a_change_is_refused(updated, monkeypatch):
    """As a signal's handler, or a second thread, would ask for it: between the announcement and the new keys."""
    stream, wire, _ = updated
    set_keys, inner = ktls.set_keys, []

    def interrupted(sock, direction, packed):
        with pytest.raises(UsageError, match="another thread is changing them") as refused:
            stream.update_keys()
        inner.append(refused.value)
        set_keys(sock, direction, packed)

    monkeypatch.setattr(keyupdate.ktls, "set_keys", interrupted)
    if not capabilities.rekey():
        with pytest.raises(KeyUpdateError):
            stream.update_keys()
        return
    stream.update_keys()
    stream.send(TWO)
    assert len(inner) == 1
    assert wire.read(2) == [b"\x18\0\0\1\0", TWO]
    assert wire.used == [(0, 0), (1, 0)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_keys_whose_installing_was_interrupted_are_not_installed_again(updated, monkeypatch, when):
    stream, wire, _ = updated
    if not capabilities.rekey():
        return  # there is no second install: test_keyupdate.py
    set_keys = ktls.set_keys

    def interrupted(sock, direction, packed):
        if when == "after":
            set_keys(sock, direction, packed)
        raise KeyboardInterrupt

    monkeypatch.setattr(keyupdate.ktls, "set_keys", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.update_keys()
    monkeypatch.undo()
    for call in (stream.update_keys, lambda: stream.send(TWO)):
        with pytest.raises(StreamClosedError, match="KeyboardInterrupt interrupted it"):
            call()
    stream._updates.install(TX, "going on all the same")
    stream.connection.socket.send(TWO)
    assert wire.read(2) == [b"\x18\0\0\1\0", TWO]
    assert wire.used[-1] == (2, 0)


def test_a_peer_that_asks_again_and_again_gets_new_keys_each_time(updated):
    """Receiving and answering are apart: what was asked while a change was made is answered by the next one."""
    stream, wire, _ = updated
    if not capabilities.rekey():
        return
    for number in range(3):
        stream._condition.owe()
        if number == 1:
            stream._condition.owe()
            stream.update_keys()
        stream.send(ONE)
    assert [len(held) for held in wire.read(6)] == [5, len(ONE)] * 3
    assert wire.used == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]


# A resumed session


@VERSIONS
def test_a_resumed_session_has_keys_of_its_own(tls_echo, certificates, suite):
    """TLS 1.3 derives them anew; TLS 1.2 keeps the master secret, and mixes in other randoms."""
    port, resume, seen = tls_echo(suite=suite, connections=3), None, set()
    for number in range(3):
        config = certificates.config(suites=(suite,), resume=resume)
        with open_session("localhost", port, config=config, record_layer="kernel") as session:
            assert session.handshake.resumed == (number > 0)
            session.stream.send(ONE)
            assert session.stream.recv() == ONE
            sock = session.stream.connection.socket
            seen |= {ktls.get_keys(sock, direction, suite.cipher.kernel_type).key for direction in BOTH}
            resume = session.stream.resumption()
    assert len(seen) == 2 * 3


# A fork


@pytest.mark.parametrize("directions", [BOTH, (TX,), (RX,)], ids=["kernel", "kernel-tx", "kernel-rx"])
def test_a_forked_process_makes_no_record(tls_pair, io_engine, directions, forked):
    """Both processes have OpenSSL's state and the next keys: they would use the same numbers, and the same new key."""
    pair = tls_pair(suite=TLS13, io_engine=io_engine)
    wire, kept = Wire(pair), Keys.of(pair.handshake)
    assert install(pair.connection, kept.used, directions, wipe=False)
    stream = Stream(pair.connection, pair.handshake, directions)
    stream.send(ONE)
    calls = {
        "send": (lambda: stream.send(TWO), "StreamClosedError", "the stream"),
        "send_record": (lambda: stream.send_record(b"\x01\x00", 21), "StreamClosedError", "the stream"),
        "update_keys": (stream.update_keys, "StreamClosedError", "the stream"),
        "recv": (stream.recv, "StreamClosedError", "the stream"),
        "pieces": (lambda: next(stream.pieces()), "StreamClosedError", "the stream"),
        "splice_into": (lambda: stream.splice_into(os.pipe()[1], 1), "StreamClosedError", "the stream"),
        "Stream": (lambda: Stream(pair.connection, pair.handshake, directions), "UsageError", "the session"),
        "install": (lambda: install(pair.connection, kept.by_hand), "UsageError", "the session"),
        "export": (lambda: export(pair.handshake), "UsageError", "the session"),
    }
    no_kernel = {"send_record", "update_keys"} if TX not in directions else set()
    no_kernel |= {"update_keys"} if not capabilities.rekey() else set()
    no_kernel |= {"pieces"} if RX not in directions else set()
    for name, (call, kind, what) in calls.items():
        said = forked(call)
        if name in no_kernel:
            assert "Error" in said
        else:
            assert said.startswith(kind), said
            assert f"{what} belongs to process {os.getpid()}" in said
    assert forked(stream.close) == "None"
    stream.send(TWO)
    assert wire.read(2) == [ONE, TWO]
    pair.tls.sendall(b"and to the parent alone")
    assert stream.recv() == b"and to the parent alone"


def test_an_iteration_that_goes_on_in_a_forked_process_takes_nothing(tls_pair, io_engine, forked):
    pair = tls_pair(suite=TLS12, io_engine=io_engine)
    assert install(pair.connection, export(pair.handshake))
    stream = Stream(pair.connection, pair.handshake, BOTH)
    pieces = stream.pieces()
    pair.tls.sendall(ONE)
    assert next(pieces) == (23, ONE)
    pair.tls.sendall(TWO)
    said = forked(lambda: next(pieces))
    assert said.startswith("StreamClosedError")
    assert next(pieces) == (23, TWO)


# Clear text


def test_a_stream_on_a_socket_whose_install_was_refused_is_refused(tls_pair):
    pair = tls_pair(suite=TLS13)
    for claim in (BOTH, (TX,), (RX,)):
        for shaken in (pair.handshake, None):
            with pytest.raises(UsageError, match=r"the kernel has no .X keys for this socket, which would carry clear"):
                Stream(pair.connection, shaken, claim)
    stream = Stream(pair.connection, pair.handshake)
    stream.send(ONE)
    assert pair.tls.recv(99) == ONE


def test_a_claim_of_one_direction_is_checked_in_the_other(tls_pair):
    pair = tls_pair(suite=TLS13)
    assert install(pair.connection, export(pair.handshake), TX)
    for claim, words in {
        BOTH: "no RX keys",
        (RX,): "the TX keys of this socket, which `kernel` does not name",
        (): "the TX keys of this socket, which `kernel` does not name",
    }.items():
        with pytest.raises(UsageError, match=words):
            Stream(pair.connection, pair.handshake, claim)
    Stream(pair.connection, pair.handshake, (TX,)).send(ONE)
    assert pair.tls.recv(99) == ONE


def test_after_a_handshake_no_direction_is_plain_without_its_handshake(tls_pair):
    pair = tls_pair(suite=TLS13)
    assert install(pair.connection, export(pair.handshake), TX)
    with pytest.raises(UsageError, match="handshake was begun on this connection, and RX would carry clear text"):
        Stream(pair.connection, None, (TX,))
    Stream(pair.connection, pair.handshake, (TX,)).send(ONE)
    assert pair.tls.recv(99) == ONE


def test_keys_in_the_kernel_that_are_not_the_sessions_are_refused(tls_pair):
    pair, other = tls_pair(suite=TLS13), tls_pair(suite=TLS12)
    ktls.attach(pair.connection.socket)
    ktls.set_keys(pair.connection.socket, TX, export(other.handshake).tx.crypto_info().pack())
    with pytest.raises(UsageError, match="the TX keys that the kernel has are not those of Handshake"):
        Stream(pair.connection, pair.handshake, (TX,))


def test_a_refusal_leaves_the_connection_for_a_stream_in_userspace(tls_pair, monkeypatch):
    pair = tls_pair(suite=TLS13)
    keys = export(pair.handshake)

    def refuse(_sock, _direction, _packed):
        raise OSError(12, "no memory")

    with monkeypatch.context() as patched:
        patched.setattr(ktls, "set_keys", refuse)
        refused = install(pair.connection, keys)
    assert isinstance(refused, Refused)
    assert refused.directions == ()
    assert not keys.tx.key.wiped
    assert keys.tx.current
    Stream(pair.connection, pair.handshake, refused.directions).send(ONE)
    assert pair.tls.recv(99) == ONE
