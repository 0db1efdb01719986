"""rustls does the handshake, and the kernel takes over: in both roles, with each suite that rustls has."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import ktlslab
from ktlslab.errors import KeyUpdateError
from ktlslab.linux import capabilities
from ktlslab.session import accept_session, open_session
from ktlslab.stages import BOTH, ServerConfig, export, install, kernel_suites
from ktlslab.tls.libraries import RUSTLS_SUITES
from ktlslab.tls.records import ContentType
from ktlslab.tls.suites import Suite, Version
from tests.handpeer import PATIENCE_S, key_update

pytestmark = pytest.mark.usefixtures("no_long_farewell")
SUITES = [suite for suite in RUSTLS_SUITES if "_RSA_" not in suite.name]  # the certificates of the tests are ECDSA's
ROLES = {"client": ("rustls", "openssl"), "server": ("openssl", "rustls"), "both": ("rustls", "rustls")}
# Two ends of rustls cannot be told which suite of TLS 1.3 to use: they take the first.
EACH = [
    (role, suite)
    for role in ROLES
    for suite in SUITES
    if role != "both" or suite in (Suite.TLS_AES_128_GCM_SHA256, Suite.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)
]
LAYERS = pytest.mark.parametrize("layer", ["kernel", "kernel-tx", "kernel-rx"])


@pytest.fixture
def meet(certificates):
    """meet(client's library, server's, suite) -> (client session, server session), both closed at the end."""
    with contextlib.ExitStack() as ends:

        def start(client, server, suite, **options):
            # rustls can limit the suites of TLS 1.2 only, so OpenSSL's end chooses, or what rustls prefers is taken.
            only = {
                name: {"library": name, "versions": (suite.version,)}
                | ({"suites": (suite,)} if name == "openssl" or suite.version is Version.TLS12 else {})
                for name in (client, server)
            }
            config = ServerConfig(certificate=certificates.server("good"), **only[server])
            options |= {"timeout": PATIENCE_S}
            with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
                accepting = pool.submit(accept_session, listener, config, **options)
                port = listener.getsockname()[1]
                ours = open_session("localhost", port, config=certificates.config(**only[client]), **options)
                ends.callback(ours.close)
                theirs = accepting.result()
            ends.callback(theirs.close)
            return ours, theirs

        yield start


def talk(one, other, pattern):
    """Send 100,000 bytes each way and compare."""
    data = pattern(100_000)
    for sender, receiver in ((one, other), (other, one)):
        sending = threading.Thread(target=sender.stream.send, args=(data,))
        sending.start()
        got = bytearray(len(data))
        receiver.stream.recv_exactly_into(got)
        sending.join()
        assert got == data


@pytest.mark.parametrize(("role", "suite"), EACH, ids=[f"{role}-{suite.name}" for role, suite in EACH])
def test_the_kernel_takes_over_from_rustls(meet, pattern, role, suite, io_engine):
    assert suite in kernel_suites()
    client, server = ROLES[role]
    one, other = meet(client, server, suite, record_layer="kernel", io_engine=io_engine)
    for session, library in ((one, client), (other, server)):
        assert session.handshake.machine.library.name == library
        assert (session.record_layer, session.io_engine, session.suite) == ("kernel", io_engine, suite)
        assert session.counters["TlsTxSw"] >= 1
    talk(one, other, pattern)


@pytest.mark.parametrize("layer", ["kernel-tx", "kernel-rx"])
@pytest.mark.parametrize("version", Version)
def test_rustls_keeps_the_direction_that_the_kernel_has_not(meet, pattern, layer, version, io_engine):
    suite = next(suite for suite in SUITES if suite.version is version)
    one, other = meet("rustls", "rustls", suite, record_layer=layer, io_engine=io_engine)
    assert (one.record_layer, other.record_layer) == (layer, layer)
    talk(one, other, pattern)


@pytest.mark.parametrize("tickets", [0, 2, 8])
@LAYERS
def test_a_servers_tickets_are_read_by_whoever_receives(s_server, certificates, pattern, tmp_path, tickets, layer):  # noqa: PLR0917
    """What OpenSSL's server sends after its handshake is still in the socket: rustls has not read past its end."""
    (tmp_path / "file").write_bytes(pattern(100_000))
    port = s_server("-HTTP", "-num_tickets", str(tickets), suite=Suite.TLS_AES_256_GCM_SHA384)
    config = certificates.config(library="rustls")
    with open_session("localhost", port, config=config, record_layer=layer, timeout=PATIENCE_S) as session:
        exported = next(step for step in session.trace if step.stage == "export")
        assert "tx sequence 0, rx 0" in exported.outcome
        session.stream.send(b"GET /file HTTP/1.0\r\n\r\n")
        body = b""
        while part := session.stream.recv():
            body += part
        assert body.endswith(pattern(100_000))
        assert len(session.stream.tickets) == (tickets if layer != "kernel-tx" else 0)
        assert session.stream.resumption() is None  # rtls has no call for it


def test_the_tickets_of_a_rustls_server_are_one_record_and_counted(meet, pattern):
    one, other = meet("openssl", "rustls", Suite.TLS_AES_128_GCM_SHA256, record_layer="kernel")
    exported = next(step for step in other.trace if step.stage == "export")
    assert "tx sequence 1, rx 0" in exported.outcome
    talk(one, other, pattern)
    assert len(one.stream.tickets) == 2


def test_a_page_comes_by_rustls_and_the_kernel(nginx, certificates, pattern, io_engine):
    port = nginx({"file": pattern(1 << 20)})
    config = certificates.config(library="rustls")
    got = ktlslab.get(
        f"https://localhost:{port}/file", config=config, record_layer="kernel", io_engine=io_engine, timeout=PATIENCE_S
    )
    assert (got.status, got.body == pattern(1 << 20)) == (200, True)


def test_httpbin_by_rustls_and_io_uring_where_the_kernel_makes_the_records(httpbin, certificates, record_property):
    """What ktlslab is for, whole: each stage shows in the trace, and the answers are httpbin's."""
    config = certificates.config(library="rustls")
    pem = str(certificates.server("good"))
    port = httpbin("--certfile", pem, "--keyfile", pem)  # its TLS is the standard library's
    for path, layer in (
        ("bytes/100000?seed=7", "kernel"),
        ("get?of=ktlslab", "kernel"),
        ("get?of=ktlslab", "userspace"),
    ):
        url = f"https://localhost:{port}/{path}"
        got = ktlslab.get(url, config=config, record_layer=layer, io_engine="uring", timeout=PATIENCE_S)
        session = got.session
        assert (got.status, session.library, session.record_layer, session.io_engine) == (200, "rustls", layer, "uring")
        taken = ["export", "install"] if layer == "kernel" else []
        assert [step.stage for step in session.trace] == ["connect", "handshake", *taken]
        assert session.trace[1].outcome.endswith("by rustls)")
        if path.startswith("get"):
            assert json.loads(got.body)["args"] == {"of": "ktlslab"}
        else:
            assert len(got.body) == 100_000
        record_property("trace", f"{path}: {session!r}")
        for step in session.trace:
            record_property("trace", f"{step.stage}: {step.outcome}")


# Keys that change


def _receive_and_answer(stream):
    stream.recv()
    stream.send(b"answered")


@LAYERS
@pytest.mark.parametrize("role", ["client", "server"])
def test_keys_change_in_both_directions(hand_peers, layer, role, io_engine):
    stream, peer = hand_peers.open(f"{layer}-rustls", io_engine, role)
    peer.send(b"before")
    assert stream.recv() == b"before"
    peer.update_keys(request=True)
    peer.send(b"after")
    if not capabilities.rekey():
        with pytest.raises(KeyUpdateError):
            _receive_and_answer(stream)
        return
    assert stream.recv() == b"after"
    stream.send(b"answered")  # a request is answered before the next data
    assert peer.receive() == (ContentType.HANDSHAKE, key_update())
    assert peer.receive() == (ContentType.APPLICATION_DATA, b"answered")
    if layer != "kernel-rx":
        stream.update_keys()
        stream.send(b"by ourselves")
        assert peer.receive() == (ContentType.HANDSHAKE, key_update())
        assert peer.receive() == (ContentType.APPLICATION_DATA, b"by ourselves")
    peer.close_notify()
    peer.fin()
    assert stream.recv() == b""


def test_what_rustls_would_answer_is_not_sent_as_data_where_the_kernel_sends(hand_peers, io_engine):
    """To a HelloRequest it answers with an alert: a record of its own, with keys that are the kernel's by now."""
    stream, peer = hand_peers.open("kernel-tx-rustls", io_engine, "client", version=Version.TLS12)
    peer.send(bytes(4), ContentType.HANDSHAKE)
    peer.send(b"data")
    assert stream.recv() == b"data"
    stream.send(b"ours")
    assert peer.receive() == (ContentType.APPLICATION_DATA, b"ours")


def test_every_stage_by_hand(tls_pair, io_engine):
    pair = tls_pair(io_engine=io_engine, library="rustls")
    keys = export(pair.handshake)
    installed = install(pair.connection, keys, BOTH)
    assert installed, repr(installed)
    assert keys.tx.key.wiped
    assert re.match(r"Handshake\(localhost, TLS 1.3, TLS_AES_\d+_GCM", repr(pair.handshake))
