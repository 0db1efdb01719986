"""A handshake ends verified and not one byte too far, or it is an error of the right kind with a remedy."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from OpenSSL import SSL

from ktlslab.errors import CertificateError, HandshakeError, NotTlsError, PeerTimeoutError, UsageError
from ktlslab.stages import ClientConfig, ServerConfig, accept, connect, handshake
from ktlslab.tls.alerts import AlertDescription, AlertLevel
from ktlslab.tls.libraries.openssl import OpenSsl
from ktlslab.tls.protect import open_record
from ktlslab.tls.records import ContentType, RecordSplitter
from ktlslab.tls.suites import Suite, Version
from ktlslab.tls.unbuffered import State, UnbufferedConnection


def shake(port, config, *, host="localhost", io_engine="syscall", timeout=20.0):
    with connect(host, port, io_engine=io_engine, timeout=timeout) as connection:
        return handshake(connection, config)


@pytest.mark.parametrize("version", Version)
def test_openssls_own_server_agrees_in_both_versions_with_both_engines(
    s_server, certificates, version, io_engine, library
):
    port = s_server("-www")
    done = shake(port, certificates.config(versions=(version,), library=library), io_engine=io_engine)
    assert done.version is version
    assert done.suite.version is version
    assert done.machine.state is State.WRITE_TRAFFIC
    assert done.machine.transcript[0][0] == "sent"


def test_the_suite_that_the_server_insists_on_is_the_one_that_is_named(s_server, certificates, suite):
    every = certificates.config(suites=tuple(Suite))  # by itself OpenSSL does not offer TLS 1.2's AES-CCM
    done = shake(s_server("-www", suite=suite), every)
    assert (done.suite, done.suite_name, done.version) == (suite, suite.name, suite.version)


def test_the_suite_that_the_client_insists_on_is_the_one_that_is_named(tls_peer, certificates, suite):
    # A server of OpenSSL's defaults would choose another; AES-CCM it has to be told of.
    port = tls_peer(lambda *_: None, suite=suite if "CCM" in suite.name else None).port
    assert shake(port, certificates.config(suites=(suite,))).suite is suite


BAD_CERTIFICATES = [
    ("expired", r"the certificate has expired\. The server's operator must renew"),
    ("future", r"the certificate is not valid yet\. Check this machine's clock"),
    ("self-signed", r"(the certificate is self-signed\. Trust it|the certificate is an authority's, not a server's\.)"),
    ("stranger", r"(the issuer is not trusted\. Name the authority|ends in a self-signed certificate.*ca=FILE)"),
    ("wrong-name", r"the certificate is not for 'localhost'\. It is for elsewhere.example: connect"),
]


@pytest.mark.parametrize(("certificate", "words"), BAD_CERTIFICATES, ids=[name for name, _ in BAD_CERTIFICATES])
@pytest.mark.parametrize("version", Version)
def test_a_certificate_that_is_not_to_be_trusted_ends_it(  # noqa: PLR0917 - fixtures
    s_server, certificates, certificate, words, version, library
):
    port = s_server("-www", certificate=certificate)
    with pytest.raises(CertificateError, match=rf"TLS handshake with localhost at localhost:{port}: {words}"):
        shake(port, certificates.config(versions=(version,), library=library))


@pytest.mark.parametrize("certificate", [name for name, _ in BAD_CERTIFICATES])
def test_without_verification_any_certificate_does(s_server, certificates, certificate, library):
    port = s_server("-www", certificate=certificate)
    assert shake(port, certificates.config(verify=False, library=library)).suite


def test_a_refused_certificate_is_told_to_the_server(tcp_peer, certificates, library):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server("expired"))

    def serve(sock):
        with pytest.raises(ssl.SSLError) as caught:
            context.wrap_socket(sock, server_side=True).recv(1)
        return caught.value.reason

    peer = tcp_peer(serve)
    with pytest.raises(CertificateError):
        shake(peer.port, certificates.config(library=library))
    assert "CERTIFICATE_EXPIRED" in peer.join().upper()


def test_a_wrong_name_is_found_before_anything_is_sent_under_the_new_keys(tcp_peer, certificates, library):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server("wrong-name"))

    def serve(sock):
        with pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(sock, server_side=True)

    peer = tcp_peer(serve)
    with pytest.raises(CertificateError, match="not for 'localhost'"):
        shake(peer.port, certificates.config(versions=(Version.TLS13,), library=library))
    peer.join()


def test_an_untrusted_authority_is_named_as_the_thing_to_give(s_server, library):
    with pytest.raises(CertificateError, match="ca=FILE"):
        shake(s_server("-www"), ClientConfig(library=library))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_may_stand_in_a_certificate(certificates, host, library):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server("good"))
    accepted = []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        with connect(host, port, io_engine="syscall") as connection:
            sock, _ = listener.accept()
            thread = threading.Thread(target=lambda: accepted.append(context.wrap_socket(sock, server_side=True)))
            thread.start()
            assert handshake(connection, certificates.config(library=library)).server_name == host
            thread.join(20)
            accepted[0].close()


def test_an_address_that_the_certificate_lacks_is_refused(s_server, certificates, library):
    port = s_server("-www", certificate="wrong-name")
    with pytest.raises(CertificateError, match=r"not for '127\.0\.0\.1'"):
        shake(port, certificates.config(library=library), host="127.0.0.1")


def test_the_server_name_may_differ_from_the_host(s_server, certificates, library):
    port = s_server("-www", certificate="wrong-name")
    done = shake(port, certificates.config(server_name="elsewhere.example", library=library))
    assert done.server_name == "elsewhere.example"


def test_alpn_is_agreed_on(s_server, certificates, library):
    port = s_server("-www", "-alpn", "http/1.1")
    assert shake(port, certificates.config(alpn=("h2", "http/1.1"), library=library)).alpn == "http/1.1"
    assert shake(port, certificates.config(library=library)).alpn is None


# Servers that do not play along


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", bytes(64)])
def test_a_server_that_speaks_no_tls_is_found_out(tcp_peer, io_engine, answer, library):
    peer = tcp_peer(lambda sock: sock.sendall(answer))
    with pytest.raises(NotTlsError, match=r"the answer is not a TLS record .* Is this a TLS port\?"):
        shake(peer.port, ClientConfig(library=library), io_engine=io_engine)


def test_a_server_that_says_nothing_is_a_time_out(tcp_peer, io_engine, library):
    peer = tcp_peer(lambda sock: [sock.recv(1 << 16) for _ in range(2)])
    started = time.monotonic()
    with pytest.raises(PeerTimeoutError, match=r"no answer within 0\.3 s\. Does the port speak TLS"):
        shake(peer.port, ClientConfig(library=library), io_engine=io_engine, timeout=0.3)
    assert time.monotonic() - started < 10


def test_a_server_that_stops_in_the_middle_of_a_record_is_a_time_out(tcp_peer, io_engine, library):
    peer = tcp_peer(lambda sock: (sock.sendall(b"\x16\x03\x03\x01\x00half"), [sock.recv(1 << 16) for _ in range(2)]))
    with pytest.raises(PeerTimeoutError, match="no answer within"):
        shake(peer.port, ClientConfig(library=library), io_engine=io_engine, timeout=0.3)


def test_a_server_that_closes_at_once_is_a_failed_handshake(tcp_peer, io_engine, library):
    peer = tcp_peer(lambda sock: sock.recv(1 << 16))
    with pytest.raises(HandshakeError, match=r"(closed the connection|ECONNRESET).* version and suite\?"):
        shake(peer.port, ClientConfig(library=library), io_engine=io_engine)


def test_no_common_suite_is_the_servers_alert_by_name(s_server, certificates):
    port = s_server("-www", suite=Suite.TLS_AES_256_GCM_SHA384)
    config = certificates.config(suites=(Suite.TLS_AES_128_GCM_SHA256,))
    with pytest.raises(HandshakeError, match=r"alert fatal handshake_failure\. Try other versions or suites"):
        shake(port, config)


def test_no_common_version_is_the_servers_alert_by_name(s_server, certificates, library):
    with pytest.raises(HandshakeError, match="alert fatal protocol_version"):
        shake(s_server("-www", "-tls1_3"), certificates.config(versions=(Version.TLS12,), library=library))


def test_garbage_in_a_well_formed_record_is_a_failed_handshake(tcp_peer, library):
    garbage = b"\x16\x03\x03\x00\x10" + b"\xff\x00\x00\x0c" + bytes(12)  # a message of type 255
    peer = tcp_peer(lambda sock: (sock.recv(1 << 16), sock.sendall(garbage), sock.recv(9)))
    with pytest.raises(HandshakeError, match="Try other versions or suites"):
        shake(peer.port, ClientConfig(library=library))


@pytest.mark.parametrize("name", [b"\xff\xfe.example", b"xn--a"])
def test_a_server_takes_whatever_a_client_calls_it(certificates, name):
    def greet(port):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        with socket.create_connection(("localhost", port)) as sock:
            client = SSL.Connection(context, sock)
            client.set_tlsext_host_name(name)
            client.set_connect_state()
            client.do_handshake()

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        greeting = pool.submit(greet, listener.getsockname()[1])
        with accept(listener, io_engine="syscall", timeout=20.0) as connection:
            finished = handshake(connection, ServerConfig(certificate=certificates.server("good")))
        greeting.result()
    assert finished.server_name.encode().decode("unicode-escape").encode("latin-1") == name


def test_a_name_that_cannot_be_sent_is_a_usage_error(tcp_peer, certificates, library):
    with pytest.raises(UsageError, match=r"asking for the server 'a\.\.b'"):
        shake(tcp_peer(lambda _: None).port, replace(certificates.config(library=library), server_name="a..b"))


def test_an_offer_of_nothing_is_a_usage_error(tcp_peer, certificates):
    peer = tcp_peer(lambda _: None)
    config = certificates.config(versions=(Version.TLS12,), suites=(Suite.TLS_AES_128_GCM_SHA256,))
    with pytest.raises(UsageError, match="no version is left"):
        shake(peer.port, config)


def test_a_ca_file_that_holds_no_certificate_is_a_usage_error(tcp_peer, certificates, tmp_path, library):
    (tmp_path / "empty.pem").write_text("nothing")
    for missing in (tmp_path / "empty.pem", tmp_path / "absent.pem"):
        with pytest.raises(UsageError, match=r"Give a PEM file"):
            shake(tcp_peer(lambda _: None).port, replace(certificates.config(library=library), ca=missing))


# Not one byte past its end


def test_what_the_server_sends_next_is_still_in_the_socket_and_counted_right(tls_pair, suite, io_engine, library):
    pair = tls_pair(suite=suite, io_engine=io_engine, first=b"already here", library=library)
    assert pair.handshake.machine.library.pending() == 0
    keys = pair.handshake.secrets
    assert keys
    assert pair.handshake.machine.sequence_numbers == ((1, 1) if suite.version is Version.TLS12 else (0, 0))
    from ktlslab.stages import export

    rx = export(pair.handshake).rx
    sequence, kinds, data = rx.sequence, [], b""
    while data != b"already here":
        header = bytes(pair.connection.socket.recv(5, socket.MSG_WAITALL))
        record = header + pair.connection.socket.recv(int.from_bytes(header[3:], "big"), socket.MSG_WAITALL)
        kind, plain = open_record(suite, rx.key.reveal(), rx.write_iv.reveal(), sequence, record)
        sequence += 1
        kinds.append(kind)
        data += plain if kind == ContentType.APPLICATION_DATA else b""
    assert set(kinds[:-1]) == ({ContentType.HANDSHAKE} if suite.version is Version.TLS13 else set())


def test_it_shows_itself_without_secrets(tls_pair):
    shaken = tls_pair(suite=Suite.TLS_AES_128_GCM_SHA256).handshake
    shown = repr(shaken) + shaken._repr_html_()
    assert "TLS 1.3" in shown
    assert "TLS_AES_128_GCM_SHA256" in shown
    assert shaken.secrets
    for line in shaken.secrets.values():
        assert line.secret.hex() not in shown
        assert repr(line.secret) not in shown


def test_a_server_that_sends_byte_by_byte_is_given_up_when_the_time_is_over(certificates, io_engine, library):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def drip():
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                for byte in b"\x16\x03\x03\x40\x00" + bytes(1 << 14):
                    sock.sendall(bytes([byte]))
                    if over.wait(0.05):
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            connection = connect(*listener.getsockname(), io_engine=io_engine, timeout=0.5)
            with connection, pytest.raises(PeerTimeoutError, match=r"no answer within 0\.5 s"):
                handshake(connection, certificates.config(library=library))
        finally:
            over.set()
            thread.join()


def test_the_alert_of_a_server_that_is_gone_before_it_has_everything_is_named(
    tcp_peer, certificates, io_engine, library
):
    """The reset that follows makes the client's next send fail, with the alert unread in its receive queue."""
    config = ServerConfig(certificate=certificates.server("good"), versions=(Version.TLS12,))

    def reject(sock):
        machine, hello = UnbufferedConnection(OpenSsl.server(config), server=True), RecordSplitter()
        hello.feed(sock.recv(1 << 16))
        machine.feed(hello.next().raw)
        handshake_failure = bytes([ContentType.ALERT, 3, 3, 0, 2, AlertLevel.FATAL, AlertDescription.HANDSHAKE_FAILURE])
        sock.sendall(machine.encode() + handshake_failure)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    asked = certificates.config(versions=(Version.TLS12,), library=library)
    with pytest.raises(HandshakeError, match="the peer sent the alert fatal handshake_failure"):
        shake(tcp_peer(reject).port, asked, io_engine=io_engine)
