"""A call in another process, for promises that need two processes."""

from __future__ import annotations

import ast
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ktlslab.promises.pair import ENOUGH_S, readable_fd


class Elsewhere:
    """A call in a forked process, which starts at once and ends with the check at the latest."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.write(writing, repr(call()).encode())
            finally:
                os._exit(0)
        os.close(writing)

    def result(self, within: float = ENOUGH_S) -> Any:
        """Return the result of the call, "nothing" if it failed or took too long. Call this only once."""
        said = b""
        while readable_fd(self._reading, within) and (part := os.read(self._reading, 1 << 16)):
            said += part
        os.close(self._reading)
        return ast.literal_eval(said.decode()) if said else "nothing"

    def sleeps(self, within: float = ENOUGH_S) -> bool:
        """Wait until the process sleeps in the kernel (proc(5): state S), and return whether it does."""
        deadline, calm = time.monotonic() + within, 0
        while time.monotonic() < deadline and calm < 3:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            calm = calm + 1 if state == "S" else 0
            time.sleep(0.005)
        return calm >= 3
