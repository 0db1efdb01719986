"""A ring that is forgotten while it uses views: it must release them before the garbage collector frees them.

    python -X dev -m tests.matrix.pins TIMES

A process of its own, because what it looks for ends the process; to be run under a debug allocator.
"""

from __future__ import annotations

import gc
import socket
import sys

from ktlslab.linux.ring import Operation, Ring


def forget() -> None:
    """Leave a ring in a cycle with the views."""
    ours, theirs = socket.socketpair()
    view, fixed = (memoryview(bytearray(1000))[10:] for _ in range(2))
    operation = Operation.recv(ours.fileno(), view)  # before the list, so that the collector reaches the views first
    ring = Ring(4)
    ring.register_buffers([fixed])
    ring.start(operation)
    cycle = [view, fixed, operation, ring]
    cycle.append(cycle)
    del view, fixed, operation, ring, cycle
    gc.collect()
    theirs.sendall(b"too late: the ring was closed")
    ours.close()
    theirs.close()


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        forget()
    sys.stdout.write(f"{sys.argv[1]} rings forgotten\n")
