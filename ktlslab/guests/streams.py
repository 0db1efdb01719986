"""A guest's output: three byte streams from its process, read by one thread.

A guest's ports have no end of file, so it writes a random mark after the command's last byte; all bytes before the mark
are the command's. Reading never waits for the caller, because a guest whose output is not read stops.
"""

from __future__ import annotations

import io
import os
import selectors
import threading
import time
from typing import TYPE_CHECKING, BinaryIO

from ktlslab.guests.process import kill, watch

if TYPE_CHECKING:
    import socket
    import subprocess

_CHUNK = 1 << 16


class MarkedOutput:
    """Passes bytes on to a sink until the mark; holds back only what could be the mark's beginning."""

    def __init__(self, mark: bytes, sink: BinaryIO | None = None) -> None:
        self.captured = io.BytesIO()
        self.complete = False
        self._mark = mark
        self._held = b""
        self._sink = sink

    def feed(self, data: bytes) -> None:
        if self.complete:
            return
        data = self._held + data
        at = data.find(self._mark)
        if at >= 0:
            self.complete, self._held = True, b""
            self._emit(data[:at])
            return
        kept = next((n for n in range(min(len(data), len(self._mark) - 1), 0, -1) if data.endswith(self._mark[:n])), 0)
        self._held = data[len(data) - kept :]
        self._emit(data[: len(data) - kept])

    def flush(self) -> None:
        """Stop waiting for the mark, because the guest is gone."""
        self._emit(self._held)
        self._held = b""

    def _emit(self, data: bytes) -> None:
        if not data:
            return
        if self._sink is None:
            self.captured.write(data)
        else:
            self._sink.write(data)
            self._sink.flush()


class Pump(threading.Thread):
    """Reads a guest's ports until its command or its process ends, then ends the process."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        ports: list[socket.socket],
        out: MarkedOutput,
        err: MarkedOutput,
        boot_timeout: float,
    ) -> None:
        super().__init__(name="ktlslab-guest", daemon=True)
        self.up = threading.Event()
        self.done = threading.Event()
        self.returncode: int | None = None
        self.failure = ""
        self.sink_error: OSError | ValueError | None = None
        self._process = process
        self._ended = watch(process)
        self._ports = ports
        self._out, self._err = out, err
        self._status = b""
        self._boot_timeout = boot_timeout

    def run(self) -> None:
        try:
            self._read()
            self._out.flush()
            self._err.flush()
        except (OSError, ValueError) as error:  # the sink is closed, or its reader is gone
            self.sink_error = error
        finally:
            # No data is lost: what the command wrote to its folder was written through.
            kill(self._process)
            self._process.wait()
            for port in self._ports:
                port.close()
            os.close(self._ended)
            self.done.set()

    def _read(self) -> None:
        deadline = time.monotonic() + self._boot_timeout
        feeds = (self._out.feed, self._err.feed, self._on_status)
        with selectors.DefaultSelector() as selector:
            for port, feed in zip(self._ports, feeds, strict=True):
                selector.register(port, selectors.EVENT_READ, feed)
            selector.register(self._ended, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(None if self.up.is_set() else max(0.0, deadline - time.monotonic()))
                if not ready and not self.up.is_set() and time.monotonic() >= deadline:
                    self.failure = f"it did not boot within {self._boot_timeout:g} s"
                    return
                for key, _ in ready:
                    if key.fd == self._ended:
                        selector.unregister(self._ended)
                        kill(self._process)  # others of its group may keep the ports open
                        continue
                    data = os.read(key.fd, _CHUNK)
                    if data:
                        key.data(data)
                    else:  # the process ended: all ports close after their data is read
                        selector.unregister(key.fileobj)
                if self.returncode is not None and self._out.complete and self._err.complete:
                    return
        if self.returncode is None:
            when = "while the command ran" if self.up.is_set() else "before the command was started"
            self.failure = f"the guest went down {when} (its process ended with {self._process.wait()})"

    def _on_status(self, data: bytes) -> None:
        self._status += data
        *lines, self._status = self._status.split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"up":
                self.up.set()
            elif word == b"exit":
                self.returncode = int(number)
