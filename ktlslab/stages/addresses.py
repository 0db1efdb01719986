"""From a host's name to a connection with one of its addresses: "Happy Eyeballs" (RFC 8305).

An address that is dead must not cost the whole time-out. So the families take turns, and an address that has not
answered within a quarter of a second is left waiting while the next is tried. The first that answers is used.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import select
import socket
import threading
import time
from typing import Any

from ktlslab.errors import UnknownHostError
from ktlslab.linux.engines import Engine
from ktlslab.linux.ktls import Direction

STAGGER_S = 0.25  # RFC 8305, 5: the Connection Attempt Delay
_MIN_S = 0.001


def resolve(host: str, port: int, timeout: float | None) -> list[Any]:
    """Return what getaddrinfo(3) does, the families taking turns. UnknownHostError, also after `timeout` seconds."""
    found: list[Any] = []
    failure: list[Exception] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failure.append(error)

    if timeout is None or _is_address(host):
        look_up()
    else:  # getaddrinfo has no time-out of its own
        thread = threading.Thread(target=look_up, name="ktlslab-lookup", daemon=True)
        thread.start()
        thread.join(timeout)
    if failure or not found:
        late = f"the name servers did not answer within {timeout} s"
        answered = (getattr(failure[0], "strerror", None) or str(failure[0])) if failure else late
        remedy = "Check the spelling, and that this machine's name resolution works."
        raise UnknownHostError(f"looking up {host!r}", answered=answered, remedy=remedy) from next(iter(failure), None)
    return _in_turns(found)


def connect_to_one(engine: Engine, addresses: list[Any], began: float) -> socket.socket:
    """Connect to the first address that answers. OSError of the last one tried; TimeoutError, counted from `began`."""
    timeout, waiting = engine.timeout, contextlib.ExitStack()
    failure: OSError = TimeoutError()
    with waiting:
        pending: dict[int, socket.socket] = {}
        winner: socket.socket | None = None
        for number, (family, kind, protocol, _, sockaddr) in enumerate(addresses, 1):
            left = None if timeout is None else max(began + timeout - time.monotonic(), _MIN_S)
            last = number == len(addresses) and not pending
            engine.timeout = left if last else min(STAGGER_S, left or STAGGER_S)
            sock = waiting.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                engine.connect(sock, sockaddr)
                winner = sock
                break
            except TimeoutError:
                if not last:
                    pending[sock.fileno()] = sock
            except OSError as error:
                sock.close()
                failure = error
            finally:
                engine.timeout = timeout
            if winner := _first(pending, 0):
                break
        if winner is None and pending:
            winner = _first(pending, None if timeout is None else max(began + timeout - time.monotonic(), 0))
            failure = TimeoutError()
        if winner is None:
            raise failure
        connected = socket.socket(fileno=winner.detach())
    connected.settimeout(None)
    for direction in Direction:
        engine.limit(connected, direction, None)
    return connected


def _first(pending: dict[int, socket.socket], wait: float | None) -> socket.socket | None:
    """Return the first of these that is connected within `wait` seconds, and drop those that failed."""
    until = None if wait is None else time.monotonic() + wait
    while pending:
        poll = select.poll()
        for descriptor in pending:
            poll.register(descriptor, select.POLLOUT)
        ready = poll.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000)
        if not ready:
            return None
        for descriptor, _ in ready:
            sock = pending.pop(descriptor)
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return sock
            sock.close()
    return None


def _in_turns(found: list[Any]) -> list[Any]:
    """Order addresses so that their families take turns, beginning with the first one's (RFC 8305, 4)."""
    families: dict[int, list[Any]] = {}
    for one in found:
        families.setdefault(one[0], []).append(one)
    turns = itertools.zip_longest(*families.values())
    return [one for turn in turns for one in turn if one is not None]


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host.partition("%")[0]))
    return False
