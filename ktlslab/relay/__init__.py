"""A relay between two ends that does one chosen kind of damage to the bytes between them.

    with Relay(("example.org", 443), Fault("flip", record=3, part="tag")) as relay:
        with open_session(*relay.address, config=ClientConfig(server_name="example.org")) as session:
            ...                                                              # use it
        print(relay.report())                                                # what passed by, and whether the fault did

The relay is a separate process. It counts the TLS records after the handshake and passes all of them on unchanged
except the one named by the fault. Bytes that are not TLS are passed on in the pieces in which they arrive.

* `fault`: the kinds of damage, without I/O;
* `process`: the process that moves the bytes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from ktlslab import _checks
from ktlslab._closing import Closing
from ktlslab._html import card
from ktlslab.errors import MachineError
from ktlslab.linux.patience import again
from ktlslab.relay.fault import Fault

if TYPE_CHECKING:
    from ktlslab.stages.keys import DirectionKeys

__all__ = ["HTTP", "Fault", "Relay", "Report"]

HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nThis is no TLS port.\r\n"
LIFE_SECONDS = 600
_MAX_LIFE_SECONDS = 1 << 31
_ANSWER_SECONDS = 30.0  # an emulated machine starts Python slowly
_ANSWER_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a relay has seen since its fault was set: records, as the fault counts them, and whether it was applied."""

    connections: int
    to_client: int
    to_server: int
    applied: bool

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [("connections", self.connections)]
        rows += [("records to the client", self.to_client), ("records to the server", self.to_server)]
        return card("What the relay saw", [*rows, ("fault", "applied" if self.applied else "not applied")])


class Relay(Closing):
    """A relay on loopback to `target`, (host, port); a context manager. Connect to its `address` instead.

    `use` gives it another fault for later connections. Its process ends with this one, on `close`, or after `seconds`.
    Raises MachineError if it does not start or answer.
    """

    def __init__(self, target: tuple[str, int], fault: Fault | None = None, *, seconds: int = LIFE_SECONDS) -> None:
        tried = "starting a relay"
        self.target, self.fault = _checks.address(tried, "target", target), fault
        _checks.optional(_checks.instance, tried, "fault", fault, Fault)
        _checks.whole(tried, "seconds", seconds, 1, _MAX_LIFE_SECONDS)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_ANSWER_SECONDS)
        argv = [sys.executable, "-m", "ktlslab.relay.process", str(os.getpid()), str(seconds)]
        with theirs:
            self._process = subprocess.Popen(argv, stdin=theirs.fileno())
        try:
            self.port: int = self.use(fault, target)["port"]
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def use(self, fault: Fault | None, target: tuple[str, int] | None = None) -> dict[str, Any]:
        """Apply this fault, or none, to connections made from now on; `report` starts again from zero.

        A connection that is held open by a stall is reset.
        """
        tried = "giving a relay a fault"
        self.fault = _checks.optional(_checks.instance, tried, "fault", fault, Fault)
        self.target = self.target if target is None else _checks.address(tried, "target", target)
        told = dataclasses.asdict(fault) | {"data": fault.data.hex()} if fault else None
        return self._ask({"fault": told, "target": self.target})

    def give_keys(self, keys: DirectionKeys) -> None:
        """Give the latest connection the keys of one direction, exported after the handshake; `pad` needs them."""
        key, write_iv = keys.key.reveal().hex(), keys.write_iv.reveal().hex()
        self._ask({"suite": keys.suite.name, "key": key, "write_iv": write_iv, "sequence": keys.sequence})

    def report(self) -> Report:
        """Return what has happened so far. It includes everything that an end has received."""
        return Report(**self._ask({"report": True}))

    def close(self) -> None:
        """End the process and its connections. May be called twice."""
        self._control.close()  # the process ends when it sees this
        try:
            self._process.wait(_ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __repr__(self) -> str:
        state = f"127.0.0.1:{self.port}" if self._process.poll() is None else "closed"
        return f"Relay({state} to {self.target[0]}:{self.target[1]}, {self.fault})"

    def _repr_html_(self) -> str:
        usual = {field.name: field.default for field in dataclasses.fields(Fault)}
        given = {
            name: value
            for name, value in (dataclasses.asdict(self.fault) if self.fault else {}).items()
            if value != usual[name]
        }
        rows: list[tuple[str, object]] = [("connect to", "{}:{}".format(*self.address))]
        rows += [("state", "closed" if self._process.poll() is not None else "open")]
        rows += [(f"fault: {name}", value) for name, value in given.items()] or [("fault", "none")]
        return card("Relay to {}:{}".format(*self.target), rows)

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            self._control.send(json.dumps(question).encode())
            try:
                answer = self._control.recv(_ANSWER_BYTES)
            except TimeoutError:
                answer = again(_ANSWER_SECONDS, self._control.recv, _ANSWER_BYTES)
        except OSError as error:
            raise MachineError("asking the relay", answered=str(error), remedy="Start a new one.") from error
        if not answer:
            raise MachineError("asking the relay", answered="its process has ended", remedy="Start a new one.")
        said: dict[str, Any] = json.loads(answer)
        return said
