"""From a name and a port to a connected socket, or to a sentence that says why not and what to do."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from ktlslab.errors import ConnectError, PeerTimeoutError, UnknownHostError, UsageError
from ktlslab.linux.ring import Ring
from ktlslab.stages import connect


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def open_descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir() if path.exists())


def test_a_connection_knows_both_ends_and_moves_bytes(tcp_peer, io_engine):
    peer = tcp_peer(lambda sock: (sock.getpeername(), sock.sendall(sock.recv(9))))
    with connect("localhost", peer.port, io_engine=io_engine) as connection:
        assert connection.peer == ("127.0.0.1", peer.port)
        assert connection.engine.name == io_engine
        assert connection.engine.send(connection.socket, b"bytes") == 5
        buffer = bytearray(9)
        assert connection.engine.recv_into(connection.socket, buffer) == 5
        assert peer.join()[0] == connection.local
        assert connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert f"Connection(localhost:{peer.port} at 127.0.0.1, fd " in repr(connection)
        assert str(peer.port) in connection._repr_html_()
    assert connection.socket.fileno() == -1
    assert "closed" in repr(connection)


def test_the_next_address_is_tried_where_the_first_refuses(tcp_peer, io_engine, monkeypatch):
    peer = tcp_peer(lambda _: None)
    both = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", peer.port, 0, 0))]
    both += socket.getaddrinfo("127.0.0.1", peer.port, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with connect("both.example", peer.port, io_engine=io_engine) as connection:
        assert connection.peer[0] == "127.0.0.1"


def test_ipv6_is_spoken(io_engine):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        with connect("::1", port, io_engine=io_engine) as connection:
            assert connection.peer[:2] == ("::1", port)


def test_an_unknown_name_is_an_error_that_names_it(io_engine):
    with pytest.raises(UnknownHostError, match=r"looking up 'name\.invalid': .+\. Check the spelling"):
        connect("name.invalid", 443, io_engine=io_engine)


@pytest.mark.parametrize("host", ["", "a..b", "x" * 64 + ".example", "\udcff"])
def test_a_name_that_cannot_be_one_is_an_unknown_host_and_no_crash(host):
    with pytest.raises((UnknownHostError, ConnectError)):
        connect(host, 1, io_engine="syscall")


def test_a_closed_port_is_refused_and_nothing_leaks(io_engine, closed_port):
    before = open_descriptors()
    with pytest.raises(ConnectError, match=rf"connecting to localhost:{closed_port}: ECONNREFUSED .*server listen"):
        connect("localhost", closed_port, io_engine=io_engine)
    assert open_descriptors() == before


def test_a_host_that_does_not_answer_is_a_time_out(io_engine, full_listener):
    before = open_descriptors()
    started = time.monotonic()
    with pytest.raises(PeerTimeoutError, match=r"no answer within 0\.3 s\. .*firewall"):
        connect(*full_listener, io_engine=io_engine, timeout=0.3)
    assert time.monotonic() - started < 10
    assert open_descriptors() == before


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range_is_a_usage_error(port):
    with pytest.raises(UsageError, match="1 to 65535"):
        connect("localhost", port)


def test_an_unknown_engine_is_a_usage_error():
    with pytest.raises(UsageError, match="one of auto, uring, syscall"):
        connect("localhost", 1, io_engine="epoll")


def test_a_lent_ring_is_used_and_left_open(tcp_peer):
    peer = tcp_peer(lambda sock: sock.recv(1))
    with Ring() as ring:
        with connect("localhost", peer.port, ring=ring) as connection:
            assert connection.engine.ring is ring
        assert not ring.closed


def test_an_address_that_is_slow_is_used_after_all_if_no_other_answers(monkeypatch, io_engine):
    """The first address answers TCP's second try, after a second; at the other nobody listens (RFC 8305)."""
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as first:
        address = listener.getsockname()
        first.connect(address)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(*kind, address), (*kind, ("127.0.0.1", 1))])

        def make_room():
            listener.accept()[0].close()

        threading.Timer(0.5, make_room).start()
        with connect("slow.example", 443, io_engine=io_engine, timeout=10.0) as connection:
            assert connection.peer == address
            connection.engine.send(connection.socket, b"hello")
            with listener.accept()[0] as accepted:
                assert accepted.recv(10) == b"hello"
