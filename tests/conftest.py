"""Fixtures for all tests: certificates made at run time, and real peers on loopback.

Few imports on purpose: tests/kernel runs in emulated guests, where every import is slow.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from handpeer import HandPeers
from OpenSSL import SSL

from ktlslab.stages import ClientConfig, Connection, Handshake, connect, handshake
from ktlslab.tls.libraries import RUSTLS_SUITES
from ktlslab.tls.suites import CIPHERS, Suite, Version

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = "127.0.0.1"
PATIENCE = 60.0  # an emulated machine is slow; every wait still ends
# One suite for each version and cipher; always ECDSA, whose keys are fast to make.
SUITES = tuple(
    next(s for s in Suite if s.version is version and s.cipher is cipher and "_RSA_" not in s.name)
    for version in Version
    for cipher in CIPHERS
)
# What a shell starts in the background ignores Ctrl+C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc):
    """Parametrize `suite` with each cipher in each version, `io_engine` with both engines, `library` with both."""
    given = {name for mark in metafunc.definition.iter_markers("parametrize") for name in _names(mark.args[0])}
    wanted = set(metafunc.fixturenames) - given
    if {"suite", "library"} <= wanted:
        both = [("openssl", s) for s in SUITES] + [("rustls", s) for s in SUITES if s in RUSTLS_SUITES]
        ids = [f"{library}-{s.version.label}-{s.cipher.name}" for library, s in both]
        metafunc.parametrize(("library", "suite"), both, ids=ids)
        wanted -= {"suite", "library"}
    if "suite" in wanted:
        metafunc.parametrize("suite", SUITES, ids=[f"{s.version.label}-{s.cipher.name}" for s in SUITES])
    if "io_engine" in wanted:
        metafunc.parametrize("io_engine", ["syscall", "uring"])
    if "library" in wanted:
        metafunc.parametrize("library", ["openssl", "rustls"])


def _names(names):
    return names.replace(" ", "").split(",") if isinstance(names, str) else names


# Certificates


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """PEM files: `ca` is what clients trust; `server(name)` holds a server's key and chain."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def server(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def config(self, **options) -> ClientConfig:
        return ClientConfig(ca=self.ca, **options)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """good, wrong-name, expired, future, stranger (of another authority), self-signed."""
    made = Certificates(folder=tmp_path_factory.mktemp("certificates"))
    key_type = trustme.KeyType.ECDSA
    authority, other = trustme.CA(key_type=key_type), trustme.CA(key_type=key_type)
    authority.cert_pem.write_to_path(made.ca)
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    here = ("localhost", LOOPBACK, "::1")
    leaves = {
        "good": authority.issue_cert(*here, key_type=key_type),
        "wrong-name": authority.issue_cert("elsewhere.example", key_type=key_type),
        "expired": authority.issue_cert(*here, key_type=key_type, not_before=now - 9 * day, not_after=now - day),
        "future": authority.issue_cert(*here, key_type=key_type, not_before=now + day, not_after=now + 9 * day),
        "stranger": other.issue_cert(*here, key_type=key_type),
    }
    for name, leaf in leaves.items():
        leaf.private_key_and_cert_chain_pem.write_to_path(made.server(name))
    pem = made.server("self-signed")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    words += f" -addext subjectAltName=DNS:localhost -keyout {pem} -out {pem}.crt"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    pem.write_bytes(pem.read_bytes() + Path(f"{pem}.crt").read_bytes())
    return made


# Peers in a thread


class Peer:
    """A server on loopback that hands each connection it accepts to `script`, in a thread.

    `results` holds what the scripts returned. If one raises, the test fails, at the latest when the peer is closed.
    """

    def __init__(self, script, connections=1):
        self.listener = socket.create_server((LOOPBACK, 0))
        self.listener.settimeout(PATIENCE)
        self.port = self.listener.getsockname()[1]
        self.results = []
        self._script, self._connections = script, connections
        self._error = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        try:
            for _ in range(self._connections):
                try:
                    sock, _ = self.listener.accept()
                except OSError:  # no client connected before the end of the test
                    return
                sock.settimeout(PATIENCE)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with sock:
                    self.results.append(self._script(sock))
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            self._error = error

    def join(self):
        """Wait for the scripts to end and return the first one's result."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the peer did not come to its end"
        if self._error:
            raise self._error
        return self.results[0] if self.results else None

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wake up accept
        self.listener.close()
        self.join()


@pytest.fixture
def tcp_peer():
    """tcp_peer(script, connections=1) -> Peer; script(socket) runs in a thread."""
    with contextlib.ExitStack() as peers:

        def start(script, connections=1):
            peer = Peer(script, connections)
            peers.callback(peer.close)
            return peer

        yield start


def server_context(pem, suite=None, ciphers=None):
    """Make an OpenSSL server that accepts one suite (or the TLS 1.2 suites in `ciphers`), or all."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(str(pem))
    context.use_privatekey_file(str(pem))
    if suite is not None and suite.version is Version.TLS13:
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(suite.openssl_name.encode())
    elif suite is not None or ciphers is not None:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list((ciphers or suite.openssl_name).encode())
    return context


def accept_tls(context, sock):
    """Do the server's handshake over a blocking socket."""
    sock.settimeout(None)  # pyOpenSSL over a socket with a Python time-out would have to be retried
    tls = SSL.Connection(context, sock)
    tls.set_accept_state()
    tls.do_handshake()
    return tls


@pytest.fixture
def tls_peer(tcp_peer, certificates):
    """tls_peer(script, suite=..., certificate=...) -> Peer; script(tls, socket) runs after the handshake."""

    def start(script, *, suite=None, ciphers=None, certificate="good", connections=1):
        context = server_context(certificates.server(certificate), suite, ciphers)
        return tcp_peer(lambda sock: script(accept_tls(context, sock), sock), connections)

    return start


def send_close_notify(tls):
    """End the peer's direction, if the client still listens: it may close without waiting for that."""
    with contextlib.suppress(SSL.SysCallError):
        tls.shutdown()


def echo(tls, _sock):
    """Echo until the client sends close_notify, and answer that. Return the number of bytes."""
    count = 0
    while True:
        try:
            data = tls.recv(1 << 16)
        except SSL.ZeroReturnError:
            send_close_notify(tls)
            return count
        count += len(data)
        tls.sendall(data)


@pytest.fixture
def tls_echo(tls_peer):
    """tls_echo(suite=...) -> port of a TLS server that echoes."""
    return lambda **options: tls_peer(echo, **options).port


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A connection after its handshake, and the peer's end: `tls` is OpenSSL's connection over the socket `sock`."""

    handshake: Handshake
    tls: SSL.Connection
    sock: socket.socket

    @property
    def connection(self) -> Connection:
        return self.handshake.connection

    def close_peer(self):
        """Close the peer's TCP connection without close_notify."""
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def read_record(self) -> bytes:
        """Return one record as the peer receives it."""
        header = self.sock.recv(5, socket.MSG_WAITALL)
        return header + self.sock.recv(int.from_bytes(header[3:], "big"), socket.MSG_WAITALL)


@pytest.fixture
def tls_pair(certificates):
    """tls_pair(suite=..., io_engine=..., first=b"...", library=...) -> Pair, whose handshake is the client's.

    The server sends `first` right after its handshake.
    """
    with contextlib.ExitStack() as ends:

        def make(*, suite=None, ciphers=None, io_engine="syscall", first=b"", timeout=PATIENCE, library="openssl"):
            accepted = []

            def serve(sock):
                sock = sock.dup()
                ends.callback(sock.close)
                tls = accept_tls(context, sock)
                if first:
                    tls.sendall(first)
                accepted.append((tls, sock))

            context = server_context(certificates.server("good"), suite, ciphers)
            peer = Peer(serve)
            ends.callback(peer.close)
            connection = ends.enter_context(connect("localhost", peer.port, io_engine=io_engine, timeout=timeout))
            # OpenSSL offers AES-CCM for TLS 1.2 only on request; rustls always offers all suites of TLS 1.3.
            suites = (suite,) if suite and library == "openssl" else None
            finished = handshake(connection, certificates.config(suites=suites, library=library))
            peer.join()
            tls, sock = accepted[0]
            return Pair(handshake=finished, tls=tls, sock=sock)

        yield make


@pytest.fixture
def plain_pair():
    """plain_pair(io_engine=...) -> (connection, socket): the two ends of a TCP connection without a handshake."""
    with contextlib.ExitStack() as ends:

        def make(*, io_engine="syscall", timeout=PATIENCE):
            with socket.create_server((LOOPBACK, 0)) as listener:
                connection = ends.enter_context(connect(*listener.getsockname(), io_engine=io_engine, timeout=timeout))
                return connection, ends.enter_context(listener.accept()[0])

        yield make


@pytest.fixture
def hand_peers():
    """hand_peers.open(layer, engine, role) -> (stream, peer): see tests/handpeer.py."""
    with HandPeers() as peers:
        yield peers


# Peers in a process


@contextlib.contextmanager
def running(argv, **options):
    """Start a process and end it, by its id, after the test."""
    with subprocess.Popen(argv, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture
def s_server(certificates, tmp_path):
    """s_server(*options, certificate=..., suite=...) -> port of `openssl s_server`; with -HTTP it serves tmp_path."""
    with contextlib.ExitStack() as servers:

        def start(*options, certificate="good", suite=None):
            argv = ["openssl", "s_server", "-accept", f"{LOOPBACK}:0", "-cert", str(certificates.server(certificate))]
            argv += ["-cert_chain", str(certificates.server(certificate))]
            argv += ["-key", str(certificates.server(certificate)), *options]
            if suite is not None:
                tls13 = suite.version is Version.TLS13
                argv += ["-tls1_3", "-ciphersuites"] if tls13 else ["-tls1_2", "-cipher"]
                argv.append(suite.openssl_name)
            process = servers.enter_context(
                running(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path)
            )
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith(b"ACCEPT "):
                    return int(line.rpartition(b":")[2])
            pytest.fail(f"s_server did not start: {b''.join(said).decode()}")

        yield start


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr; {user}
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen {address}:{port} ssl{http2}; root {folder}/www; ssl_certificate {pem}; ssl_certificate_key {pem};
    ssl_protocols {protocols}; {more}
  }}
}}
"""


@pytest.fixture
def nginx(certificates, tmp_path):
    """nginx(files, version=..., http2=..., more=...) -> port of an nginx that serves these files, name -> bytes."""
    with contextlib.ExitStack() as servers:

        def start(files, version=None, *, http2=False, more=""):
            folder = tmp_path / "nginx"
            (folder / "www").mkdir(parents=True)
            for name, content in files.items():
                (folder / "www" / name).write_bytes(content)
            with socket.create_server((LOOPBACK, 0)) as free:
                port = free.getsockname()[1]
            labels = {Version.TLS12: "TLSv1.2", Version.TLS13: "TLSv1.3"}
            text = NGINX.format(
                folder=folder,
                user="user root;" if os.geteuid() == 0 else "",
                address=LOOPBACK,
                port=port,
                http2=" http2" if http2 else "",
                pem=certificates.server("good"),
                protocols=labels[version] if version else " ".join(labels.values()),
                more=more,
            )
            (folder / "nginx.conf").write_text(text)
            path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
            argv = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
            with (folder / "log").open("wb") as log:
                process = servers.enter_context(
                    running(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PATH": path})
                )
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection((LOOPBACK, port)):
                    return port
                time.sleep(0.05)
            pytest.fail(f"nginx did not start: {(folder / 'log').read_text()}")

        yield start


@pytest.fixture(scope="session")
def httpbin(tmp_path_factory):
    """httpbin(*options) -> port of httpbin, which gunicorn serves with these options: one server for each."""
    ports = {}
    with contextlib.ExitStack() as servers:

        def start(*options):
            if options in ports:
                return ports[options]
            with socket.create_server((LOOPBACK, 0)) as free:
                port = free.getsockname()[1]
            log = tmp_path_factory.mktemp("httpbin") / "log"
            argv = [sys.executable, "-m", "gunicorn", "httpbin:app", "--bind", f"{LOOPBACK}:{port}", "--threads", "4"]
            argv += ["--graceful-timeout", "1", "--log-file", str(log), *options]
            process = servers.enter_context(running(argv, stdin=subprocess.DEVNULL))
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection((LOOPBACK, port)).close()
                    return ports.setdefault(options, port)
                time.sleep(0.05)
            pytest.fail(f"httpbin did not start: {log.read_text()}")

        yield start


@pytest.fixture
def debug_allocator():
    """debug_allocator(module, *arguments) -> what it printed, run in a process that checks each piece of memory."""

    def run(module, *arguments):
        argv = [sys.executable, "-X", "dev", "-m", module, *map(str, arguments)]
        environment = {**os.environ, "PYTHONMALLOC": "debug", "MALLOC_PERTURB_": "165", "MALLOC_CHECK_": "3"}
        done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"status {done.returncode}: {done.stdout}{done.stderr}"
        assert "Exception ignored" not in done.stderr, done.stderr
        return done.stdout

    return run


@pytest.fixture
def fork():
    """os.fork, without Python's warning of other threads: peers run in some."""

    def quietly():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return os.fork()

    return quietly


@pytest.fixture
def forked(fork):
    """forked(action) -> "result" or "Error: message" of the action in a forked process, which then ends at once."""

    def run(action):
        reading, writing = os.pipe()
        child = fork()
        if not child:
            try:
                said = str(action())
            except BaseException as error:  # noqa: BLE001 - shown by the parent
                said = f"{type(error).__name__}: {error}"
            os.write(writing, said.encode())
            os._exit(0)
        os.close(writing)
        try:
            assert select.select([reading], [], [], PATIENCE)[0], "the forked process did not come to its end"
            return os.read(reading, 1 << 16).decode()
        finally:
            os.close(reading)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    return run


@pytest.fixture
def unread():
    """unread(socket) -> number of bytes that can be read from it."""

    def count(sock):
        return len(sock.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT))

    return count


@pytest.fixture
def full_listener():
    """Return the address of a listener whose queue is full, so that it drops further SYNs."""
    with socket.create_server((LOOPBACK, 0), backlog=0) as listener, socket.socket() as first:
        first.connect(listener.getsockname())
        yield listener.getsockname()
