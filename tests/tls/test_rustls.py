"""The parts of rtls that it does not promise are there, and do what `ktlslab.tls.libraries.rustls` relies on."""

from __future__ import annotations

from pathlib import Path

import pytest
import rtls

from ktlslab.tls.libraries import RUSTLS_SUITES, LibraryError
from ktlslab.tls.libraries.rustls import Rustls
from ktlslab.tls.suites import Suite, Version

MACHINE = {"read_tls", "process_new_packets", "is_handshaking", "wants_read", "wants_write", "write_tls", "pending"} | {
    *("read_plaintext", "write_plaintext", "decrypt_incoming", "send_close_notify", "peer_certificates"),
    *("alpn_protocol", "protocol_version", "negotiated_cipher_suite"),
}


@pytest.fixture
def client():
    return rtls.SSLContext(rtls.PROTOCOL_TLS_CLIENT)._get_builder()


def offered(hello: bytes) -> list[Suite | None]:
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    size = int.from_bytes(hello[at : at + 2], "big")
    ids = [int.from_bytes(hello[at + 2 + i : at + 4 + i], "big") for i in range(0, size, 2)]
    return [Suite.from_id(one) for one in ids if one != 0x00FF]  # the signal of RFC 5746


def test_the_machine_has_the_calls_that_are_made(client):
    machine = client.build_client_connection("localhost")
    assert not {name for name in MACHINE if not callable(getattr(machine, name, None))}


def test_it_offers_the_suites_that_are_counted_on_and_those_of_tls13_cannot_be_limited(client):
    assert set(offered(client.build_client_connection("localhost").write_tls())) == set(RUSTLS_SUITES)
    client.set_cipher_suites(["TLS13_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"])
    tls13 = {suite for suite in RUSTLS_SUITES if suite.version is Version.TLS13}
    left = {*tls13, Suite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
    assert set(offered(client.build_client_connection("localhost").write_tls())) == left


def test_what_it_raises_tells_alerts_and_certificates_apart():
    class Config:
        versions, suites, alpn, certificate, key, verify, ca = tuple(Version), None, (), None, None, False, None

    library = Rustls.client(Config(), "localhost")
    library.take()
    library.feed(b"\x15\x03\x03\x00\x02\x02\x28")
    with pytest.raises(LibraryError) as caught:
        library.advance()
    assert (caught.value.alert, caught.value.problem) == ("handshake_failure", 0)


def test_a_library_that_is_dropped_closes_its_key_log():
    class Config:
        versions, suites, alpn, certificate, key, verify, ca = tuple(Version), None, (), None, None, False, None

    library = Rustls.client(Config(), "localhost")
    number = library._keylog
    log = Path(f"/proc/self/fd/{number}")
    assert "memfd:keylog" in str(log.readlink())
    del library
    assert not log.is_symlink()
