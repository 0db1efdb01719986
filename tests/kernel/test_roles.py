"""The handoff holds for both roles and after every kind of handshake."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ktlslab.errors import AlertError, CertificateError, HandshakeError, UsageError
from ktlslab.linux.ktls import Direction
from ktlslab.session import accept_session, open_session, session_pair
from ktlslab.stages import Psk, ServerConfig, Why, kernel_suites
from ktlslab.tls.records import ContentType, HandshakeType
from ktlslab.tls.suites import CIPHERS, Suite, Version

pytestmark = pytest.mark.usefixtures("no_long_farewell")
PSK = Psk(identity="lab", key=b"agreed on beforehand, 32 bytes..")
PSK_SUITES = (Suite.TLS_AES_128_GCM_SHA256, *(suite for suite in Suite if "_PSK_" in suite.name))


@pytest.fixture
def server(certificates):
    return ServerConfig(certificate=certificates.server("good"))


@pytest.fixture
def meet():
    """meet(client config, server config) -> (client session, server session), both closed at the end."""
    with contextlib.ExitStack() as open_ends:

        def start(client, server, **options):
            listener = open_ends.enter_context(socket.create_server(("127.0.0.1", 0)))
            with ThreadPoolExecutor(1) as pool:
                accepting = pool.submit(accept_session, listener, server, **options)
                try:
                    ours = open_session("localhost", listener.getsockname()[1], config=client, **options)
                    open_ends.callback(ours.close)
                finally:
                    listener.close()
                theirs = accepting.result()
            open_ends.callback(theirs.close)
            return ours, theirs

        yield start


def talk(client, server, *, layer="kernel"):
    """Both ways, twice, and the layers as they should be."""
    for number in range(2):
        client.stream.send(b"to the server %d" % number)
        assert server.stream.recv() == b"to the server %d" % number
        server.stream.send(b"to the client %d" % number)
        assert client.stream.recv() == b"to the client %d" % number
    assert (client.record_layer, server.record_layer) == (layer, layer)


def test_both_ends_are_the_kernels_with_every_suite(suite, io_engine):
    client, server = session_pair(suite=suite, io_engine=io_engine)
    with client, server:
        assert client.suite is server.suite is suite
        talk(client, server)


def test_a_servers_session_tickets_count_and_its_first_number_is_two(meet, certificates, server):
    config = replace(server, suites=(Suite.TLS_AES_128_GCM_SHA256,))
    client, accepted = meet(certificates.config(), config)
    installed = next(step for step in accepted.trace if step.stage == "export")
    assert "tx sequence 2, rx 0" in installed.outcome
    talk(client, accepted)
    assert len(client.stream.tickets) == 2


def test_a_server_may_hand_over_one_direction_alone(meet, certificates, server, io_engine):
    for layer in ("kernel-tx", "kernel-rx", "userspace"):
        client, accepted = meet(certificates.config(), server, record_layer=layer, io_engine=io_engine)
        talk(client, accepted, layer=layer)


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("layer", ["kernel", "kernel-tx", "userspace"])
def test_a_session_is_resumed_with_a_ticket_that_the_kernel_received(meet, certificates, server, version, layer):
    config = certificates.config(versions=(version,))
    client, accepted = meet(config, server, record_layer=layer)
    assert not client.resumed
    if version is Version.TLS13 and layer == "kernel":
        assert client.stream.resumption() is None  # no ticket has been read yet
    talk(client, accepted, layer=layer)
    again = replace(config, resume=client.stream.resumption())
    client, accepted = meet(again, server)
    assert (client.resumed, accepted.resumed) == (True, True)
    talk(client, accepted)


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("laxer", [{"verify": False}, {"ca": None, "verify": False}])
def test_resuming_passes_no_check_that_the_former_session_did_not(meet, certificates, server, version, laxer):
    strict = certificates.config(versions=(version,))
    client, accepted = meet(replace(strict, **laxer), server)
    talk(client, accepted)
    former = client.stream.resumption()
    with pytest.raises(UsageError, match="did not check the server's certificate, or trusted other authorities"):
        meet(replace(strict, resume=former), server)
    client, accepted = meet(replace(strict, **laxer, resume=former), server)
    assert client.resumed


@pytest.mark.parametrize("version", Version)
def test_a_key_agreed_on_beforehand_takes_a_certificates_place(meet, certificates, server, version):
    options = {"psk": PSK, "suites": PSK_SUITES, "versions": (version,)}
    client, accepted = meet(certificates.config(**options), replace(server, **options))
    assert client.suite in PSK_SUITES
    talk(client, accepted)


def test_a_wrong_key_beforehand_fails_the_handshake(meet, certificates, server):
    options = {"suites": PSK_SUITES, "versions": (Version.TLS12,)}
    theirs = replace(PSK, key=b"another key")
    with pytest.raises(HandshakeError):
        meet(certificates.config(psk=PSK, **options), replace(server, psk=theirs, **options))


@pytest.mark.parametrize("version", Version)
def test_a_client_proves_itself_by_a_certificate(meet, certificates, server, version):
    asking = replace(server, client_ca=certificates.ca, versions=(version,))
    own = certificates.server("good")
    client, accepted = meet(certificates.config(certificate=own), asking)
    talk(client, accepted)


def test_a_client_without_a_certificate_is_told_so_by_an_alert(meet, certificates, server):
    asking = replace(server, client_ca=certificates.ca)
    with pytest.raises((CertificateError, AlertError), match=r"certificate"):
        meet(certificates.config(), asking)


def test_after_a_hello_retry_request_the_handoff_holds(meet, certificates, server):
    client, accepted = meet(
        certificates.config(groups=("X25519", "P-384")), replace(server, groups=("P-384",), versions=(Version.TLS13,))
    )
    talk(client, accepted)
    records = [record for direction, record in client.handshake.machine.transcript if direction == "sent"]
    hellos = [r for r in records if r.header.content_type == ContentType.HANDSHAKE and r.payload[0] == 1]
    assert len(hellos) == 2
    assert hellos[0].payload[0] == HandshakeType.CLIENT_HELLO


def test_name_and_protocol_are_agreed_on(meet, certificates, server):
    client, accepted = meet(certificates.config(alpn=("h2", "http/1.1")), replace(server, alpn=("http/1.1", "spdy/3")))
    assert (client.alpn, accepted.alpn) == ("http/1.1", "http/1.1")
    assert accepted.handshake.server_name == "localhost"
    talk(client, accepted)


@pytest.mark.parametrize(
    "suite",
    [Suite.TLS_SM4_GCM_SM3, Suite.TLS_SM4_CCM_SM3, Suite.TLS_ECDHE_ECDSA_WITH_ARIA_256_GCM_SHA384],
    ids=lambda suite: suite.cipher.name,
)
def test_a_cipher_that_a_kernel_may_lack_reaches_it_or_stays_in_userspace(suite):
    """Debian's kernels lack ARIA and SM4; one that has them takes them. Either way the bytes arrive."""
    client, server = session_pair(suite=suite)
    with client, server:
        assert client.suite is suite
        lacking = {"userspace": (Why.CIPHER_REFUSED,), "kernel": ()}
        assert client.why == lacking[client.record_layer]
        talk(client, server, layer=client.record_layer)


def test_all_that_the_kernel_has_is_offered_where_it_is_asked_for(meet, certificates, server):
    suites = kernel_suites()
    assert {suite.cipher for suite in suites} >= set(CIPHERS)
    for suite in (Suite.TLS_SM4_GCM_SM3, Suite.TLS_ECDHE_ECDSA_WITH_ARIA_128_GCM_SHA256):
        client, accepted = meet(certificates.config(suites=(suite,)), replace(server, suites=(suite,)))
        assert (client.record_layer == "kernel") == (suite in suites)
    client, accepted = meet(certificates.config(suites=suites), server)
    talk(client, accepted)


def test_sending_may_be_the_kernels_and_receiving_follow_later_at_its_own_number(tls_pair):
    from ktlslab.stages import Stream, export, install

    pair = tls_pair(suite=Suite.TLS_AES_256_GCM_SHA384)
    keys = export(pair.handshake)
    install(pair.connection, keys, (Direction.TX,))
    # Three records are read in userspace first, two tickets and one of data, exactly as they come.
    machine = pair.handshake.machine
    pair.tls.sendall(b"read in userspace")
    got = bytearray(100)
    for _ in range(3):
        header = pair.connection.socket.recv(5, socket.MSG_WAITALL)
        machine.feed(header + pair.connection.socket.recv(int.from_bytes(header[3:], "big"), socket.MSG_WAITALL))
        count = machine.traffic.open_into(got)
    assert got[:count] == b"read in userspace"
    with pytest.raises(UsageError, match="the kernel has the TX keys, and has counted on"):
        export(pair.handshake)
    with pytest.raises(UsageError, match="RX keys are for record 0, and the session has gone on since"):
        install(pair.connection, keys, (Direction.RX,))
    later = export(pair.handshake, (Direction.RX,))
    assert later.tx.key.wiped
    assert later.rx.sequence == 3
    assert install(pair.connection, later, (Direction.RX,)).sequence == {Direction.RX: 3}
    pair.tls.sendall(b"read by the kernel")
    stream = Stream(pair.connection, pair.handshake, (Direction.TX, Direction.RX))
    assert stream.recv() == b"read by the kernel"
