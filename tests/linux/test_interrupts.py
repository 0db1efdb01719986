"""The machine's time in interrupts: from the pressure file where it moves, else from the ticks."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from ktlslab.linux import interrupts
from ktlslab.linux.interrupts import interrupt_time_ns, source

STAT = "cpu  2337077 663 203279 2687810 94421 7 15274 139541 0 0\ncpu0 1127369 313 96205 1369252 70832 0 6221 0 0 0\n"
PRESSURE = "full avg10=0.00 avg60=0.00 avg300=0.00 total={}\n"
BOUND = 30.0


@pytest.fixture
def files(tmp_path, monkeypatch):
    """files(name=text) puts kernel files where they are looked for; those not named are missing."""
    source.cache_clear()
    for name in ("PRESSURE", "STAT"):
        monkeypatch.setattr(interrupts, name, str(tmp_path / name))

    def put(**texts):
        for name, text in texts.items():
            (tmp_path / name).write_text(text)

    yield put
    if found := source():
        os.close(found.descriptor)
    source.cache_clear()


def test_the_pressure_file_tells_microseconds_and_is_read_anew_each_time(files):
    files(PRESSURE=PRESSURE.format(1234567), STAT=STAT)
    assert interrupt_time_ns() == 1_234_567_000
    files(PRESSURE=PRESSURE.format(1234569))
    assert interrupt_time_ns() == 1_234_569_000
    assert (source().resolution_ns, source().in_process_clocks) == (1000, False)


@pytest.mark.parametrize("pressure", [{}, {"PRESSURE": PRESSURE.format(0)}, {"PRESSURE": ""}])
def test_without_one_that_ever_moved_the_ticks_of_irq_and_softirq_are_added_up(files, pressure):
    files(STAT=STAT, **pressure)
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert interrupt_time_ns() == (7 + 15274) * tick
    assert (source().resolution_ns, source().in_process_clocks) == (tick, True)


def test_where_neither_is_there_it_is_not_told(files):
    files()
    assert interrupt_time_ns() is None


def test_it_never_falls_and_loopback_traffic_moves_it():
    """Loopback's receiving half is softirq; the ticks that it is sampled by take a while to meet it."""
    source.cache_clear()
    first = last = interrupt_time_ns()
    assert first is not None
    block = bytes(1 << 16)
    deadline = time.monotonic() + BOUND
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        with theirs:
            thread = threading.Thread(target=drain, args=(theirs,))
            thread.start()
            while last == first and time.monotonic() < deadline:
                ours.sendall(block)
                now = interrupt_time_ns()
                assert now >= last
                last = now
            ours.shutdown(socket.SHUT_WR)
            thread.join(BOUND)
    assert last > first


def drain(sock):
    room = bytearray(1 << 20)
    while sock.recv_into(room):
        pass
