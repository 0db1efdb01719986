"""A session opens on any kernel, says which record layer it uses and why, and leaves nothing behind."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import pytest

from ktlslab.errors import (
    CertificateError,
    HandshakeError,
    MachineError,
    PeerError,
    RecordLayerUnavailableError,
    RingUnavailableError,
)
from ktlslab.linux import capabilities, engines
from ktlslab.linux.ring import Ring
from ktlslab.session import open_session
from ktlslab.stages import Why
from ktlslab.tls.suites import Suite, Version

CBC = "ECDHE-ECDSA-AES128-SHA"


DEMANDS = ("kernel", "kernel-tx", "kernel-rx")


def expected(record_layer):
    """Return the record layer that a request gets on this kernel, according to the probe."""
    if record_layer in {"plain", "userspace"}:
        return record_layer, ()
    if capabilities.ulp():
        return ("kernel" if record_layer == "auto" else record_layer), ()
    return "userspace", (Why.NO_TLS_MODULE,)


@pytest.mark.parametrize("record_layer", DEMANDS)
def test_a_demand_that_the_kernel_does_not_meet_is_an_error_and_the_connection_is_closed(
    tls_peer, certificates, record_layer, io_engine
):
    """Every kernel refuses a suite that it does not know; this machine has no tls module either."""
    peer = tls_peer(lambda _tls, sock: sock.recv(1 << 16), ciphers=CBC)
    config = certificates.config(versions=(Version.TLS12,))
    before = descriptors()
    with pytest.raises(RecordLayerUnavailableError, match=f"record_layer='{record_layer}'.*auto") as caught:
        open_session("localhost", peer.port, config=config, record_layer=record_layer, io_engine=io_engine)
    assert (caught.value.why, caught.value.refused) == (Why.SUITE_UNKNOWN, None)
    assert isinstance(caught.value, MachineError)
    assert peer.join() == b""  # the connection ended
    assert descriptors() <= before + 1


@pytest.mark.parametrize("record_layer", DEMANDS)
def test_a_demand_carries_the_kernels_refusal(tls_peer, certificates, record_layer):
    port = tls_peer(lambda *_: None).port
    if capabilities.ulp():
        with open_session("localhost", port, config=certificates.config(), record_layer=record_layer) as session:
            assert (session.record_layer, session.why) == (record_layer, ())
        return
    with pytest.raises(RecordLayerUnavailableError, match=r"no tls module: .*ENOENT") as caught:
        open_session("localhost", port, config=certificates.config(), record_layer=record_layer)
    assert caught.value.refused.reason is caught.value.why is Why.NO_TLS_MODULE


@pytest.mark.parametrize("record_layer", ["auto", "userspace", *(DEMANDS if capabilities.ulp() else ())])
@pytest.mark.parametrize("version", Version)
def test_bytes_come_back_whatever_was_asked_for_and_the_session_says_what_it_does(
    tls_echo, certificates, record_layer, version, io_engine
):
    options = {"config": certificates.config(versions=(version,)), "record_layer": record_layer}
    with open_session("localhost", tls_echo(), io_engine=io_engine, **options) as session:
        assert (session.record_layer, session.why) == expected(record_layer)
        assert (session.io_engine, session.version) == (io_engine, version)
        assert session.suite.name == session.suite_name
        session.stream.send(b"there and back")
        assert session.stream.recv() == b"there and back"
        stages = ["connect", "handshake", "export", "install"]
        assert [step.stage for step in session.trace] == stages[: 2 if record_layer == "userspace" else 4]
        assert all(step.duration_ns > 0 for step in session.trace)
        for shown in (repr(session), session._repr_html_()):
            assert session.record_layer in shown
            assert all(why.value in shown for why in session.why)


def test_each_suite_is_spoken(tls_echo, certificates, suite):
    config = certificates.config(suites=(suite,))
    with open_session("localhost", tls_echo(suite=suite), config=config, io_engine="syscall") as session:
        assert session.suite is suite
        session.stream.send(b"x" * 40_000)
        back = bytearray(40_000)
        session.stream.recv_exactly_into(back)
        assert back == b"x" * 40_000


def test_a_suite_that_no_kernel_knows_is_spoken_in_userspace_and_the_reason_is_named(tls_echo, certificates):
    config = certificates.config(versions=(Version.TLS12,))
    with open_session("localhost", tls_echo(ciphers=CBC), config=config) as session:
        assert (session.record_layer, session.why) == ("userspace", (Why.SUITE_UNKNOWN,))
        assert (session.suite, session.suite_name) == (None, CBC)
        session.stream.send(b"still")
        assert session.stream.recv() == b"still"


def test_without_io_uring_plain_calls_do_it_and_the_reason_is_named(tls_echo, certificates, monkeypatch):
    monkeypatch.setattr(capabilities, "io_uring", lambda: capabilities.Answer(accepted=False, errno=errno.EPERM))
    with open_session("localhost", tls_echo(), config=certificates.config(), record_layer="userspace") as session:
        assert (session.io_engine, session.why) == ("syscall", (Why.NO_IO_URING,))
        session.stream.send(b"x")
        assert session.stream.recv() == b"x"


def test_io_uring_demanded_and_not_available_is_an_error(tls_echo, certificates, monkeypatch):
    def refuse(*_, **__):
        raise RingUnavailableError("setting up an io_uring", errno=errno.EPERM)

    monkeypatch.setattr(engines, "Ring", refuse)
    with pytest.raises(RingUnavailableError, match="EPERM"):
        open_session("localhost", tls_echo(), config=certificates.config(), io_engine="uring")


def test_a_lent_ring_serves_many_sessions(tls_echo, certificates):
    with Ring() as ring:
        for _ in range(3):
            with open_session("localhost", tls_echo(), config=certificates.config(), ring=ring) as session:
                session.stream.send(b"x")
                assert session.stream.recv() == b"x"
            assert not ring.closed


def test_failures_are_never_fallen_back_from(s_server, tcp_peer, certificates):
    with pytest.raises(CertificateError):
        open_session("localhost", s_server("-www", certificate="expired"), config=certificates.config())
    with pytest.raises(HandshakeError):
        open_session("localhost", tcp_peer(lambda sock: sock.sendall(b"no TLS")).port, config=certificates.config())


def descriptors():
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_two_hundred_sessions_leave_no_descriptor_behind(tls_echo, certificates, io_engine):
    port = tls_echo(connections=200)
    config = certificates.config(suites=(Suite.TLS_AES_128_GCM_SHA256,))
    before = descriptors()
    for _ in range(200):
        with open_session("localhost", port, config=config, io_engine=io_engine) as session:
            session.stream.send(b"x")
            assert session.stream.recv() == b"x"
    assert descriptors() <= before + 1  # the peer's last one may still be closing


def test_sessions_that_could_not_be_opened_leave_no_descriptor_behind(tls_peer, certificates, io_engine):
    port = tls_peer(lambda *_: None, certificate="expired", connections=0).port
    before = descriptors()
    for _ in range(20):
        with pytest.raises(PeerError):
            open_session("localhost", port, config=certificates.config(), io_engine=io_engine, timeout=0.05)
    assert descriptors() == before


def test_no_descriptor_left_for_a_ring_is_not_a_reason_to_fall_back_in_silence(tls_echo, certificates):
    import resource

    port = tls_echo()
    assert capabilities.io_uring()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0), limits[1]))
    try:
        with pytest.raises(RingUnavailableError, match=r"EMFILE .*ulimit -n"):
            open_session("localhost", port, config=certificates.config())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
