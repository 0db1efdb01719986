"""A link does to real traffic what it is asked to, kernel TLS survives it, and nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ktlslab.certificates import make_certificates
from ktlslab.errors import MachineError
from ktlslab.measure.link import Link, lay
from ktlslab.session import open_session
from ktlslab.stages import ClientConfig

HERE = Path("/proc/thread-self/ns/net")
BOUND = 60.0
ECHO = """
import socket, ssl, sys
address, *pem = sys.argv[1:]
with socket.create_server((address, 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
if pem:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pem)
    connection = context.wrap_socket(connection, server_side=True)
while data := connection.recv(65536):
    connection.sendall(data)
"""


@contextlib.contextmanager
def echo(ends, *pem):
    """Run an echo server at the far end, and give its port."""
    argv = [*ends.prefix, sys.executable, "-c", ECHO, ends.address, *map(str, pem)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextlib.contextmanager
def connected(text):
    """Give a connection over a link."""
    with lay(Link.parse(text)) as ends, echo(ends) as port:
        with ends.near():
            sock = socket.create_connection((ends.address, port), BOUND)
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield sock


def round_trips(sock, count=8):
    for _ in range(count):
        start = time.perf_counter()
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        yield time.perf_counter() - start


def there_and_back(send, recv, data):
    """Send while receiving, so that neither end's buffers fill up; return what came back."""
    thread = threading.Thread(target=send, args=(data,))
    thread.start()
    got = bytearray()
    while len(got) < len(data):
        part = recv()
        assert part
        got += part
    thread.join(BOUND)
    return got


def tcp_info(sock):
    """Retransmitted segments (tcpi_total_retrans) and segments sent (tcpi_segs_out), of linux/tcp.h."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("=I", info, 100)[0], struct.unpack_from("=I", info, 136)[0]


def devices(process="thread-self"):
    lines = Path(f"/proc/{process}/net/dev").read_text().splitlines()[2:]
    return {line.partition(":")[0].strip(): line.split() for line in lines}


def test_a_veth_carries_traffic_between_two_namespaces_and_the_host_has_no_part_in_it():
    before, home = devices(), HERE.readlink()
    with lay(Link.parse("veth")) as ends, echo(ends) as port:
        assert HERE.readlink() == home
        assert set(devices()) == set(before)
        with ends.near():
            assert HERE.readlink() != home
            assert set(devices()) == {"lo", "veth"}
            sock = socket.create_connection((ends.address, port), BOUND)
        assert HERE.readlink() == home
        with sock:
            sock.settimeout(BOUND)
            data = os.urandom(1 << 18)
            assert there_and_back(sock.sendall, lambda: sock.recv(1 << 16), data) == data
            with ends.near():
                sent, packets = map(int, devices()["veth"][9:11])
                assert sent > len(data)
                assert packets < tcp_info(sock)[1] / 2  # it takes many segments at once
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), BOUND)
    assert devices()["lo"][9] == before["lo"][9]


def test_the_thread_comes_home_whatever_happened_there():
    home = HERE.readlink()
    with lay(Link.parse("veth")) as ends:
        with pytest.raises(KeyError), ends.near():
            raise KeyError
        assert HERE.readlink() == home


def test_a_delay_is_in_every_round_trip_once_each_way():
    with connected("veth 50ms") as sock:
        assert 0.100 <= min(round_trips(sock)) < 0.150


def test_what_is_lost_is_sent_again_one_packet_at_a_time():
    data = os.urandom(1 << 19)
    with connected("veth 4%") as sock:
        assert there_and_back(sock.sendall, lambda: sock.recv(1 << 16), data) == data
        again, sent = tcp_info(sock)
    assert sent > len(data) / 1500
    # Of 360 segments 4 in 100, and a few that were only thought lost.
    assert 2 <= again < sent / 4


def test_kernel_tls_is_verified_and_loses_nothing_where_packets_are_lost(tmp_path, io_engine):
    data = os.urandom(300_000)
    with lay(Link.parse("veth 1ms 3%")) as ends:
        made = make_certificates(tmp_path, ends.address)
        with echo(ends, made.chain, made.key) as port:
            with ends.near():
                session = open_session(
                    ends.address,
                    port,
                    config=ClientConfig(ca=made.ca),
                    record_layer="kernel",
                    io_engine=io_engine,
                    timeout=BOUND,
                )
                counted = session.counters["TlsTxSw"]
            with session:
                assert (session.record_layer, counted) == ("kernel", 1)
                size, got = 20_000, bytearray(len(data))
                for at in range(0, len(data), size):
                    session.stream.send(data[at : at + size])
                    session.stream.recv_exactly_into(memoryview(got)[at : at + size])
                assert got == data


LAYER = """
import subprocess, sys
from ktlslab.linux.process import end_with_parent
from ktlslab.measure.link import Link, lay
PEER = "import os, sys; from ktlslab.linux.process import end_with_parent; end_with_parent(int(sys.argv[1]));"
PEER += "print(os.readlink('/proc/self/ns/net'), flush=True); sys.stdin.read()"
with lay(Link.parse("veth 1ms")) as ends:
    import os
    peer = subprocess.Popen([*ends.prefix, sys.executable, "-c", PEER, str(os.getpid())], stdin=subprocess.PIPE)
    with ends.near():
        print(os.readlink("/proc/thread-self/ns/net"), flush=True)
    sys.stdin.read()
"""


def holders(namespaces):
    """Whatever keeps one of these alive: a process, a descriptor, a mount."""
    found = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if any(n in line for n in namespaces)
    ]
    for link in [*Path("/proc").glob("[0-9]*/task/*/ns/net"), *Path("/proc").glob("[0-9]*/fd/*")]:
        with contextlib.suppress(OSError):
            if str(link.readlink()) in namespaces:
                found.append(str(link))
    return found


def test_a_kill_leaves_neither_namespace():
    argv = [sys.executable, "-c", LAYER]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        namespaces = {process.stdout.readline().strip() for _ in range(2)}
        assert len(namespaces) == 2
        assert holders(namespaces)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + BOUND
    while holders(namespaces) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert holders(namespaces) == []


def test_a_kernel_without_netem_says_so_and_what_to_do(tmp_path, monkeypatch):
    """As tc(8) answers where the kernel has no such module."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    tc = tmp_path / "tc"
    tc.write_text("#!/bin/sh\necho 'Error: Specified qdisc kind is unknown.' >&2\nexit 2\n")
    tc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said = r"qdisc kind is unknown\. This needs the kernel module sch_netem\..*--on newest"
    with pytest.raises(MachineError, match=said), lay(Link.parse("veth 1ms")):
        pytest.fail("it was laid")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
