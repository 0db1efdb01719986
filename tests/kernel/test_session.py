"""A session asks the kernel, takes what it gives, and says so."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest
from conftest import accept_tls, server_context
from OpenSSL import SSL

from ktlslab import session
from ktlslab.errors import AlertError, RingUnavailableError
from ktlslab.http import client as https
from ktlslab.linux import capabilities, tcpinfo
from ktlslab.linux.ring import Ring
from ktlslab.session import open_session
from ktlslab.stages import Why, export
from ktlslab.tls.suites import Suite, Version

ESTABLISHED = 1  # include/net/tcp_states.h
CBC = "ECDHE-ECDSA-AES128-SHA"
SYSCTL = Path("/proc/sys/kernel/io_uring_disabled")


def test_a_suite_that_no_kernel_knows_goes_on_in_userspace_on_the_same_connection(tls_peer, certificates, io_engine):
    def serve(tls, sock):
        tls.sendall(tls.recv(100))
        return sock.getpeername()

    peer = tls_peer(serve, ciphers=CBC)
    config = certificates.config(versions=(Version.TLS12,))
    with open_session("localhost", peer.port, config=config, io_engine=io_engine) as session:
        assert (session.record_layer, session.why, session.suite) == ("userspace", (Why.SUITE_UNKNOWN,), None)
        assert session.suite_name == CBC
        assert session.counters.values == {}
        session.stream.send(b"still here")
        assert session.stream.recv() == b"still here"
        assert peer.join() == session.stream.connection.local


def test_a_peer_that_has_refused_us_before_the_kernel_is_asked_is_heard(tcp_peer, certificates, monkeypatch, io_engine):
    """The server wants a certificate, which it can say only after the client's handshake (TLS 1.3)."""

    def refuse(sock):
        context = server_context(certificates.server("good"), Suite.TLS_AES_128_GCM_SHA256)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        with pytest.raises(SSL.Error):
            accept_tls(context, sock)

    def later(finished):
        while tcpinfo.state(finished.connection.socket) == ESTABLISHED:
            time.sleep(0.001)
        return export(finished)

    monkeypatch.setattr(session, "export", later)
    with pytest.raises(AlertError, match="the peer sent the alert"):
        open_session(
            "localhost",
            tcp_peer(refuse).port,
            config=certificates.config(),
            record_layer="kernel",
            io_engine=io_engine,
        )


def test_auto_is_the_kernel_and_the_trace_shows_each_stage(tls_echo, certificates):
    with open_session("localhost", tls_echo(), config=certificates.config()) as session:
        assert (session.record_layer, session.io_engine, session.why) == ("kernel", "uring", ())
        assert [step.stage for step in session.trace] == ["connect", "handshake", "export", "install"]
        assert "Installed(" in session.trace[-1].outcome
        assert repr(session).endswith("kernel+uring)")


@pytest.mark.parametrize("version", Version)
def test_a_page_of_nginx_comes_whole_through_the_kernel(nginx, certificates, pattern, version, io_engine):
    port = nginx({"file": pattern(1 << 20)}, version)
    got = https.get(f"https://localhost:{port}/file", config=certificates.config(), io_engine=io_engine)
    assert (got.status, got.body == pattern(1 << 20)) == (200, True)
    assert (got.session.record_layer, got.session.version) == ("kernel", version)


@pytest.fixture
def no_io_uring():
    """io_uring forbidden for all, on kernels that can (6.6 and later); gives whether it is."""
    before = SYSCTL.read_text() if SYSCTL.exists() else None
    capabilities.io_uring.cache_clear()
    if before is not None:
        SYSCTL.write_text("2")
    yield before is not None
    if before is not None:
        SYSCTL.write_text(before)
    capabilities.io_uring.cache_clear()


def test_where_io_uring_is_forbidden_plain_calls_do_its_work_and_the_reason_is_named(
    tls_echo, certificates, no_io_uring
):
    with open_session("localhost", tls_echo(), config=certificates.config()) as session:
        session.stream.send(b"ping")
        assert session.stream.recv() == b"ping"
        assert session.record_layer == "kernel"
        assert session.io_engine == ("syscall" if no_io_uring else "uring")
        assert session.why == ((Why.NO_IO_URING,) if no_io_uring else ())
    if no_io_uring:
        with pytest.raises(RingUnavailableError, match=r"io_uring: EPERM .*sysctl kernel\.io_uring_disabled") as caught:
            Ring()
        answer = capabilities.io_uring()
        assert (bool(answer), answer.errno, answer.reason) == (False, errno.EPERM, caught.value.remedy)
        with pytest.raises(RingUnavailableError, match="EPERM"):
            open_session("localhost", 1, io_engine="uring")


def test_plain_is_plain(tcp_peer):
    peer = tcp_peer(lambda sock: sock.sendall(sock.recv(100)))
    with open_session("localhost", peer.port, record_layer="plain") as session:
        session.stream.send(b"in clear")
        assert session.stream.recv() == b"in clear"
        assert (session.record_layer, session.suite, session.why) == ("plain", None, ())


def test_every_aes_gcm_suite_of_a_default_offer_reaches_the_kernel(tls_echo, certificates):
    for suite in (Suite.TLS_AES_256_GCM_SHA384, Suite.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384):
        with open_session("localhost", tls_echo(suite=suite), config=certificates.config()) as session:
            assert (session.suite, session.record_layer) == (suite, "kernel")
