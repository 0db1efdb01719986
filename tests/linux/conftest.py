"""A connected pair of sockets, and signals that interrupt."""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from ktlslab.linux.ring import Ring


@pytest.fixture
def pair():
    """Both ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        theirs.settimeout(20)
        yield ours, theirs


@pytest.fixture
def ring():
    with Ring() as ring:
        yield ring


@pytest.fixture
def pattern():
    """pattern(size) -> bytes that differ from place to place."""
    return lambda size: (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.fixture
def later():
    """later(seconds, action) runs the action in another thread; what it raises fails the test."""
    threads, errors = [], []

    def start(seconds, action, *args):
        def act():
            try:
                action(*args)
            except BaseException as error:  # noqa: BLE001 - shown below
                errors.append(error)

        threads.append(threading.Timer(seconds, act))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(30)
    assert errors == []


IO_URING_ENTER = 426  # the system call's number


@pytest.fixture
def once_waiting(later):
    """once_waiting(action, *args) runs the action in another thread when the test's own waits inside a ring."""
    state = Path(f"/proc/self/task/{threading.get_native_id()}/syscall")

    def start(action, *args):
        def act():
            deadline = time.monotonic() + 20
            while not state.read_text().startswith(f"{IO_URING_ENTER} "):
                assert time.monotonic() < deadline, "no one waits"
                time.sleep(0.005)
            action(*args)

        later(0, act)

    return start


class InterruptedBySignalError(Exception):
    """What the signal's handler raises."""


@pytest.fixture
def raising_signal():
    """Give a signal, SIGUSR1, whose handler raises `raising_signal.error`."""

    def handle(_number, _frame):
        raise InterruptedBySignalError

    before = signal.signal(signal.SIGUSR1, handle)
    handle.number, handle.error = signal.SIGUSR1, InterruptedBySignalError
    yield handle
    signal.signal(signal.SIGUSR1, before)
