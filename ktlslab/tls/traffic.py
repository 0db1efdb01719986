"""Application data through OpenSSL with little overhead, by memory BIOs or with OpenSSL on the socket itself.

pyOpenSSL's methods allocate a buffer, copy, and raise an exception at nearly every call. In an echo of 64 bytes this
cost more than the encryption, and would make userspace TLS look slower than it is. So the two calls that a transfer
repeats, sealing and opening, use pyOpenSSL's private names (`SSL._lib`, `SSL._ffi`, `Connection._ssl`). `tests/stages`
fails if a new pyOpenSSL renames one.
"""
# ruff: noqa: SLF001 - see above

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from .records import MAX_PLAINTEXT

Buffer = bytes | bytearray | memoryview

_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_lib: Any = SSL._lib  # type: ignore[attr-defined]
_OVERHEAD = 64  # bytes; header, explicit nonce, tag and inner type never take more
_WIRE_BYTES = 1 << 17
_MAX_BYTES = 1 << 30  # per call of OpenSSL, which takes an int


class Traffic:
    """Sealing and opening on a connection whose handshake is over. `wire` is the buffer for received bytes.

    OpenSSL's connections are not safe to use in two threads at once (openssl-threads(7)): `write` and `open_into` raise
    OSError EBUSY where another thread is in one of them.
    """

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection: Any = connection
        self._ssl: Any = self._connection._ssl
        self._incoming: Any = self._connection._into_ssl
        self._outgoing: Any = self._connection._from_ssl
        self.uncounted = False  # some records were not counted: too late for a handoff
        self._on_socket = False
        self._busy = False
        self.wire = bytearray(_WIRE_BYTES)
        self._wire: Any = _ffi.from_buffer("char[]", self.wire, True)  # noqa: FBT003 - writable; the keyword is dear
        self._room(MAX_PLAINTEXT)

    def seal(self, data: Buffer) -> memoryview:
        """Return the records that carry `data`, in a buffer that is valid until the next call."""
        size = self.write(data)
        if size > self._plaintext:
            self._room(size)
        return self.sealed()

    def own(self, descriptor: int) -> None:
        """From now on let OpenSSL read and write the socket itself, by its own system calls."""
        self.uncounted = self._on_socket = True
        _lib.SSL_set_fd(self._ssl, descriptor)

    def disown(self) -> None:
        """Give OpenSSL memory in place of the socket: what it reads comes by `take_in`."""
        self._on_socket = False
        self._incoming, self._outgoing = (_lib.BIO_new(_lib.BIO_s_mem()) for _ in range(2))
        for memory in (self._incoming, self._outgoing):
            _lib.BIO_set_mem_eof_return(memory, -1)
        _lib.SSL_set_bio(self._ssl, self._incoming, self._outgoing)  # which frees them with the connection

    def check_free(self) -> None:
        """Raise OSError EBUSY while another thread is in OpenSSL."""
        if self._busy:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def write(self, data: Buffer, check: Callable[[], None] | None = None) -> int:
        """Write all of `data` through OpenSSL, and return how many bytes that were.

        TimeoutError if the socket's time-out expires; otherwise SSL.Error. `check` is called between records, and may
        raise.
        """
        if self._busy:
            self.check_free()
        held = _ffi.from_buffer(data)
        size = len(held)
        at = 0
        try:
            self._busy = True
            while at < size:  # pyOpenSSL's contexts write one record per call (SSL_MODE_ENABLE_PARTIAL_WRITE)
                done = _lib.SSL_write(self._ssl, held + at if at else held, size - at)
                if done <= 0:
                    if self._interrupted():
                        continue
                    if _lib.SSL_get_error(self._ssl, done) in {_lib.SSL_ERROR_WANT_WRITE, _lib.SSL_ERROR_WANT_READ}:
                        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                    self._connection._raise_ssl_error(self._ssl, done)
                at += done
                if check and at < size:
                    check()
        finally:
            self._busy = False
            del held  # in the frame of a traceback it could crash the garbage collector: see linux/views.py
        return size

    def sealed(self) -> memoryview:
        """Return what OpenSSL wants to send."""
        count = _lib.BIO_read(self._outgoing, self._sealed, len(self._records))
        return memoryview(self._records)[: max(0, count)]

    def take_in(self, count: int) -> None:
        """Feed the first `count` bytes of `wire` to OpenSSL."""
        self.uncounted = True
        _lib.BIO_write(self._incoming, self._wire, count)

    def open_into(self, buffer: Buffer) -> int | None:
        """Fill `buffer` from one record. 0 means close_notify, or no room; None that bytes are missing.

        SSL.Error for a bad record.
        """
        if self._busy:
            self.check_free()
        room = _ffi.from_buffer("char[]", buffer, True)  # noqa: FBT003
        size = len(room)
        try:
            if not size:
                return 0  # OpenSSL would read a record first
            self._busy = True
            count: int = _lib.SSL_read(self._ssl, room, size)
            while count <= 0 and self._interrupted():
                count = _lib.SSL_read(self._ssl, room, size)
        except OverflowError:  # OpenSSL takes an int
            self._busy = False
            return self.open_into(memoryview(buffer)[:_MAX_BYTES])
        finally:
            self._busy = False
            del room  # as in `write`
        if count > 0:
            return count
        answer = _lib.SSL_get_error(self._ssl, count)
        if answer == _lib.SSL_ERROR_WANT_READ:
            return None
        if answer == _lib.SSL_ERROR_ZERO_RETURN:
            return 0
        self._connection._raise_ssl_error(self._ssl, count)
        raise SSL.Error([])

    def _interrupted(self) -> bool:
        """Whether a signal interrupted the last system call, which OpenSSL reports like a time-out.

        The signal's Python handler runs here and may raise. If it returns, the call must be repeated (PEP 475).
        """
        if not self._on_socket or _ffi.errno != errno.EINTR:
            return False
        _ffi.errno = 0  # cffi keeps it: without a new system call, the next call would seem interrupted too
        return True

    def _room(self, plaintext: int) -> None:
        """Make room for the records of this many bytes."""
        self._plaintext = plaintext
        self._records = bytearray(plaintext + (plaintext // MAX_PLAINTEXT + 4) * _OVERHEAD)
        self._sealed: Any = _ffi.from_buffer("char[]", self._records, True)  # noqa: FBT003
