"""On every kernel that is measured, system calls are counted exactly, and time in interrupts moves with the traffic."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from ktlslab.linux import interrupts
from ktlslab.linux.operations import Operation
from ktlslab.linux.perf import count_syscalls
from ktlslab.linux.ring import transfer

pytestmark = pytest.mark.emulated  # they need a tracepoint


def test_each_system_call_counts_once():
    with count_syscalls() as found:
        for _ in range(100):
            os.getppid()
    assert found.count == 100
    with count_syscalls() as found:
        pass
    assert found.count == 0


def test_one_submission_is_one_system_call_whatever_it_holds(ring):
    def cost(operations):
        with count_syscalls() as found:
            transfer(ring, [Operation.nop() for _ in range(operations)], timeout=10)
        return found.count

    assert cost(16) == cost(1) > 0


def test_a_thread_started_meanwhile_counts_one_that_ran_before_does_not():
    begin, end = threading.Event(), threading.Event()

    def ask():
        begin.wait(30)
        for _ in range(1000):
            os.getppid()
        end.set()

    earlier = threading.Thread(target=ask)
    earlier.start()
    with count_syscalls() as found:
        begin.set()
        end.wait(30)
    earlier.join()
    assert found.count < 200  # this thread's waiting
    with count_syscalls() as found:
        later = threading.Thread(target=ask)
        later.start()
        later.join()
    assert 1000 <= found.count < 1200


def test_reading_the_time_in_interrupts_is_one_system_call():
    interrupts.interrupt_time_ns()
    with count_syscalls() as found:
        interrupts.interrupt_time_ns()
    assert found.count == 1


def test_a_send_on_a_socket_is_one():
    ours, theirs = socket.socketpair()
    with ours, theirs, count_syscalls() as found:
        ours.send(b"x")
        theirs.recv(1)
    assert 2 <= found.count <= 4  # and the two closes
