"""A server's event loop over many open connections, in C: `native/server.c` has the rules.

With `uring`: one ring, a multishot receive armed on each connection, provided buffers, one submission per batch. With
`syscall`: epoll(7), recv(2) and send(2). Where OpenSSL makes the records, the loop calls it on memory, so both engines
move bytes alike.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from ktlslab._closing import Closing
from ktlslab.errors import KtlsLabError
from ktlslab.linux import _native, setups
from ktlslab.tls import openssl

ffi, lib = _native.ffi, _native.lib

_ENTRIES = 1024
_INTERRUPTED = -65536  # KL_INTERRUPTED in native/ring.h


class Served(NamedTuple):
    """A connection: its descriptor, and the OpenSSL connection that makes its records; None: bytes go as they are."""

    fd: int
    library: Any = None


class ServerLoop(Closing):
    """Answers each `request` on any of the connections with `response`. The connections stay open when it is closed.

    Raises RingUnavailableError, OSError.
    """

    def __init__(self, served: Sequence[Served], io_engine: str, request: Any, response: Any) -> None:
        self._native: Any = ffi.NULL
        # SINGLE_ISSUER and DEFER_TASKRUN: what io_uring_setup(2) recommends for a loop in one thread.
        self._ring = setups.open_ring(_ENTRIES, sqpoll=False, defer_taskrun=True) if io_engine == "uring" else ffi.NULL
        self._held = [ffi.from_buffer(request), ffi.from_buffer(response)]
        table = ffi.new("struct kl_served[]", len(served))
        for row, one in zip(table, served, strict=True):
            row.fd = one.fd
            if one.library is not None:
                row.ssl, row.incoming, row.outgoing = (ffi.cast("void *", at) for at in openssl.memory_of(one.library))
        functions = {name: ffi.cast("void *", at) for name, at in openssl.addresses().items()}
        sizes = {"request_bytes": len(request), "response_bytes": len(response)}
        exchange = {"request": self._held[0], "response": self._held[1], **sizes}
        error = ffi.new("int *")
        self._native = lib.kl_server_open(
            self._ring,
            table,
            len(served),
            ffi.new("struct kl_exchange *", exchange),
            ffi.new("struct kl_openssl *", functions),
            error,
        )
        if not self._native:
            self.close()
            raise OSError(-error[0], os.strerror(-error[0]))

    def run(self, responses: int, per_step: int = 0, spin_ns: int = 0) -> list[int]:
        """Answer that many requests. Return how many nanoseconds each `per_step` of them took; [] without a step.

        `spin_ns` makes each step longer by so much. KtlsLabError: a request differs from the one agreed on, OpenSSL
        refused a record, or a connection ended.
        """
        steps = responses // per_step if per_step else 0
        took = ffi.new("int64_t[]", steps) if steps else ffi.NULL
        lib.kl_server_begin(self._native, responses, per_step, took, spin_ns)
        while (error := lib.kl_server_run(self._native)) == _INTERRUPTED:
            pass  # a signal's handler has run
        if error:
            answered = "a request differs from the one agreed on" if error == -errno.EBADMSG else os.strerror(-error)
            raise KtlsLabError("serving requests", answered=answered, remedy="Is the peer still running?")
        return list(took) if steps else []

    def close(self) -> None:
        """Stop listening to the connections, which stay open."""
        if self._native:
            lib.kl_server_close(self._native)
            self._native = ffi.NULL
        if self._ring:
            lib.kl_ring_close(self._ring)
            self._ring = ffi.NULL
