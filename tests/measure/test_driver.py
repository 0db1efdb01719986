"""The clients of `serve`, driven directly: what they do on the wire does not depend on how many there are."""

import os
import socket
import struct
import subprocess
import sys

import pytest

from ktlslab.measure import driver, peer

REQUEST, RESPONSE, WAVES = 64, 1024, 20
SEGS_IN = 140  # tcpi_segs_in in struct tcp_info (linux/tcp.h)


@pytest.fixture
def clients():
    argv = [sys.executable, "-m", "ktlslab.measure.driver", "127.0.0.1", "", str(os.getpid())]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize("connections", [1, 6])
def test_each_response_is_acknowledged_by_a_segment_of_its_own(clients, connections):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients.stdin.write(driver.OPEN + driver.OPENING.pack(connections, listener.getsockname()[1], 0))
        served = [listener.accept()[0] for _ in range(connections)]
        assert clients.stdout.read(1) == peer.MARK
    clients.stdin.write(driver.ROUND + driver.WAVES.pack(REQUEST, RESPONSE, 1, 0, WAVES * connections))
    assert clients.stdout.read(1) == peer.MARK
    before = [segments(one) for one in served]
    clients.stdin.write(peer.MARK)
    for turn in driver.order(connections) * WAVES:
        assert len(served[turn].recv(REQUEST, socket.MSG_WAITALL)) == REQUEST
        served[turn].sendall(bytes(RESPONSE))
    clients.stdin.write(peer.MARK)
    clients.stdout.read(peer.REPORT.size)
    came = [segments(one) - was for one, was in zip(served, before, strict=True)]
    for one in served:
        one.close()
    assert came == [2 * WAVES] * connections  # a request, and an acknowledgement


def segments(sock):
    return struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), SEGS_IN)[0]
