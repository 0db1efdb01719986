"""The relay's process: sockets, a clock, and one loop. `Relay` starts it and talks to it through a socket pair.

python -m ktlslab.relay.process PARENT SECONDS       standard input is the socket
"""

from __future__ import annotations

import collections
import contextlib
import json
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

from ktlslab.linux.process import end_with_parent
from ktlslab.relay.fault import FIN, Action, Fault, ToPad, Way
from ktlslab.tls.records import MAX_PLAINTEXT
from ktlslab.tls.suites import Suite

_CHUNK = 1 << 16
_QUEUED = 16  # pieces that may wait for a reader before the writer must wait
_CONNECT_SECONDS = 10.0


class _Pipe:
    """One direction's sockets, and what is still to be done to the receiving one."""

    def __init__(self, source: socket.socket, sink: socket.socket, direction: Way) -> None:
        self.source, self.sink, self.direction = source, sink, direction
        self.queue: collections.deque[Action] = collections.deque()
        self.not_before = 0.0
        self.read_out = False  # the source has ended
        self.keys: tuple[Suite, bytes, bytes, int] | None = None

    @property
    def wants_to_read(self) -> bool:
        return not self.read_out and len(self.queue) < _QUEUED

    @property
    def seconds_to_wait(self) -> float:
        return self.not_before - time.monotonic() if self.queue else 0.0

    @property
    def wants_to_write(self) -> bool:
        stuck = not self.queue or (isinstance(self.queue[0], ToPad) and not self.keys)
        return not stuck and self.seconds_to_wait <= 0

    @property
    def done(self) -> bool:
        return self.read_out and not self.queue

    def read(self) -> None:
        data = self.source.recv(_CHUNK)
        self.read_out = not data
        self.queue.extend(action for action in self.direction.feed(data) if action != b"")

    def write(self) -> None:
        """Do what is due, as far as the sink takes it. ConnectionResetError if both ends must be reset."""
        while self.wants_to_write:
            action = self.queue[0]
            if isinstance(action, bytes):
                try:
                    rest = action[self.sink.send(action) :]
                except BlockingIOError:
                    return
                if rest:
                    self.queue[0] = rest
                    continue
            elif isinstance(action, float):
                self.not_before = time.monotonic() + action
            elif isinstance(action, ToPad):
                self.queue[0] = self._padded(action)
                continue
            elif action is FIN:
                self.sink.shutdown(socket.SHUT_WR)
            else:
                raise ConnectionResetError
            self.queue.popleft()

    def _padded(self, action: ToPad) -> bytes:
        from ktlslab.tls.protect import open_record, seal  # noqa: PLC0415 - cryptography, which no other fault needs

        if not self.keys or not self.direction.fault:
            raise AssertionError
        suite, key, write_iv, first = self.keys
        kind, data = open_record(suite, key, write_iv, first + action.number, action.record)
        padding = min(self.direction.fault.padding, MAX_PLAINTEXT - len(data))
        self.direction.applied = True
        return seal(suite, key, write_iv, first + action.number, kind, data, padding=padding)


class _Link:
    """One connection: two sockets and two pipes."""

    def __init__(self, client: socket.socket, server: socket.socket, fault: Fault | None) -> None:
        self.sockets = client, server
        self.to_client, self.to_server = Way("client", fault), Way("server", fault)
        self.to_client.other, self.to_server.other = self.to_server, self.to_client
        self.pipes = _Pipe(server, client, self.to_client), _Pipe(client, server, self.to_server)
        self.open = True
        for sock in self.sockets:
            sock.settimeout(0)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def step(self, readable: list[Any]) -> None:
        """Move what can be moved; close when everything is done."""
        try:
            for pipe in self.pipes:
                if pipe.source in readable:
                    pipe.read()
                pipe.write()
        except OSError:
            self._close(reset=True)
        if all(pipe.done for pipe in self.pipes):
            self._close()

    def let_go(self) -> None:
        """Reset the connection if a stall holds it."""
        if self.to_client.stalled or self.to_server.stalled:
            self._close(reset=True)

    def _close(self, *, reset: bool = False) -> None:
        self.open = False
        for sock in self.sockets:
            if reset:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()


class _Process:
    """The loop: connections on one side, the parent's questions on the other."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.target = ("", 0)
        self.fault: Fault | None = None
        self.links: list[_Link] = []  # since the fault was set
        self.live: list[_Link] = []

    def run(self) -> None:
        """Serve until the parent closes its end."""
        while True:
            pipes = [pipe for link in self.live for pipe in link.pipes]
            sources = [pipe.source for pipe in pipes if pipe.wants_to_read]
            sinks = [pipe.sink for pipe in pipes if pipe.wants_to_write]
            waits = [pipe.seconds_to_wait for pipe in pipes if pipe.seconds_to_wait > 0]
            readable, _, _ = select.select([self.control, self.listener, *sources], sinks, [], min(waits, default=None))
            for link in self.live:
                link.step(readable)
            if self.control in readable:
                question = self.control.recv(_CHUNK)
                if not question:
                    return
                self.control.send(json.dumps(self._answer(json.loads(question))).encode())
            if self.listener in readable:
                self._accept()
            self.live = [link for link in self.live if link.open]

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        try:
            server = socket.create_connection(self.target, timeout=_CONNECT_SECONDS)
        except OSError:  # behave as if nothing listened here either
            client.close()
            return
        self.links.append(_Link(client, server, self.fault))
        self.live.append(self.links[-1])

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if "fault" in question:
            told = question["fault"]
            self.fault = Fault(**told | {"data": bytes.fromhex(told["data"])}) if told else None
            self.target = tuple(question["target"])
            for link in self.live:
                link.let_go()
            self.links = []
            return {"port": self.listener.getsockname()[1]}
        if "suite" in question:
            key, write_iv = bytes.fromhex(question["key"]), bytes.fromhex(question["write_iv"])
            for pipe in self.links[-1].pipes:
                pipe.keys = Suite[question["suite"]], key, write_iv, question["sequence"]
            return {}
        return {
            "connections": len(self.links),
            "to_client": sum(link.to_client.seen for link in self.links),
            "to_server": sum(link.to_server.seen for link in self.links),
            "applied": any(direction.applied for link in self.links for direction in (link.to_client, link.to_server)),
        }


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    signal.alarm(int(sys.argv[2]))
    _Process(socket.socket(fileno=0)).run()
