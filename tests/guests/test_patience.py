"""The time of a guest that counts instructions leaps while it waits for its host: a time-out asks the host's time.

The host's network stands for all that a guest idly waits for, such as its disk: here the host can be as late as wanted.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time

import pytest

from ktlslab.guests import boot

LATE_S = 0.7  # how late the host does what the guest waits for, in the host's time
TIMEOUT_S = 2.0  # of every wait; the guest's time leaps by that within a few ms
ENGINES = ("syscall", "uring")
LATE = [(case, engine) for case in ("client late", "answer late", "server late") for engine in ENGINES]
LATE += [("relay late", "")]
NEVER = [(case, engine) for case in ("no client", "no answer", "no server") for engine in ENGINES]

GUEST = """
import json, socket, sys, threading, time
from pathlib import Path
from ktlslab.relay import Relay
from ktlslab.stages import accept, connect, handshake

host, silent, port = map(int, sys.argv[1:4])
timeout = float(sys.argv[4])
listener = socket.create_server(("", port))

def late(word):
    with socket.create_connection(("10.0.2.2", host)) as sock:
        sock.sendall(word)
        sock.recv(1)

def accepted():
    accept(listener, io_engine=engine, timeout=timeout).close()

def shaken(port):
    with connect("10.0.2.2", port, io_engine=engine, timeout=timeout) as connection:
        handshake(connection)

def connected(then):
    '''Connect to a server that has accepted nobody yet: one connection waits, and its queue has no room for more.'''
    def serve():
        then()
        full.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        threading.Thread(target=serve, daemon=True).start()
        connect(*full.getsockname(), io_engine=engine, timeout=timeout).close()

def tell(case, call, *arguments):
    date = Path("/sys/class/rtc/rtc0/since_epoch")
    seconds, own = int(date.read_text()), time.monotonic()
    try:
        said = call(*arguments)
    except Exception as error:
        said = type(error).__name__
    print(json.dumps([case, engine, said, int(date.read_text()) - seconds, time.monotonic() - own]), flush=True)

for engine in "syscall", "uring":
    threading.Thread(target=late, args=[b"visit"]).start()
    tell("client late", accepted)
    tell("answer late", shaken, host)
    tell("server late", connected, lambda: late(b"wait"))
    tell("no client", accepted)
    tell("no answer", shaken, silent)
    tell("no server", connected, threading.Event().wait)

def relay():
    wait = f"import socket; s = socket.create_connection(('10.0.2.2', {host})); s.send(b'wait'); s.recv(1)"
    slow = Path("/tmp/slow-python")
    slow.write_text(f'#!/bin/sh\\n{sys.executable} -c "{wait}"\\nexec {sys.executable} "$@"\\n')
    slow.chmod(0o755)
    sys.executable = str(slow)
    Relay(("127.0.0.1", 1)).close()

engine = ""
tell("relay late", relay)
"""


def serve(listener, port):
    """Answer in clear text, but late; visit the guest's port if asked to."""
    with contextlib.suppress(OSError):  # the listener is closed
        while True:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(ConnectionError):  # a guest that gave up
                word = sock.recv(5)
                time.sleep(LATE_S)
                if word == b"visit":
                    socket.create_connection(("127.0.0.1", port)).close()
                sock.sendall(b"no TLS here")


@pytest.fixture(scope="module")
def told(newest):
    """Return what each case ended with: {(case, engine): [error or None, seconds of the host, of the guest]}."""
    with socket.create_server(("127.0.0.1", 0)) as late, socket.create_server(("127.0.0.1", 0)) as silent:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        threading.Thread(target=serve, args=(late, port), daemon=True).start()
        numbers = [late.getsockname()[1], silent.getsockname()[1], port, TIMEOUT_S]
        argv = [sys.executable, "-c", GUEST, *map(str, numbers)]
        with boot(newest, argv, clock="instructions", outbound=True, forwards=[port]) as guest:
            done = guest.wait(120)
    assert done.returncode == 0, done.stderr.decode()
    return {(case, engine): rest for case, engine, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize(("case", "engine"), LATE)
def test_a_late_peer_is_waited_for_though_the_guests_time_leaps(told, case, engine):
    error, _, guest_s = told[case, engine]
    assert error == ("NotTlsError" if case == "answer late" else None)
    assert guest_s > TIMEOUT_S, "no time-out expired, so nothing was tried"


@pytest.mark.parametrize(("case", "engine"), NEVER)
def test_a_peer_that_never_comes_is_given_up_by_the_hosts_time(told, case, engine):
    error, host_s, _ = told[case, engine]
    assert error == "PeerTimeoutError"
    assert TIMEOUT_S <= host_s <= 2 * TIMEOUT_S + 2
