"""What a thread asked the kernel for is written down: system calls from outside, ring operations from shared memory."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from ktlslab.errors import MachineError, UsageError
from ktlslab.linux import seccomp, tracing
from ktlslab.linux.ring import Operation, Ring, transfer
from ktlslab.packages import how_to_get


def test_the_calls_of_this_thread_are_traced_between_the_marks_and_no_others():
    stop = threading.Event()

    def other_thread():
        while not stop.wait(0.001):
            os.getppid()

    busy = threading.Thread(target=other_thread)
    busy.start()
    try:
        with tracing.traced() as calls:
            os.getpgid(0)
            calls.mark()
            with contextlib.suppress(OSError):
                Path("/no/such/file").stat()
    finally:
        stop.set()
        busy.join()
    names = [call.name for call in calls.made if call.name in {"getpgid", "newfstatat", "stat", "getppid"}]
    assert names[0] == "getpgid"
    assert names[1] in {"newfstatat", "stat"}
    assert len(names) == 2
    (found,) = (call for call in calls.made if "/no/such/file" in call.arguments or '"/no/' in call.arguments)
    assert (found.result, found.error) == ("-1", "ENOENT")
    assert "getpgid" in {call.name for call in calls.made[: calls.marks[0]]}
    assert found in calls.made[calls.marks[0] :]
    assert not any(call.name == "close" and call.arguments == "-1" for call in calls.made)


def test_of_a_buffer_only_four_bytes_are_written_down():
    """Of what setsockopt(TLS_TX) is given these are version and cipher; the key lies behind."""
    one, other = socket.socketpair()
    with one, other, tracing.traced() as calls:
        one.send(b"\x04\x03\x33\x00secret")
        other.recv(100)
    moved = [call for call in calls.made if call.name in {"sendto", "recvfrom"}]
    assert [call.result for call in moved] == ["10", "10"]
    assert not any("s" in call.arguments.partition('"')[2].partition('"')[0] for call in moved)


def test_operations_lie_in_the_ring_with_their_results_in_order():
    one, other = socket.socketpair()
    with one, other, Ring(16) as ring:
        assert ring.send(one.fileno(), b"four") == 4
        assert ring.recv_into(other.fileno(), bytearray(10)) == 4
        with pytest.raises(OSError, match="Bad file descriptor"):
            ring.send(1 << 20, b"x")
        pair = [Operation.send(one.fileno(), b"x", linked=True), Operation.recv(other.fileno(), bytearray(1))]
        transfer(ring, pair, timeout=5)
        found = tracing.submissions(ring, 16)
        assert [(seen.name, seen.size, seen.result, seen.linked) for seen in found] == [
            ("SEND", 4, 4, False),
            ("RECV", 10, 4, False),
            ("SEND", 1, -errno.EBADF, False),
            ("SEND", 1, 1, True),
            ("RECV", 1, 1, False),
        ]
        assert found[0].fd == one.fileno()


def test_an_enter_says_how_many_operations_it_submitted():
    one, other = socket.socketpair()
    with one, other, Ring(8) as ring, tracing.traced() as calls:
        ring.send_many(one.fileno(), [b"a", b"b", b"c"])
    assert sum(call.submitted for call in calls.made) == 3
    assert any(call.name == tracing.ENTER for call in calls.made)


def test_a_ring_that_has_gone_round_is_refused():
    one, other = socket.socketpair()
    with one, other, Ring(4) as ring:
        for _ in range(4):
            ring.send(one.fileno(), b"x")
        with pytest.raises(UsageError, match="gone round"):
            tracing.submissions(ring, 4)


def test_without_strace_the_error_names_the_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineError) as caught, tracing.traced():
        pytest.fail("traced without strace")
    assert how_to_get("strace") in str(caught.value)


def test_a_strace_that_may_not_attach_is_told_of(monkeypatch, tmp_path):
    (tmp_path / "strace").write_text("#!/bin/sh\necho 'attach: ptrace: Operation not permitted' >&2; exit 1\n")
    (tmp_path / "strace").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(MachineError, match="ptrace: Operation not permitted"), tracing.traced():
        pytest.fail("traced though it may not")


def test_lines_that_are_no_calls_are_skipped():
    text = (
        "close(-1) = -1 EBADF (Bad file descriptor)\n"
        "--- SIGWINCH {si_signo=SIGWINCH} ---\n"
        'sendto(5<TCP:[1.2.3.4:5->6.7.8.9:10]>, "\\26\\3"..., 20, 0, NULL, 0) = 20\n'
        "socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) = 7<TCP:[123]>\n"
        "recvfrom(5, 0x1, 3, 0, NULL, NULL) = ? ERESTARTSYS (x)\n"
        "close(-1) = -1 EBADF (Bad file descriptor)\nclose(-1) = -1 EBADF (Bad file descriptor)\ngetpid() = 1\n"
    )
    made, marks = tracing.parsed(text)
    assert [(call.name, call.result, call.error) for call in made] == [
        ("sendto", "20", ""),
        ("socket", "7", ""),
        ("recvfrom", "?", "ERESTARTSYS"),
    ]
    assert marks == [3]
    assert tracing.parsed("getpid() = 1\n") == ([], [])


def in_a_child(action):
    """Return the errno that a call fails with in a child process, 0 where it does not."""
    child = os.fork()
    if not child:
        number = 255
        with contextlib.suppress(BaseException):
            try:
                action()
                number = 0
            except OSError as error:
                number = error.errno
        os._exit(number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def option(level, name):
    with socket.socket() as sock:
        sock.setsockopt(level, name, 1)


def test_what_is_forbidden_fails_as_told_and_the_rest_does_not():
    def forbidden(then, *arguments):
        seccomp.forbid(seccomp.SETSOCKOPT, socket.IPPROTO_TCP, errno.EACCES)
        then(*arguments)

    assert in_a_child(lambda: forbidden(option, socket.IPPROTO_TCP, socket.TCP_NODELAY)) == errno.EACCES
    assert in_a_child(lambda: forbidden(option, socket.SOL_SOCKET, socket.SO_KEEPALIVE)) == 0
    assert in_a_child(lambda: (seccomp.forbid(seccomp.SETSOCKOPT), option(socket.SOL_SOCKET, 9))) == errno.EPERM
    assert in_a_child(lambda: option(socket.IPPROTO_TCP, socket.TCP_NODELAY)) == 0
