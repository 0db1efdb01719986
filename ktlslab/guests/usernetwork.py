"""Gives a user-mode kernel a network card: frames to libslirp, the user-mode TCP/IP stack that QEMU has as well.

Run it as a program: `python usernetwork.py OUTBOUND PORTS COMMAND...`. It starts the stack in a process of its own and
becomes COMMAND, with an argument more, which names the card. The network is QEMU's: the guest is 10.0.2.15, this
machine 10.0.2.2, the name server 10.0.2.3. PORTS ("8000,8001" or "") of this machine's loopback lead into the guest;
only if OUTBOUND is 1 does anything lead out. It needs no privilege. Source: libslirp.h of version 4.0 and later.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

LIBRARY = "libslirp.so.0"
MTU = 32768  # there is no wire between the two, and the fewer frames the better; with 65,500 transfers stall
_HEADERS = 64  # room for a frame's own
_FOREVER = 0xFFFFFFFF
_BUFFER = 4 << 20
_PATIENCE_S = 1  # for a guest that does not take a frame, which is then lost, as on a wire
_BATCH = 64  # frames of the guest between two looks at the sockets
_TO_POLL = {1: select.POLLIN, 2: select.POLLOUT, 4: select.POLLPRI, 8: select.POLLERR, 16: select.POLLHUP}

_SEND = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_SAY = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p)
_CLOCK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
_NEW_TIMER = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_FREE_TIMER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_SET_TIMER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
_DESCRIPTOR = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)
_NOTIFY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_ADD_POLL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_GET_EVENTS = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


class _Config(ctypes.Structure):
    """SlirpConfig, version 1."""

    _fields_ = [
        ("version", ctypes.c_uint32),
        ("restricted", ctypes.c_int),
        ("in_enabled", ctypes.c_bool),
        ("vnetwork", ctypes.c_uint32),
        ("vnetmask", ctypes.c_uint32),
        ("vhost", ctypes.c_uint32),
        ("in6_enabled", ctypes.c_bool),
        ("vprefix_addr6", ctypes.c_uint32 * 4),
        ("vprefix_len", ctypes.c_uint8),
        ("vhost6", ctypes.c_uint32 * 4),
        ("vhostname", ctypes.c_char_p),
        ("tftp_server_name", ctypes.c_char_p),
        ("tftp_path", ctypes.c_char_p),
        ("bootfile", ctypes.c_char_p),
        ("vdhcp_start", ctypes.c_uint32),
        ("vnameserver", ctypes.c_uint32),
        ("vnameserver6", ctypes.c_uint32 * 4),
        ("vdnssearch", ctypes.c_void_p),
        ("vdomainname", ctypes.c_char_p),
        ("if_mtu", ctypes.c_size_t),
        ("if_mru", ctypes.c_size_t),
        ("disable_host_loopback", ctypes.c_bool),
        ("enable_emu", ctypes.c_bool),
    ]


class _Callbacks(ctypes.Structure):
    """SlirpCb, version 1. Only IPv6 needs timers."""

    _fields_ = [
        ("send_packet", _SEND),
        ("guest_error", _SAY),
        ("clock_get_ns", _CLOCK),
        ("timer_new", _NEW_TIMER),
        ("timer_free", _FREE_TIMER),
        ("timer_mod", _SET_TIMER),
        ("register_poll_fd", _DESCRIPTOR),
        ("unregister_poll_fd", _DESCRIPTOR),
        ("notify", _NOTIFY),
    ]


def main(argv: list[str]) -> None:
    """Start the stack, become the command."""
    outbound, ports = argv[0] == "1", [int(port) for port in argv[1].split(",") if port]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    parent = os.getpid()
    if os.fork() == 0:
        os.closerange(3, ours.fileno())
        os.closerange(ours.fileno() + 1, 4096)  # the guest's streams, which would stay open after its end
        try:
            Stack(ours, outbound=outbound, ports=ports).run()
        except OSError as error:
            sys.stderr.write(f"ktlslab: {error}\n")
            sys.stderr.flush()
            os.kill(parent, signal.SIGKILL)
        os._exit(0)
    os.set_inheritable(theirs.fileno(), True)  # noqa: FBT003 - the call takes no name
    os.execvp(argv[2], [*argv[2:], f"vec0:transport=fd,fd={theirs.fileno()},mtu={MTU}"])  # noqa: S606


class Stack:
    """libslirp, with one guest's card at one end and this machine's sockets at the other."""

    def __init__(self, guest: socket.socket, *, outbound: bool, ports: list[int]) -> None:
        """OSError if the library is missing or a port is taken."""
        self._guest = guest
        guest.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _PATIENCE_S, 0))
        self._callbacks = _Callbacks(
            _SEND(self._send),
            _SAY(lambda *_: None),
            _CLOCK(lambda _: time.monotonic_ns()),
            _NEW_TIMER(lambda *_: None),
            _FREE_TIMER(lambda *_: None),
            _SET_TIMER(lambda *_: None),
            _DESCRIPTOR(lambda *_: None),
            _DESCRIPTOR(lambda *_: None),
            _NOTIFY(lambda *_: None),
        )
        self._library = library = ctypes.CDLL(LIBRARY)
        library.slirp_new.restype = ctypes.c_void_p
        made = library.slirp_new(ctypes.byref(_config(outbound=outbound)), ctypes.byref(self._callbacks), None)
        self._stack = ctypes.c_void_p(made)
        for port in ports:
            # struct in_addr by value is a 32-bit number in the calling convention
            if library.slirp_add_hostfwd(self._stack, 0, _address("127.0.0.1"), port, _address("10.0.2.15"), port):
                message = f"port {port} of this machine's loopback is taken"
                raise OSError(message)
        self._asked: list[tuple[int, int]] = []
        self._answered: dict[int, int] = {}
        self._add = _ADD_POLL(self._on_add)
        self._get = _GET_EVENTS(lambda index, _: self._answered.get(self._asked[index][0], 0))

    def run(self) -> None:
        """Carry frames until the guest is gone."""
        timeout = ctypes.c_uint32()
        while True:
            self._asked.clear()
            timeout.value = _FOREVER
            self._library.slirp_pollfds_fill(self._stack, ctypes.byref(timeout), self._add, None)
            poll = select.poll()
            poll.register(self._guest, select.POLLIN)
            for descriptor, events in self._asked:
                poll.register(descriptor, sum(there for ours, there in _TO_POLL.items() if events & ours))
            ready = dict(poll.poll(None if timeout.value == _FOREVER else timeout.value))
            self._answered = {
                descriptor: sum(ours for ours, there in _TO_POLL.items() if events & there)
                for descriptor, events in ready.items()
            }
            self._library.slirp_pollfds_poll(self._stack, 0, self._get, None)
            if self._guest.fileno() in ready and not self._take():
                return

    def _take(self) -> bool:
        """Pass on what the guest has sent; return whether it is still there."""
        for _ in range(_BATCH):
            try:
                frame = self._guest.recv(MTU + _HEADERS, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not frame:
                return False
            self._library.slirp_input(self._stack, frame, len(frame))
        return True

    def _send(self, frame: int, size: int, _: Any) -> int:
        with contextlib.suppress(OSError):
            self._guest.send(ctypes.string_at(frame, size))
        return size

    def _on_add(self, descriptor: int, events: int, _: Any) -> int:
        self._asked.append((descriptor, events))
        return len(self._asked) - 1


def _config(*, outbound: bool) -> _Config:
    return _Config(
        version=1,
        restricted=not outbound,
        in_enabled=True,
        vnetwork=_address("10.0.2.0"),
        vnetmask=_address("255.255.255.0"),
        vhost=_address("10.0.2.2"),
        vdhcp_start=_address("10.0.2.15"),
        vnameserver=_address("10.0.2.3"),
        if_mtu=MTU,
        if_mru=MTU,
    )


def _address(text: str) -> int:
    return int.from_bytes(socket.inet_aton(text), sys.byteorder)


if __name__ == "__main__":
    main(sys.argv[1:])
